"""Faults on request: named places in the code where a drill or a test can make the process fail, once.

`CURES_FAULTS` holds `point=action` pairs separated by commas; actions: `kill` (SIGKILL to this process), `raise`
(`InjectedFault`), `stop` (SIGTERM to this process), `pause` (SIGSTOP to this process, as if it hung). A point may carry
a counter, `train.step:13=kill`: `train.step` is hit with `detail="13"`. Each pair fires once per run: the marker file
in `CURES_FAULTS_DIR` is written first.

| point | where | counter |
|---|---|---|
| `train.before_checkpoint` | a step is computed, its checkpoint not begun | step |
| `train.step` | a step is over, its checkpoint handed to the writer | step |
| `rank.update` | a rank other than the first is about to update | step |
| `checkpoint.half_written` | tensors are written, nothing else | step |
| `checkpoint.before_manifest` | all files are written but the manifest | step |
| `checkpoint.before_rename` | the checkpoint is whole, not yet in its place | step |
| `warm_start.step` | a step of the warm start is over | step |
| `prior.chunk`, `eval.chunk` | a chunk of generation is saved | chunk, from 0 on |
| `stage.start` | a stage has its lease and has done nothing | stage, as in `train_epoch-2` |
| `stage.before_files` | a stage has computed and published nothing | stage |
| `stage.before_record` | its files are in the store, its record is not | stage |
| `stage.after_record` | its record is there | stage |
| `commit.noted` | a change of the store is noted, not made | key |
| `snapshot.before_pointer` | a snapshot's data is pushed, its commit not begun | tag |
| `snapshot.after_push` | DVC says that the data is pushed; it is not read back | tag |
| `promote.before_pointer`, `promote.after_pointer` | before and after a model's pointer moves | |
| `builtin.before_file` | a built-in prompt file is about to be written | file |
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
