"""The codecs of everything that is stored, as one release has them."""

from __future__ import annotations

from typing import NamedTuple

from evaluator.wire import partial, progress, state
from evaluator.wire.state import StateCodecs
from evaluator.wire.stored import Codec


class Codecs(NamedTuple):
    """See `stored.py`. The defaults write what the release before can read."""

    source_progress: Codec = progress.CODEC
    partial: Codec = partial.CODEC
    state: StateCodecs = state.CODECS

    def finalized(self) -> Codecs:
        """The same, but writing the newest schemas."""
        return Codecs(
            self.source_progress.finalized(),
            self.partial.finalized(),
            StateCodecs(*(codec.finalized() for codec in self.state)),
        )


CODECS = Codecs()
