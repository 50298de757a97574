"""Runs units of work, each in its own process, until the minutes are over, and keeps what they gave in one file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cures_core.errors import ConfigError
from cures_core.files import canonical_json, write_atomic


@dataclass(frozen=True)
class Unit:
    """`python -m MODULE [KIND] SPEC.json OUT.json` measures one thing and writes OUT as soon as it has something, with
    `"done": true` in the end."""

    name: str
    module: str
    spec: dict[str, Any]
    kind: str = ""
    most_s: float = 120.0
    """It is ended after so long."""
    least_s: float = 10.0
    """It is not begun with less time left."""
    margin_s: float = 5.0
    """What it is told to leave for its last work and for writing what it has."""
    side_by_side: bool = False
    """May share the device with others of which that is true."""


@dataclass
class _Running:
    unit: Unit
    process: subprocess.Popen[bytes]
    out: Path
    started: float
    ends: float
    seen: bytes = b""


@dataclass
class Session:
    """`results` (a JSON file) holds the machine and, by name, each unit's spec and result: whole ones are not measured
    again, others go on from what they have (`former` in their spec). Raises `ConfigError` where it is another card's.
    """

    results: Path
    machine: dict[str, Any]
    scratch: Path
    deadline: float
    jobs: int = 1
    """Units that may run side by side."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Name: folder on this machine. Specs and results hold the names, so that they mean the same on the next machine;
    units are told the folders."""
    kept: dict[str, Any] = field(default_factory=dict)
    _running: list[_Running] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.results.exists():
            former = json.loads(self.results.read_bytes())
            if former["machine"]["device"] != self.machine["device"]:
                raise ConfigError(
                    f"{self.results} holds results of {former['machine']['device']}, this is {self.machine['device']}: "
                    "name another file"
                )
            self.kept = former["units"]
        self.scratch.mkdir(parents=True, exist_ok=True)

    def run(self, units: Sequence[Unit]) -> None:
        """In their order. Never raises for a unit that fails: its last lines are its result."""
        waiting = [unit for unit in units if not self._has(unit)]
        try:
            while waiting or self._running:
                self._collect()
                waiting = [unit for unit in waiting if self._left() >= unit.least_s]
                if waiting and self._may_start(waiting[0]):
                    self._start(waiting.pop(0))
                time.sleep(0.2)
        finally:
            for running in self._running:
                _end(running.process)
            self._collect()

    def _has(self, unit: Unit) -> bool:
        former = self.kept.get(unit.name)
        return bool(former and former["result"].get("done") and former["spec"] == unit.spec)

    def _left(self) -> float:
        return self.deadline - time.monotonic()

    def _may_start(self, unit: Unit) -> bool:
        if not self._running:
            return True
        return unit.side_by_side and all(r.unit.side_by_side for r in self._running) and len(self._running) < self.jobs

    def _start(self, unit: Unit) -> None:
        spec, out = (self.scratch / f"{unit.name}.{kind}.json" for kind in ("spec", "out"))
        out.unlink(missing_ok=True)
        limit = min(unit.most_s, self._left())
        former = self.kept.get(unit.name, {"spec": None})
        given = {**_with_models(unit.spec, self.models), "limit_s": max(1.0, limit - unit.margin_s)}
        if former["spec"] == unit.spec and unit.kind:
            given["former"] = former["result"]
        write_atomic(spec, canonical_json(given))
        kind = [unit.kind] if unit.kind else []
        log = (self.scratch / f"{unit.name}.log").open("wb")
        threads = "1" if unit.side_by_side else os.environ.get("OMP_NUM_THREADS", "1")
        process = subprocess.Popen(
            [sys.executable, "-m", unit.module, *kind, str(spec), str(out)],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
        )
        log.close()
        now = time.monotonic()
        self._running.append(_Running(unit, process, out, now, now + limit))
        print(f"{unit.name}: begun, {self._left():.0f} s left", flush=True)

    def _collect(self) -> None:
        changed = False
        for running in list(self._running):
            if running.process.poll() is None and time.monotonic() > running.ends:
                _end(running.process)
            over = running.process.poll() is not None
            text = running.out.read_bytes() if running.out.exists() else b""
            if over or text != running.seen:
                running.seen, changed = text, True
                self._keep(running, text, over=over)
            if over:
                with suppress(ProcessLookupError):  # what it has started and left behind would hold the device
                    os.killpg(running.process.pid, signal.SIGKILL)
                self._running.remove(running)
        if changed:
            write_atomic(self.results, canonical_json({"machine": self.machine, "units": self.kept}))

    def _keep(self, running: _Running, text: bytes, *, over: bool) -> None:
        unit, took = running.unit, time.monotonic() - running.started
        result = json.loads(text) if text else {}
        if over:
            # Of what is done too: it may have warned that it fell back to something slower.
            log = (self.scratch / f"{unit.name}.log").read_text(encoding="utf-8", errors="replace")
            result |= {"log": log[-2000:]} if log else {}
            if not result.get("done"):
                code = running.process.returncode
                result["ended"] = "its time was over" if code == -signal.SIGKILL else f"exit code {code}"
            print(f"{unit.name}: {'done' if result.get('done') else result['ended']}, {took:.0f} s", flush=True)
        self.kept[unit.name] = {
            "spec": unit.spec,
            "result": _with_models(result, {folder: name for name, folder in self.models.items()}),
            "seconds": round(took, 1),
            "commit": self.machine["commit"],
            "source": self.machine["source"],
        }


def _with_models(value: Any, models: Mapping[str, str]) -> Any:
    """`value` with what it has as a `model` or a `policy` replaced, at any depth."""
    if not isinstance(value, dict):
        return value
    return {
        key: models.get(inner, inner)
        if key in ("model", "policy") and isinstance(inner, str)
        else _with_models(inner, models)
        for key, inner in value.items()
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """The unit and the processes that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
