"""Faults inside the short stages, on purpose: at instants of a whole run they are hardly ever met.

A run whose stages of jobs are made up, in a process of its own without Prefect: validation, snapshots and promotion are
the real ones.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cures_core.config.run import RunConfig
from cures_core.evaluation.items import ItemResult, score, write_items
from cures_core.failures import failure_of
from cures_core.files import digest_file
from tasks.progress import Event, StageEnded, StageStarted, listening
from tasks.registry.history import existing_pointer
from tasks.runs.figures import FIGURES, Figures
from tasks.runs.notes import noted_record, run_names, stage_notes
from tasks.runs.opening import open_run
from tasks.runs.records import Record, RunRef
from tasks.snapshots import read_snapshot
from tasks.stages.promote import promote
from tasks.stages.snapshot_posterior import snapshot_posterior
from tasks.stages.stage import Made, run_stage
from tasks.stages.validate_dataset import validate_dataset
from tasks.stages.workspace import Workspace
from tasks.storage import LocalStore
from tests.end_to_end.pipeline import results_in
from tests.faults.drills.commands import fill, small_disk
from tests.faults.harness import Try
from tests.faults.invariants import check_store
from tests.tasks.stages.figures import made

VALIDATION = ("validate_dataset",)
SNAPSHOTS = ("snapshot_posterior 0", "snapshot_posterior 1")
PROMOTION = ("promote",)
ITEMS = 200
PATIENCE = 30
"""Instants that are tried until one lies within the stage."""
_WHEN = ("commit", "remote")
"""Figures of a snapshot that tell its time and place."""


def config_in(inputs: Path) -> RunConfig:
    """A run whose store is `.cures` of the folder that it is started in."""
    inputs.mkdir(exist_ok=True)
    for name, first in (("set", 0), ("exam", ITEMS)):
        rows = [{"problem": f"{i} + {i % 7} =", "answer": str(i + i % 7)} for i in range(first, first + ITEMS)]
        broken = [{"problem": "no answer"}] if name == "set" else []
        (inputs / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *broken]))
    settings = {
        "data": {"path": str(inputs / "set.jsonl")},
        "rollout": {"max_new_tokens": 8},
        "training": {"learning_rate": 1e-4},
        "evaluation": {"suites": [{"name": "exam", "path": str(inputs / "exam.jsonl"), "samples": 4}]},
        "promotion": {"model": "m", "suites": ["exam"]},
        "store": {"url": ".cures"},
    }
    return RunConfig.model_validate(settings)


def stages(run: RunRef) -> Iterator[str]:
    """The stages of a run in their order; gives the name of each real one before it begins."""
    yield "validate_dataset"
    data = _real(validate_dataset)(run)
    policy = _made_up(run, "prepare_policy", [data])
    state = _made_up(run, "estimate_prior", [data, policy])
    before, parent = _made_up(run, "evaluate_checkpoint", [data, policy], "0"), None
    for k in (0, 1):
        yield f"snapshot_posterior {k}"
        parent = _real(snapshot_posterior)(run, k, data, policy, state, parent)
        if k == 0:
            state = _made_up(run, "train_epoch", [data, policy, state], "1")
    after = _made_up(run, "evaluate_checkpoint", [data, policy, state], "1")
    yield "promote"
    _real(promote)(run, policy, state, before, after)


def _real(stage: Any) -> Any:
    """The stage itself, outside a flow."""
    return stage.__wrapped__


def _made_up(run: RunRef, stage: str, parents: list[Record[Any]], label: str = "") -> Record[Any]:
    def work(space: Workspace) -> Made[Any]:
        if stage == "evaluate_checkpoint":
            _write_scores(run.config, space.out, right=1 + 2 * int(label))
            return made(stage)
        if stage == "prepare_policy":
            return made(stage)
        posterior = space.out / "posterior.parquet"
        posterior.write_bytes(np.random.default_rng(len(stage)).bytes(100_000))
        return made(stage, posterior_digest=digest_file(posterior))

    return run_stage(run, FIGURES[stage], 1, {"label": label}, parents, work, label=label)


def _write_scores(cfg: RunConfig, out: Path, right: int) -> None:
    """A suite of which `right` of four completions are correct, of every item."""
    (suite,) = cfg.evaluation.suites
    items = [ItemResult(f"{i:04d}", "", "", right, 0, suite.samples, 0, 40, None) for i in range(ITEMS)]
    write_items(items, out / f"items-{suite.name}.parquet")
    found = score(items, suite, cfg.evaluation, {"seed": 1})
    (out / "scores.json").write_text(json.dumps([found.model_dump(mode="json")]))


# A run in a process of its own.


@dataclass
class Child:
    """`said`: lines as stages begin and end, and what went wrong."""

    pid: int
    said: BinaryIO

    def wait_for(self, stage: str) -> None:
        """Until the stage has begun."""
        wanted, heard = f"StageStarted {stage}\n".encode(), list[bytes]()
        for line in self.said:
            if line == wanted:
                return
            heard.append(line)
        raise AssertionError(f"{stage} has not begun: {heard}")

    def kill(self, *, with_children: bool) -> None:
        """What it has started may outlive it for a moment otherwise."""
        (os.killpg if with_children else os.kill)(self.pid, signal.SIGKILL)

    def end(self) -> str:
        """What it still said, when it and all it has started are gone."""
        os.waitpid(self.pid, 0)
        with self.said as rest:
            return rest.read().decode()


def start(folder: Path, config: RunConfig, until: str = "") -> Child:
    """A run in `folder`, to its end or the beginning of the stage `until`."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.setpgid(0, 0)
        try:
            _run(folder, config, until, write)
        except BaseException as error:
            os.write(write, f"failed {failure_of(error)}\n{traceback.format_exc()}".encode())
        finally:
            os._exit(0)
    os.close(write)
    return Child(pid, os.fdopen(read, "rb"))


