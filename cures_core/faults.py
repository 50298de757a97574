"""Faults on request: named places in the code where a drill or a test can make the process fail, once.

`CURES_FAULTS` holds `point=action` pairs separated by commas; actions: `kill` (SIGKILL to this process), `raise`
(`InjectedFault`), `stop` (SIGTERM to this process), `pause` (SIGSTOP to this process, as if it hung). A point may carry
a counter, `train.step:13=kill`: `train.step` is hit with `detail="13"`. Each pair fires once per run: the marker file
in `CURES_FAULTS_DIR` is written first.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from cures_core.errors import ConfigError, InjectedFault
from cures_core.names import inside

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM, "pause": signal.SIGSTOP}
_ACTIONS = ("raise", *_SIGNALS)


def parse_fault(text: str) -> tuple[str, str]:
    """Split `point=action`; `ConfigError` for another action than those above."""
    point, _, action = text.partition("=")
    if not point or action not in _ACTIONS:
        raise ConfigError(f"fault {text!r}: write POINT=ACTION with ACTION one of {', '.join(_ACTIONS)}")
    return point.strip(), action


def arm(faults: Sequence[str], folder: Path) -> None:
    """Make this process and its children fail as asked from now on; markers of what has fired lie in `folder`."""
    os.environ["CURES_FAULTS"] = ",".join(faults)
    os.environ["CURES_FAULTS_DIR"] = str(folder)


def fault_point(name: str, detail: str = "") -> None:
    """Fail here if the environment asks for it and this pair has not fired yet; otherwise do nothing."""
    wanted = os.environ.get("CURES_FAULTS", "")
    if not wanted:
        return
    names = {name, f"{name}:{detail}"}
    for text in wanted.split(","):
        point, action = parse_fault(text)
        if point in names and _first_time(point, action):
            _fail(point, action)


def _first_time(point: str, action: str) -> bool:
    folder = Path(os.environ.get("CURES_FAULTS_DIR", "."))
    folder.mkdir(parents=True, exist_ok=True)
    marker = inside(folder, f"{point.replace('/', '_').replace(':', '_')}.{action}", "faults")
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _fail(point: str, action: str) -> None:
    if action == "raise":
        raise InjectedFault(f"fault injected at {point} (configured under `faults`); retry to go on")
    os.kill(os.getpid(), _SIGNALS[action])
