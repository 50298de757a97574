"""Knows how messages travel over a pipe: four bytes of length, then UTF-8 JSON. Both sides distrust each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_MESSAGE_BYTES = 1 << 24
"""Longest message, in bytes. Up to 64 KiB it fits an empty pipe, so that sending to an idle process does not block."""

PID_BYTES = 8
"""Length of the message that names a new worker's process."""


def pack(message: Mapping[str, object]) -> bytes:
    """One frame. Raises ValueError where the message is too long."""
    body = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(body) + 4 > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(body)} bytes is longer than {MAX_MESSAGE_BYTES}")
    return len(body).to_bytes(4, "big") + body


class Frames:
    """Collects bytes as they come and gives out whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages completed by `data`. Raises ValueError for anything that is no frame of ours."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big")
            if size > MAX_MESSAGE_BYTES:
                raise ValueError(f"a frame announces {size} bytes")
            if len(self._buffer) < 4 + size:
                break
            message = json.loads(self._buffer[4 : 4 + size])
            if not isinstance(message, dict):
                raise ValueError("a frame holds no object")
            messages.append(message)
            del self._buffer[: 4 + size]
        return messages
