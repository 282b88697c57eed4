"""Values of other encodings as JSON has them, where it has none of their kind."""

from __future__ import annotations

import base64
import math


def as_json(value: object) -> object:
    """Bytes in base64, numbers that JSON does not have as text: as protobuf's JSON writes them."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {key: as_json(each) for key, each in value.items()}
        case list():
            return [as_json(each) for each in value]
    return value
