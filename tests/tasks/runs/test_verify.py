"""What a store holds is checked by its content; to read it, damaged or not, changes nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cures_core.checkpoints.checkpoint import Checkpoint, save_checkpoint, weights_digest
from cures_core.checkpoints.in_epoch import SPOILT
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, CorruptArtifact, CuresError, LeaseHeld, LeaseLost
from cures_core.jobs.kept import keep
from flows.cli.main import app
from tasks.ci.retraining import Decision
from tasks.registry.history import Pointer, by_a_person, existing_pointer, move
from tasks.registry.promotion_by_hand import promote_run
from tasks.registry.weights import checked_roll_back, weights_fault
from tasks.runs.aside import set_place_aside
from tasks.runs.figures import FIGURES, EpochFigures, PolicyFigures, PriorFigures, PromoteFigures, SnapshotFigures
from tasks.runs.notes import noted_record, read_started, run_names, run_overview, stage_notes, stage_record
from tasks.runs.opening import open_run, started_config
from tasks.runs.records import Record, RunRef, committed, committed_any, files_of
from tasks.runs.verify import verify
from tasks.snapshots import publish_snapshot
from tasks.snapshots.published import PARTS, About, load_published
from tasks.snapshots.restoring import restore_snapshot
from tasks.stages.evaluation_cache import keep_rows
from tasks.stages.stage import Made, run_stage
from tasks.stages.unfinished import note_spoilt
from tasks.stages.workspace import Workspace
from tasks.storage import LocalStore, open_store
from tasks.storage.lease import Lease
from tasks.storage.values import encode_value
from tests.tasks.stages.figures import made as made_by
from tests.tasks.stages.starts import config_in

OWN = (".stamps", ".tmp", ".locks")


def stage(run: RunRef, name: str, parents: list[Record], label: str = "") -> Record:
    def work(space: Workspace) -> Made[Any]:
        (space.out / "made.json").write_text(json.dumps({"by": name, "label": label}))
        if name != "train_epoch":
            return made_by(name)
        weights = {"w": torch.full((50,), float(label))}
        save_checkpoint(Checkpoint(weights, weights, {}, {"step": int(label)}), space.out / "checkpoint")
        return made_by(name, weights_digest=weights_digest(space.out / "checkpoint"), step=int(label))

    return run_stage(run, FIGURES[name], 1, {"label": label}, parents, work, label=label)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunRef:
    """A run of seven stages, whose two epochs are versions of a model."""
    monkeypatch.chdir(tmp_path)
    return make(tmp_path)


def make(folder: Path) -> RunRef:
    with open_run(config_in(folder, 1e-4)) as run:
        store = open_store(run.config.store)
        data, policy = stage(run, "validate_dataset", []), stage(run, "prepare_policy", [])
        score = stage(run, "evaluate_checkpoint", [data, policy])
        states = []
        for k in (1, 2):
            states.append(state := stage(run, "train_epoch", [data, policy], str(k)))
            weights = state.figures.weights_digest
            entry = {"run": run.name, "state": state.id, "policy": policy.id, "evaluation": score.id}
            if store.get("models/m.json") is None or len(existing_pointer(store, "m")[1].history) < k:
                assert move(by_a_person(store), "m", store.get("models/m.json"), {**entry, "weights": weights})
        gate = made_by("promote", promoted=True, model="m")
        decision = run_stage(run, PromoteFigures, 1, {"after": score.id}, [policy, score], lambda _: gate)
        stage(run, "report", [data, policy, *states, score, decision])
        keep(folder / "rows.json", {"sampled": [1, 2]})
        keep_rows(store, "rows", folder / "rows.json")
    return run


def add_others(run: RunRef, folder: Path) -> None:
    """What other parts of the project keep in a store: inputs of a flow run, a retraining's decision, where an epoch
    has diverged, and a posterior that was learnt elsewhere."""
    store = open_store(run.config.store)
    store.put("flow-runs/0a1b/inputs.json", encode_value({"s3://bucket/set.jsonl": "5e" * 32}))
    store.put(f"retrainings/{run.name}.json", encode_value(Decision(start_from="none")))
    scratch = folder / "diverged"
    scratch.mkdir()
    (scratch / SPOILT).write_text('{"step": 4}')
    note_spoilt(store, scratch, f"unfinished/train_epoch/{'0' * 32}")
    places = run.config.snapshot.within(run.config.store.url, None)
    files = {part: f"a {part}".encode() for part in PARTS}
    for part, data in files.items():
        (folder / part).write_bytes(data)
        store.put(f"published/night/0/{part}", data)
    publish_snapshot(folder / PARTS[0], {"run": "night"}, "posterior/night/0", places, folder / "scratch")
    sums = {part: hashlib.sha256(data).hexdigest() for part, data in files.items()}
    about = About(snapshot=run.config.snapshot, lineage={"run": "night"}, sha256=sums)
    store.put("published/night/0/about.json", encode_value(about))


def held(folder: Path) -> dict[str, str]:
    """Digests of all files of a store, but for what it keeps for itself."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in named.items() if not n.startswith(OWN)}