def _run(folder: Path, config: RunConfig, until: str, write: int) -> None:
    def tell(event: Event) -> None:
        if isinstance(event, StageStarted | StageEnded):
            os.write(write, f"{type(event).__name__} {event.stage}\n".encode())

    os.chdir(folder)
    with listening(tell), open_run(config) as run:
        for stage in stages(run):
            if stage == until:
                break
    os.write(write, b"done\n")


def to_the_end(folder: Path, config: RunConfig, until: str = "") -> None:
    said = start(folder, config, until).end()
    assert said.endswith("done\n"), said


def made_in(folder: Path) -> dict[str, object]:
    """What a run has made: files, figures, snapshots and the moves of the model's pointer, without times and places."""
    store = LocalStore(folder / ".cures")
    (run,) = run_names(store)
    found: dict[str, object] = {**results_in(store, run)}
    for note in stage_notes(store, run):
        record = noted_record(store, note)
        assert record is not None
        found[f"{record.stage} {note['label']}"] = _figures(record)
        if record.stage == "snapshot_posterior":
            found[record.figures.tag] = _snapshot(folder, record.figures.tag)  # type: ignore[attr-defined]
    _, pointer = existing_pointer(store, "m")
    found["models/m"] = [entry.model_dump(include={"version", "action", "run", "reasons"}) for entry in pointer.history]
    return found


def _figures(record: Record[Figures]) -> dict[str, object]:
    return {name: value for name, value in record.figures.model_dump().items() if name not in _WHEN}


def _snapshot(folder: Path, tag: str) -> bytes:
    places = RunConfig.model_fields["snapshot"].default.within(str(folder / ".cures"))
    return read_snapshot(tag, places)


class Undisturbed:
    """What a run makes with nobody in its way, how long its stages take, and stores in which one of them is next."""

    def __init__(self, bench: Path) -> None:
        import_module("great_expectations")  # most of a validation's time otherwise, again in every process
        self._bench = bench / "stages"
        self._bench.mkdir()
        self.config = config_in(self._bench / "inputs")
        self.seconds, begun = dict[str, float](), 0.0
        folder = self._bench / "whole"
        folder.mkdir()
        child, said = start(folder, self.config), b""
        for line in child.said:
            kind, _, stage = line.decode().strip().partition(" ")
            if kind == "StageStarted":
                begun = time.monotonic()
            elif kind == "StageEnded":
                self.seconds[stage] = time.monotonic() - begun
            said = line
        child.end()
        assert said == b"done\n", said
        self.made = made_in(folder)
        assert len(self.made["models/m"]) == 1  # type: ignore[arg-type]  # it was promoted

    def store_before(self, stage: str, folder: Path) -> None:
        """A store in `folder` in which all is done that comes before a stage."""
        place = self._bench / f"before {stage}"
        if not place.exists():
            place.mkdir()
            to_the_end(place, self.config, stage)
        folder.mkdir()
        if (place / ".cures").exists():
            shutil.copytree(place / ".cures", folder / ".cures")


undisturbed = cache(Undisturbed)


def kill_in(t: Try, names: tuple[str, ...]) -> Mapping[str, int]:
    """SIGKILL to a run, or to all of its processes, at a random instant inside one of these stages; instants at which
    the stage has ended already are counted, and an earlier one is tried. Then the same run again, to its end."""
    calm = undisturbed(t.bench)
    stage = names[int(t.rng.integers(len(names)))]
    everything = bool(t.rng.random() < 0.5)
    for missed in range(PATIENCE):
        folder = t.folder / str(missed)
        calm.store_before(stage, folder)
        child = start(folder, calm.config)
        child.wait_for(stage)
        time.sleep(float(t.rng.uniform(0, calm.seconds[stage] / (1 + missed))))
        child.kill(with_children=everything)
        if f"StageEnded {stage}\n" not in child.end():
            break
    else:
        raise AssertionError(f"{stage}: ended {PATIENCE} times before it was killed")
    to_the_end(folder, calm.config)
    _check(folder, calm)
    return {"kills": 1, "everything": int(everything), "missed": missed}


def full_disk_in(t: Try) -> Mapping[str, int]:
    """The disk becomes full at a random instant inside validation, a snapshot or promotion: an error that says so, or
    the stage needs no more room; with room made, the same run ends as the undisturbed one."""
    calm = undisturbed(t.bench)
    names = (*VALIDATION, *SNAPSHOTS, *PROMOTION)
    stage = names[int(t.rng.integers(len(names)))]
    with small_disk(t.folder / "disk", 2**28):
        folder, others = t.folder / "disk" / "run", t.folder / "disk" / "others"
        calm.store_before(stage, folder)
        child = start(folder, calm.config)
        child.wait_for(stage)
        time.sleep(float(t.rng.uniform(0, calm.seconds[stage])))
        fill(others, left=int(t.rng.integers(0, 2**14)))
        said = child.end()
        told = "failed " in said
        if told:
            sentence = said.partition("failed ")[2].partition("\nTraceback")[0]
            assert any(words in sentence for words in ("No space left", "disk is full")), said
        others.unlink(missing_ok=True)
        to_the_end(folder, calm.config)
        _check(folder, calm)
    return {"told": int(told), "had_room": int(not told)}


def _check(folder: Path, calm: Undisturbed) -> None:
    found = made_in(folder)
    other = [name for name in {**found, **calm.made} if found.get(name) != calm.made.get(name)]
    assert other == [], f"not as in the undisturbed run: {other}"
    check_store(folder / ".cures", LocalStore(folder / ".cures"))
