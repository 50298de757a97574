"""Faults with a count: each try injects one anew, at instants that follow from a seed, and is noted when it has ended.

One JSON file a fault, so that a series goes on where it stopped. A try that fails names the command that repeats it.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pydantic import Field

from cures_core.config.base import Strict
from cures_core.errors import ConfigError
from cures_core.files import canonical_json, digest_file, digest_json, write_atomic
from cures_core.jobs.assemble import versions
from cures_core.machine import processor
from tests.faults.invariants import CANARIES, check_nothing_is_left, planted

PROJECT = Path(__file__).resolve().parents[2]
Form = Literal["part", "job", "command", "stack"]
"""In one process; `python -m cures_core.jobs`; `cures run` or several; a Prefect server, its worker and deployments."""
LIMIT_S = 1800
PARTS = ("cures_core", "tasks", "flows")


@dataclass(frozen=True)
class Try:
    """What a try may use: its random numbers, a folder of its own, and one that all tries of a series share."""

    rng: np.random.Generator
    folder: Path
    bench: Path


@dataclass(frozen=True)
class Fault:
    """A part of the fault matrix (`rows`). `trial` raises where what is expected does not hold, and returns
    numbers that are worth telling, as how often it killed."""

    name: str
    rows: tuple[int, ...]
    injected: str
    expected: str
    form: Form
    trial: Callable[[Try], Mapping[str, int]]
    goal: int = 20


class Failure(Strict):
    """A try that did not hold."""

    number: int
    error: str
    command: str
    """Repeats it."""


class Tally(Strict):
    """What is kept of a fault's tries. Try number i of a seed is the same one on every machine, but for its speed."""

    fault: str
    rows: tuple[int, ...]
    injected: str
    expected: str
    form: str
    goal: int
    seed: int
    tries: int = 0
    held: int = 0
    failures: tuple[Failure, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    """Sums of the numbers that tries have returned."""
    seconds: float = 0.0
    skipped: str = ""
    """Why it could not be tried on this machine."""
    command: str
    sources: tuple[str, ...] = ()
    """Digests of the source that was tried, oldest first."""
    versions: dict[str, str] = Field(default_factory=dict)
    processor: str = ""


def read_tallies(folder: Path) -> dict[str, Tally]:
    """What a series has left, by fault."""
    return {path.stem: Tally.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("*.json"))}


def command_of(name: str, seed: int, number: int, first: int | None = None) -> str:
    return f"make drills ONLY={name} SEED={seed} N={number}" + ("" if first is None else f" FIRST={first}")