def read_all(store: LocalStore, run: str) -> None:
    """What commands read. Whatever goes wrong is an error of ours."""
    reads: list[Callable[[], object]] = [
        lambda: run_overview(store, run),
        lambda: started_config(store, run),
        lambda: stage_notes(store, run),
        lambda: existing_pointer(store, "m"),
        lambda: [weights_fault(store, entry) for entry in existing_pointer(store, "m")[1].history],
        lambda: [files_of(store, r) for n in stage_notes(store, run) if (r := _record(store, run, n))],
        lambda: [committed_any(store, n["stage"], n["key"]) for n in stage_notes(store, run)],
    ]
    for read in reads:
        with contextlib.suppress(CuresError):
            read()


def _record(store: LocalStore, run: str, note: Any) -> Record | None:
    return noted_record(store, note)


def test_a_whole_store_is_found_whole(made: RunRef) -> None:
    found = verify(made.config.store)
    assert found.damaged == ()
    assert found.notes == ()
    assert found.checked == {
        "values": 9,
        "records": 7,
        "files": 6,
        "pointers": 1,
        "versions": 2,
        "evaluations": 1,
        "leases": 8,
    }
    assert verify(made.config.store, [made.name]).damaged == ()
    with pytest.raises(ConfigError, match=f"runs there: {made.name}"):
        verify(made.config.store, ["another"])


