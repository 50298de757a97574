"""How a process that fails tells its parent: a file with the error's class and text, and an exit code."""

from __future__ import annotations

import errno
import json
import logging
import resource
from collections.abc import Callable
from pathlib import Path

from cures_core import errors
from cures_core.errors import CuresError
from cures_core.failures import UNREPORTED, Scene, failure_of, system_error
from cures_core.files import canonical_json, write_atomic
from cures_core.secrets import masked

_log = logging.getLogger("cures")


def run_reporting(work: Callable[[], object], report: Path, scene: Scene) -> int:
    """The exit code of a process that does `work`. An error is left in the file `report` for whoever waits."""
    try:
        work()
    except (Exception, SystemExit) as error:
        if system_error(error) == errno.EMFILE:  # the files that are open too many are held by this error's frames
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        _log.exception("failed")
        return write_report(report, failure_of(error, scene))
    return 0


def write_report(path: Path, failure: CuresError) -> int:
    """Leave an error for the parent; returns the exit code to end with. A class of a plug-in counts as the nearest one
    of ours."""
    kind = next(kind.__name__ for kind in type(failure).__mro__ if kind.__module__ == errors.__name__)
    message = masked(str(failure)).encode(errors="backslashreplace").decode()  # file names need not be UTF-8
    try:
        write_atomic(path, canonical_json({"class": kind, "message": message}))
    except OSError:
        _log.exception("the error could not be written down")
        return UNREPORTED
    return failure.exit_code


def read_report(path: Path) -> CuresError | None:
    """What `write_report` left; None where there is nothing that can be read."""
    try:
        report = json.loads(path.read_bytes())
        kind = getattr(errors, report["class"])
        return kind(str(report["message"])) if issubclass(kind, CuresError) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
