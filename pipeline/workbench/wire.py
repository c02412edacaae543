"""What goes over the WebSocket: JSON from the page; to the page a header in JSON with the arrays behind it."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.errors import UserError

ALIGNED = 8  # bytes at multiples of which arrays begin, so that the page needs no copy
DEEPEST = 12


def frame(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """4 bytes with the length of the header, the header, and the arrays in the order that it names them."""
    listed = {name: [values.dtype.name, values.size] for name, values in arrays.items()}
    text = json.dumps({**header, "arrays": listed}, ensure_ascii=False, default=_plain, allow_nan=False).encode()
    text += b" " * (-(4 + len(text)) % ALIGNED)
    parts = [len(text).to_bytes(4, "little"), text]
    for values in arrays.values():
        content = np.ascontiguousarray(values).tobytes()
        parts += [content, b"\0" * (-len(content) % ALIGNED)]
    return b"".join(parts)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} in a header")


def message(text: str | None) -> dict:
    """What the page sent; UserError for anything that it would not send."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("do"), str):
        raise UserError("not understood: a message is a JSON object with 'do'")
    return found


def labels_of(labels: np.ndarray, classes: int, before: np.ndarray | None) -> dict[str, np.ndarray]:
    """All labels (N,), or only those that are others than `before`, with their rows, where that is less."""
    kind = np.uint8 if classes <= 256 else np.uint16
    if before is not None and len(labels) > 2**16:
        rows = np.flatnonzero(labels != before)
        if len(rows) < len(labels) // 8:
            return {"changedRows": rows.astype(np.uint32), "changedLabels": labels[rows].astype(kind)}
    return {"labels": labels.astype(kind)}