def test_what_a_reader_did_not_foresee_is_told_and_the_rest_is_looked_at(
    made: RunRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = verify(made.config.store).checked

    def stumbles(*_: object) -> None:
        raise KeyError("sha256")

    monkeypatch.setattr("tasks.runs.aside.read_rows", stumbles)
    found = verify(made.config.store)
    assert found.checked == whole
    (finding,) = found.damaged
    assert finding.place.startswith("evaluations/")
    assert finding.fault == "cannot be read: KeyError: 'sha256'"


@pytest.mark.parametrize("tries", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_damage_is_found_under_its_name_and_no_reader_changes_anything(
    made: RunRef, tmp_path: Path, tries: int
) -> None:
    root, rng = Path(made.config.store.url), np.random.default_rng(tries)
    add_others(made, tmp_path)
    elsewhere = ("leases/", "snapshots.git/", "dvc/")  # found by the snapshot's tag
    names = [name for name in held(root) if not name.startswith(elsewhere) and (root / name).stat().st_size]
    assert len(names) > 25
    store = LocalStore(root)
    # that one is gone, nothing else can tell
    silent = ("evaluations/", "flow-runs/", "retrainings/", "unfinished/")
    for _ in range(tries):
        path = root / names[int(rng.integers(len(names)))]
        place, whole, kind = path.relative_to(root).as_posix(), path.read_bytes(), rng.random()
        damage(path, kind, rng)
        before = held(root)
        found = verify(StoreConfig(url=str(root))).damaged
        named = [f for f in found if place in f"{f.place} {f.fault}" or place.startswith(f.place)]
        assert named or (not path.exists() and place.startswith(silent)), place
        assert all(finding.remedy for finding in found)
        read_all(store, made.name)
        assert held(root) == before
        path.write_bytes(whole)
    assert verify(made.config.store).damaged == ()


def test_a_file_that_the_disk_does_not_hand_out_is_told_and_the_rest_is_looked_at(
    made: RunRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(made.config.store.url)
    add_others(made, tmp_path)
    whole, opened = verify(made.config.store).checked, Path.open
    names = [name for name in held(root) if not name.startswith("snapshots.git/")]
    kinds = {name.split("/")[0]: name for name in names} | {name.split("/")[-1]: name for name in names}
    for place in sorted(set(kinds.values())):
        for number in (errno.EIO, errno.EACCES):

            def refused(path: Path, *args: Any, bad: Path = root / place, number: int = number, **more: Any) -> Any:
                if path == bad:
                    raise OSError(number, os.strerror(number), str(path))
                return opened(path, *args, **more)

            with monkeypatch.context() as disk:
                disk.setattr(Path, "open", refused)
                found = verify(made.config.store)
            assert found.damaged, place
            wanted = "posterior/" if place.startswith("dvc/") else str(root / place)
            assert any(f"{f.place} {f.fault}".count(wanted) for f in found.damaged), (place, found.damaged)
            assert {*found.checked} >= {*whole} - {"versions", "files", "published", "snapshots"}, place


def damage(path: Path, kind: float, rng: np.random.Generator) -> None:
    """Flip a bit, cut the end off, or remove the file."""
    data = bytearray(path.read_bytes())
    if kind < 0.6:
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif kind < 0.85:
        del data[int(rng.integers(len(data))) :]
    path.unlink()
    if kind < 0.85:
        path.write_bytes(data)


@pytest.mark.parametrize(
    "place",
    [
        "flow-runs/0a1b/inputs.json",
        "retrainings/RUN.json",
        f"unfinished/train_epoch/{'0' * 32}/spoilt.json",
        "published/night/0/about.json",
        "published/night/0/prompts.parquet",
        "evaluations/rows",
        "leases/RUN.json",
        "runs/RUN/again.json",
        "runs/RUN/changes/00000001.json",
        "stages/report/RECORD.json",
    ],
)
@pytest.mark.parametrize("garbage", [b"{", b"[]", b"{}", b"\xff\x00", b'{"seal": "0", "step": 4}'])
def test_whatever_bytes_lie_there_are_told_and_the_command_that_is_named_mends_it(
    made: RunRef, tmp_path: Path, place: str, garbage: bytes
) -> None:
    """But for an empty object among inputs of a flow run, which says that there were none."""
    root = Path(made.config.store.url)
    place = place.replace("RUN", made.name).replace("RECORD", "0" * 32)
    if place.startswith("published"):
        add_others(made, tmp_path)
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_bytes(garbage)
    found = verify(made.config.store).damaged
    if place.startswith("flow-runs") and garbage == b"{}":
        assert found == ()
        return
    (finding,) = found
    assert finding.place == place
    command = re.search(r"cures (runs set-aside [^ ,:)]+)", finding.remedy)
    assert command is not None, finding.remedy
    outcome = CliRunner().invoke(app, [*command[1].split(), "--store", str(root)])
    assert outcome.exit_code == 0, outcome.output
    later = verify(made.config.store)
    assert later.damaged == ()
    assert garbage in [(root / kept).read_bytes() for kept in later.aside]
    make(tmp_path)


def test_what_is_whole_or_made_again_by_its_run_is_not_set_aside(made: RunRef) -> None:
    store = open_store(made.config.store)
    for place, told in {
        "evaluations/rows": "is as it was written",
        "evaluations/none": "there is nothing in this store",
        "models/m.json": "only these are set aside by hand",
        f"runs/{made.name}/run.json": "only these are set aside by hand",
    }.items():
        with pytest.raises(ConfigError, match=told):
            set_place_aside(store, place)
    store.put(f"runs/{made.name}/again.json", b"{")
    with closing(Lease(store, made.name, 60)), pytest.raises(LeaseHeld):
        set_place_aside(store, f"runs/{made.name}/again.json")


def test_whoever_held_a_lease_that_was_set_aside_has_lost_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with closing(Lease(store, "run", 60)) as lease:
        store.put("leases/run.json", b"{")
        with pytest.raises(CorruptArtifact, match=r"leases/run\.json.*cures runs set-aside leases/run\.json"):
            lease.check()
        set_place_aside(store, "leases/run.json")
        with closing(Lease(store, "run", 60)) as later:
            assert later.token > 10**9
            with pytest.raises(LeaseLost):
                lease.commit("record", b"1")
            assert later.commit("record", b"2")


def test_values_without_a_seal_of_earlier_versions_are_read(made: RunRef, tmp_path: Path) -> None:
    root = Path(made.config.store.url)
    add_others(made, tmp_path)
    for place in ("published/night/0/about.json", "flow-runs/0a1b/inputs.json", f"retrainings/{made.name}.json"):
        value = json.loads((root / place).read_bytes())
        del value["seal"]
        (root / place).write_text(json.dumps(value))
    assert verify(made.config.store).damaged == ()


def test_a_published_posterior_that_cannot_be_read_is_an_error_with_its_place(made: RunRef, tmp_path: Path) -> None:
    add_others(made, tmp_path)
    about = Path(made.config.store.url) / "published/night/0/about.json"
    about.write_bytes(about.read_bytes()[:40])
    with pytest.raises(CorruptArtifact, match=r"published/night/0/about\.json.*publish the same posterior again"):
        load_published(open_store(made.config.store), "night", 0)


def test_a_model_that_a_gate_has_promoted_is_missed(made: RunRef) -> None:
    root = Path(made.config.store.url)
    (root / "models" / "m.json").unlink()
    (finding,) = verify(made.config.store).damaged
    assert (finding.place, finding.remedy) == (
        "models/m.json",
        f"cures promote {made.name} --model m --override --why ...",
    )
    entry = {"run": "later", "state": "train_epoch/1", "policy": "p/1", "evaluation": "evaluate_checkpoint/1"}
    assert move(by_a_person(open_store(made.config.store)), "m", None, entry)
    assert ["its history does not tell of the promotion" in note.fault for note in verify(made.config.store).notes] == [
        True
    ]


def test_weights_of_an_earlier_version_that_are_others_now_are_a_note(made: RunRef) -> None:
    store = open_store(made.config.store)
    raw, pointer = existing_pointer(store, "m")
    first, second = pointer.history
    store.put("models/m.json", encode_value(Pointer(history=(first.model_copy(update={"weights": "0" * 64}), second))))
    found = verify(made.config.store)
    assert found.damaged == ()
    assert [note.place for note in found.notes] == ["models/m.json, version 1"]
    outcome = CliRunner().invoke(app, ["runs", "verify", "--all", "--store", made.config.store.url])
    assert outcome.exit_code == 0
    assert "models/m.json, version 1" in outcome.output
    store.put("models/m.json", encode_value(Pointer(history=(first, second.model_copy(update={"weights": "0" * 64})))))
    (finding,) = verify(made.config.store).damaged
    assert finding.remedy == f"cures promote {made.name}"
    assert raw


def change(path: Path, old: bytes, new: bytes) -> None:
    assert path.read_bytes().count(old) >= 1
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def test_flipped_bytes_of_equal_length_are_not_taken_for_committed(made: RunRef, tmp_path: Path) -> None:
    store = LocalStore(made.config.store.url)
    record = stage_record(store, made.name, EpochFigures, "2")
    assert record is not None
    weights = Path(made.config.store.url) / str(record.files) / "checkpoint" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    with pytest.raises(CorruptArtifact, match=f"weights.safetensors.* cures run --resume {made.name}"):
        committed(store, EpochFigures, record.key)
    make(tmp_path)
    again = stage_record(store, made.name, EpochFigures, "2")
    assert again is not None
    assert again.files != record.files
    assert [n["stage"] for n in stage_notes(store, made.name) if not n["cached"]] == ["train_epoch"]
    assert weights.read_bytes() == bytes(data)  # nothing was deleted
    (aside,) = verify(made.config.store).aside
    assert aside.startswith(f"damaged/stages/{record.id}.json")
    assert verify(made.config.store).damaged == ()
    assert weights_fault(store, existing_pointer(store, "m")[1].current, deep=True) == ""


@pytest.mark.parametrize("name", ["run.json", "status.json", "stages/train_epoch-1.json", "record"])
def test_a_damaged_value_is_written_again_by_the_next_holder(made: RunRef, tmp_path: Path, name: str) -> None:
    root = Path(made.config.store.url)
    record = stage_record(LocalStore(root), made.name, EpochFigures, "1")
    assert record is not None
    place = root / (f"stages/{record.id}.json" if name == "record" else f"runs/{made.name}/{name}")
    change(place, b'":"', b'":#')
    (finding,) = verify(made.config.store, [made.name]).damaged
    assert finding.place == place.relative_to(root).as_posix()
    make(tmp_path)
    assert verify(made.config.store).damaged == ()


@pytest.mark.parametrize("name", ["stages/train_epoch-2.json", "stages/report.json", "status.json"])
def test_a_note_that_is_lost_is_told_and_written_again_by_the_next_holder(
    made: RunRef, tmp_path: Path, name: str
) -> None:
    place = Path(made.config.store.url) / "runs" / made.name / name
    place.unlink()
    (finding,) = verify(made.config.store, [made.name]).damaged
    assert f"runs/{made.name}/{name}".startswith(finding.place)
    assert "is gone" in finding.fault
    assert finding.remedy == f"cures run --resume {made.name}"
    make(tmp_path)
    assert place.exists()
    assert verify(made.config.store).damaged == ()


def test_a_completed_run_without_the_note_of_its_last_epoch_is_not_promoted(made: RunRef) -> None:
    exam = {"suites": [{"name": "exam", "path": made.config.data.path}]}
    gate = {"model": "m", "suites": ["exam"]}
    config = made.config.model_dump(mode="json") | {"epochs": 2, "evaluation": exam, "promotion": gate}
    store = open_store(made.config.store)
    started = read_started(store, made.name).model_copy(update={"config": config})
    store.put(f"runs/{made.name}/run.json", encode_value(started))
    (Path(made.config.store.url) / "runs" / made.name / "stages/train_epoch-2.json").unlink()
    with pytest.raises(ConfigError, match=f"has no train_epoch 2; finish it: cures run --resume {made.name}"):
        promote_run(store, made.name, None, "ann", "", override=False)


def test_a_damaged_change_is_told_and_nothing_else_is_set_aside(made: RunRef, tmp_path: Path) -> None:
    store = open_store(made.config.store)
    started, place = store.get(f"runs/{made.name}/run.json"), f"runs/{made.name}/changes/00000002.json"
    store.put(place, b"{")
    with pytest.raises(CorruptArtifact, match=f"cures runs set-aside {place}, then cures run --resume {made.name}"):
        make(tmp_path)
    assert store.get(f"runs/{made.name}/run.json") == started
    assert list(store.list("damaged")) == []


def test_a_number_changed_in_a_value_that_still_parses_is_told(made: RunRef) -> None:
    root = Path(made.config.store.url)
    record = stage_record(LocalStore(root), made.name, EpochFigures, "1")
    assert record is not None
    change(root / f"stages/{record.id}.json", b'"step":1', b'"step":7')
    with pytest.raises(CorruptArtifact, match="not those that were written"):
        stage_record(LocalStore(root), made.name, EpochFigures, "1")


def test_an_artefact_deleted_behind_a_record_runs_its_stage_alone(made: RunRef, tmp_path: Path) -> None:
    store = LocalStore(made.config.store.url)
    record = stage_record(store, made.name, PolicyFigures)
    assert record is not None
    shutil.rmtree(Path(made.config.store.url) / str(record.files))
    (finding,) = verify(made.config.store, [made.name]).damaged
    assert (finding.place, finding.remedy) == (record.files, f"cures run --resume {made.name}")
    make(tmp_path)
    assert [n["stage"] for n in stage_notes(store, made.name) if not n["cached"]] == ["prepare_policy"]


def test_a_model_is_not_rolled_back_to_damaged_weights_and_show_says_so(made: RunRef) -> None:
    store = LocalStore(made.config.store.url)
    first = existing_pointer(store, "m")[1].entry(1)
    record = stage_record(store, made.name, EpochFigures, "1")
    assert record is not None
    change(Path(made.config.store.url) / str(record.files) / "checkpoint" / "weights.safetensors", b"\x80?", b"\x00@")
    pointer = store.get("models/m.json")
    with pytest.raises(CorruptArtifact, match=r"nothing was changed.*weights\.safetensors"):
        checked_roll_back(store, "m", 1, "ann", "try")
    assert store.get("models/m.json") == pointer
    shown = CliRunner().invoke(app, ["models", "show", "m", "--json", "--store", made.config.store.url])
    assert shown.exit_code == 0  # the current version is whole
    assert list(json.loads(shown.output)["damaged"]) == [str(first.version)]


def test_weights_that_are_others_than_those_promoted_are_told(made: RunRef) -> None:
    store = LocalStore(made.config.store.url)
    entry = existing_pointer(store, "m")[1].current.model_copy(update={"weights": "0" * 64})
    for deep in (False, True):
        assert "promoted were 000000000000" in weights_fault(store, entry, deep=deep)


def test_a_damaged_pointer_is_a_row_beside_the_others(made: RunRef) -> None:
    store = open_store(made.config.store)
    store.put("models/n.json", b"{")
    place = ("--store", made.config.store.url)
    listed = CliRunner().invoke(app, ["models", "list", *place])
    assert listed.exit_code == 0
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [["m", "version"], ["n", "damaged:"]]
    rows = json.loads(CliRunner().invoke(app, ["models", "list", "--json", *place]).stdout)
    assert rows[0]["version"] == 2
    assert rows[1]["damaged"].startswith("models/n.json: ")


def test_the_command_tells_what_is_wrong_and_what_mends_it(made: RunRef) -> None:
    root = Path(made.config.store.url)
    whole = CliRunner().invoke(app, ["runs", "verify", "--all", "--store", str(root)])
    assert whole.exit_code == 0, whole.output
    assert "all as it was written" in whole.output
    change(root / "models" / "m.json", b'"version":2', b'"version":3')
    outcome = CliRunner().invoke(app, ["runs", "verify", made.name, "--store", str(root), "--json"])
    assert outcome.exit_code == 1
    (finding,) = json.loads(outcome.output)["damaged"]
    assert finding["place"] == "models/m.json"
    assert finding["remedy"].startswith("cures promote RUN --model m --override")
    assert CliRunner().invoke(app, ["runs", "verify", "--store", str(root)]).exit_code != 0


def test_a_snapshot_whose_object_is_gone_at_the_dvc_remote_is_seen(tmp_path: Path) -> None:
    with open_run(config_in(tmp_path, 1e-4)) as run:
        places = run.config.snapshot.within(run.config.store.url, None)
        tag = f"posterior/{run.name}/0"

        def work(space: Workspace) -> Made[Any]:
            (space.scratch / "posterior.parquet").write_bytes(b"a posterior")
            parquet = space.scratch / "posterior.parquet"
            return Made(publish_snapshot(parquet, {"run": run.name}, tag, places, space.scratch))

        record = run_stage(run, SnapshotFigures, 1, {}, [], work, label="0")
    assert verify(run.config.store, [run.name]).damaged == ()
    md5 = record.figures.md5
    (Path(str(places.remote)) / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    (finding,) = verify(run.config.store, [run.name]).damaged
    assert (finding.place, finding.remedy) == (tag, f"cures posterior restore {tag}")
    assert run_names(open_store(run.config.store)) == [run.name]


def test_a_snapshot_of_an_epoch_that_was_done_again_is_looked_at_and_restored(tmp_path: Path) -> None:
    with open_run(config_in(tmp_path, 1e-4)) as run:
        places = run.config.snapshot.within(run.config.store.url, None)

        def publish(time: int) -> Record:
            def estimate(space: Workspace) -> Made[Any]:
                (space.out / "posterior.parquet").write_text(f"posterior {time}")
                return made_by("estimate_prior")

            def snapshot(space: Workspace) -> Made[Any]:
                parquet = space.scratch / "posterior.parquet"
                parquet.write_text(f"posterior {time}")
                tag = f"posterior/{run.name}/0{f'.{time}' if time else ''}"
                return Made(publish_snapshot(parquet, {"run": run.name}, tag, places, space.scratch))

            state = run_stage(run, PriorFigures, 1, {"time": time}, [], estimate)
            return run_stage(run, SnapshotFigures, 1, {"time": time}, [state], snapshot, label="0")

        first, second = publish(0).figures, publish(1).figures
    store, cfg = open_store(run.config.store), run.config.store
    assert verify(cfg).checked["snapshots"] == 2
    (Path(str(places.remote)) / "files" / "md5" / first.md5[:2] / first.md5[2:]).unlink()
    assert verify(cfg, [run.name]).damaged == ()
    (finding,) = verify(cfg).damaged
    assert (finding.place, finding.remedy) == (first.tag, f"cures posterior restore {first.tag}")
    assert restore_snapshot(first.tag, store, places)
    assert verify(cfg).damaged == ()
    git = ["git", "--git-dir", str(places.repository), "tag", "-d"]
    subprocess.run([*git, first.tag], check=True)
    found = verify(cfg)
    assert (found.damaged, [note.place for note in found.notes]) == ((), [first.tag])
    subprocess.run([*git, second.tag], check=True)
    (finding,) = verify(cfg).damaged
    assert (finding.place, finding.remedy) == (second.tag, f"cures run --resume {run.name}")