class Series:
    """Tries of faults, noted in `out`; the undisturbed runs that they are compared with are made once."""

    def __init__(self, out: Path, seed: int, say: Callable[[str], None] = print) -> None:
        self._out, self._seed, self._say = out, seed, say
        out.mkdir(parents=True, exist_ok=True)

    def run(self, faults: list[tuple[Fault, int]]) -> bool:
        """Try each fault until it has been tried that often in all; did all hold?"""
        with _bench() as bench:
            held = [self._bring_to(fault, number, bench) for fault, number in faults]
        return all(held)

    def repeat(self, fault: Fault, number: int, first: int) -> bool:
        """`number` tries from the one called `first` on, which are only told of."""
        with _bench() as bench:
            ends = [self._try(fault, i, bench) for i in range(first, first + number)]
        for i, end in enumerate(ends, first):
            self._say(f"{fault.name} {i}: {end if isinstance(end, str) else dict(end)}")
        return not any(isinstance(end, str) for end in ends)

    def _bring_to(self, fault: Fault, number: int, bench: Path) -> bool:
        path = self._out / f"{fault.name}.json"
        tally = self._begun(fault, path, number)
        while tally.tries < number and not tally.skipped:
            started = time.monotonic()
            end = self._try(fault, tally.tries, bench)
            tally = self._with(tally, fault, end, time.monotonic() - started)
            write_atomic(path, canonical_json(tally.model_dump(mode="json")) + b"\n")
        told = f"skipped: {tally.skipped}" if tally.skipped else f"{tally.held} of {tally.tries} held"
        self._say(f"{fault.name}: {told}, {dict(tally.counts)}, {tally.seconds:.0f} s")
        for failure in tally.failures:
            self._say(f"  try {failure.number}: {failure.error}\n    again: {failure.command}")
        return not tally.failures

    def _begun(self, fault: Fault, path: Path, number: int) -> Tally:
        command = command_of(fault.name, self._seed, number)
        before = Tally.model_validate_json(path.read_bytes()) if path.exists() else None
        if before is not None and before.seed != self._seed:
            raise ConfigError(f"{path}: holds tries of seed {before.seed}; go on with that one, or choose another OUT")
        told = {
            "injected": fault.injected,
            "expected": fault.expected,
            "form": fault.form,
            "goal": fault.goal,
            "command": command,
            "versions": versions(),
            "processor": processor(),
        }
        if before is None:
            return Tally(fault=fault.name, rows=fault.rows, seed=self._seed, sources=(source(),), **told)  # type: ignore[arg-type]
        if before.tries >= number:
            return before
        sources = before.sources if before.sources[-1] == source() else (*before.sources, source())
        return before.model_copy(update={**told, "sources": sources, "skipped": ""})

    def _with(self, tally: Tally, fault: Fault, end: str | Mapping[str, int], seconds: float) -> Tally:
        if isinstance(end, str) and end.startswith("Skipped: "):
            return tally.model_copy(update={"skipped": end.removeprefix("Skipped: ")})
        failures, counts = tally.failures, Counter(tally.counts)
        if isinstance(end, str):
            again = command_of(fault.name, self._seed, 1, tally.tries)
            failures = (*failures, Failure(number=tally.tries, error=end, command=again))
        else:
            counts.update(end)
        return tally.model_copy(
            update={
                "tries": tally.tries + 1,
                "held": tally.held + (not isinstance(end, str)),
                "failures": failures,
                "counts": dict(counts),
                "seconds": round(tally.seconds + seconds, 1),
            }
        )

    def _try(self, fault: Fault, number: int, bench: Path) -> str | Mapping[str, int]:
        """The numbers that a try returned, or what went wrong; its folder is kept then."""
        folder = Path(tempfile.mkdtemp(prefix=f"drill-{fault.name}-{number}-"))
        rng = np.random.default_rng([self._seed, zlib.crc32(fault.name.encode()), number])
        try:
            with _within(LIMIT_S), planted():
                counts = fault.trial(Try(rng, folder, bench))
                check_nothing_is_left(folder, CANARIES.values())
        except pytest.skip.Exception as reason:
            shutil.rmtree(folder, ignore_errors=True)
            return f"Skipped: {reason}"
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            (folder / "error.txt").write_text(traceback.format_exc())
            return f"{type(error).__name__}: {str(error)[:600]} ({Path(where.filename).name}:{where.lineno}; {folder})"
        shutil.rmtree(folder, ignore_errors=True)
        return counts


@contextmanager
def _bench() -> Iterator[Path]:
    """A folder for what all tries share; `at_end` says what is to be done before it goes."""
    with tempfile.TemporaryDirectory(prefix="drill-bench-", ignore_cleanup_errors=True) as folder:
        try:
            yield Path(folder)
        finally:
            while _ENDS:
                _ENDS.pop()()


_ENDS: list[Callable[[], object]] = []


def at_end(act: Callable[[], object]) -> None:
    """Do this when the series ends."""
    _ENDS.append(act)


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` in a try that hangs."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@cache
def source() -> str:
    """Digest of the product's source: what was tried, whatever commit it is part of in the end."""
    paths = sorted(path for part in PARTS for path in (PROJECT / part).rglob("*.py"))
    return digest_json([[path.relative_to(PROJECT).as_posix(), digest_file(path)] for path in paths])[:12]
