"""Makes a smaller installation, or a machine without a network, of this one: by variables of the environment.

CURES_TEST_ABSENT: top-level modules that are not to be found. CURES_TEST_NO_NETWORK: only this machine answers.
"""

from __future__ import annotations

import os
import socket
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

_ABSENT = frozenset(filter(None, os.environ.get("CURES_TEST_ABSENT", "").split(",")))
_connect = socket.socket.connect


class _Finder(PathFinder):
    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if fullname.partition(".")[0] in _ABSENT else super().find_spec(fullname, path, target)


def _connect_here(self: socket.socket, address: Any) -> None:
    if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "::1", "localhost")):
        raise OSError(f"no network: {address[0]}")
    _connect(self, address)


sys.meta_path[:] = [_Finder if finder is PathFinder else finder for finder in sys.meta_path]
if os.environ.get("CURES_TEST_NO_NETWORK"):
    socket.socket.connect = _connect_here  # type: ignore[method-assign]
