"""The rights that a process needs on brokers with access control.

One table: the start checks it, `evaluator topics acls` prints it, the documentation shows it (docs/guarantees.md), and
a test on a real broker takes it away row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.runtime.log.rights import Operation, Resource, Right

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluator.runtime.topics import Topics

_T, _G, _X = Resource.TOPIC, Resource.GROUP, Resource.TRANSACTIONAL_ID
_READ, _WRITE = Operation.READ, Operation.WRITE


def needed(topics: Topics, sources: Mapping[str, str]) -> list[Right]:
    """Without any of these there is no start. `sources` are topics by the names of the sources."""
    places = tuple(topics.progress(name) for name in sources)
    ids = (*(f"{topics.app_id}.aggregate.{name}.0" for name in sources), f"{topics.app_id}.evaluate.0")
    return [
        *(Right(_T, topic, _READ, "no event is read") for topic in sources.values()),
        Right(_T, f"{topics.app_id}.progress.", _READ, "nobody knows how far a source was read", is_prefix=True,
              names=places),
        Right(_T, f"{topics.app_id}.progress.", _WRITE, "nothing can be committed", is_prefix=True,
              names=places),
        Right(_T, topics.partials, _READ, "nothing is decided"),
        Right(_T, topics.partials, _WRITE, "nothing that was read reaches the stage that decides"),
        Right(_T, topics.state, _READ, "no state can be restored"),
        Right(_T, topics.state, _WRITE, "nothing can be committed"),
        Right(_T, topics.alerts, _READ, "the page and the metrics do not know what was published"),
        Right(_T, topics.alerts, _WRITE, "no alert is published"),
        Right(_T, topics.status, _READ, "the page and the metrics do not know what is pending"),
        Right(_T, topics.status, _WRITE, "the state of alerts is not published"),
        Right(_T, topics.verdicts, _WRITE, "decided windows are not published"),
        Right(_T, topics.dlq, _WRITE, "records that cannot be judged stop their partition"),
        Right(_T, topics.control, _READ, "maintenance is not seen"),
        Right(_G, f"{topics.app_id}.aggregate", _READ, "no partition of a source is given to us"),
        Right(_G, f"{topics.app_id}.evaluate", _READ, "no shard is given to us"),
        Right(_X, f"{topics.app_id}.", _WRITE, "there are no transactions", is_prefix=True,
              names=ids),
    ]  # fmt: skip


def useful(topics: Topics) -> list[Right]:
    """A start does not ask for these."""

    def also(name: str, operation: Operation, why: str, *, is_prefix: bool = False) -> Right:
        return Right(_T, name, operation, why, is_prefix, is_needed=False)

    places = f"{topics.app_id}.progress."
    seen = (topics.partials, topics.state, topics.alerts, topics.status, topics.verdicts, topics.dlq, topics.control)
    unseen = "its cleanup policy and min.insync.replicas cannot be checked"
    return [
        also(topics.partials, Operation.DELETE, "merged partials stay for ever, with a warning every hour"),
        also(places, Operation.ALTER, "partitions added to a source are not read until somebody adds them here",
             is_prefix=True),
        also(places, Operation.DESCRIBE_CONFIGS, unseen, is_prefix=True),
        *(also(name, Operation.DESCRIBE_CONFIGS, unseen) for name in seen),
    ]  # fmt: skip


def creating(topics: Topics) -> list[Right]:
    """What `kafka.create_topics` and `evaluator topics create` need besides."""
    why = "it cannot be created where it is missing"
    return [
        Right(_T, f"{topics.app_id}.", Operation.CREATE, why, is_prefix=True, is_needed=False),
        *(
            Right(_T, name, Operation.CREATE, why, is_needed=False)
            for name in (topics.alerts, topics.status, topics.verdicts, topics.dlq, topics.control)
        ),
    ]
