"""Knows how a person calls this `cures`: commands that are told work as they are printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

NAME = "cures"
_COMMAND = re.compile(rf"(?<![\w./-])(?:({NAME})(?= [a-z])|pip(?= install ))")


def as_typed(text: str) -> str:
    """A text whose commands, as in `cures runs list` and `pip install PACKAGE`, begin with what can be typed here."""
    called = how_called()
    if called == NAME:
        return text
    pip = f"{shlex.quote(sys.executable)} -m pip"
    return _COMMAND.sub(lambda found: called if found[1] else pip, text)


def how_called() -> str:
    """What to type for this `cures`: the path that it was started by, unless the shell finds it by its name too."""
    started = sys.argv[0]
    if Path(started).name != NAME:  # as a module, or in another program
        return NAME
    # A shell hands over a whole path where it found the name itself. What make sets PATH to is not the shell's.
    by_name = shutil.which(NAME) if Path(started).is_absolute() and "MAKELEVEL" not in os.environ else None
    return NAME if by_name and Path(by_name).resolve() == Path(started).resolve() else shlex.quote(started)
