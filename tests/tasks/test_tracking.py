"""Trackers hear steps and scores, resume into the same run, and cannot end one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cures_core.config.run import RunConfig
from cures_core.config.tracking import TRACKERS, TrackingConfig
from cures_core.errors import MissingExtra
from cures_core.events import StepDone
from cures_core.extras import MODULES
from cures_core.kept_rollouts.table import KeptRollout, write_rollouts
from tasks.progress import StageEnded, StageStarted, emit
from tasks.runs.opening import identify
from tasks.runs.records import Record, RunRef
from tasks.storage import open_store
from tasks.tracking import listener, tracking
from tasks.tracking.listener import MOST_ROWS
from tasks.tracking.tracker import Table, tracker_module
from tests.cures_core.kept_rollouts.hooks import CANARY
from tests.cures_core.kept_rollouts.rollouts import row
from tests.tasks.stages.figures import figures_of


def ref(**trackers: str) -> RunRef:
    config = {
        "data": {"path": "data/chains/train.jsonl"},
        "rollout": {"max_new_tokens": 8},
        "training": {"learning_rate": 1e-3},
        "steps_per_epoch": 5,
        "tracking": trackers,
    }
    return RunRef(name="demo-1", config=RunConfig.model_validate(config), token=1)


def step(number: int, reward: float) -> None:
    metrics = {"step": number, "reward_mean": reward, "reason": "budget"}
    emit(StepDone(epoch=1, seconds=0.5, last_step=10, metrics=metrics))


def ended(stage: str, *, cached: bool = False, **figures: Any) -> None:
    name = stage.partition(" ")[0]
    record = Record(stage=name, key="k", inputs={}, figures=figures_of(name, **figures))
    emit(StageEnded(stage, record, cached=cached))


def scored(epoch: int, value: float, status: str = "done") -> None:
    scores = {"exam": {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 5, "k": 1}}
    ended(f"evaluate_checkpoint {epoch}", cached=status == "cached", scores=scores)


def failing_run(run: RunRef) -> None:
    with tracking(run):
        step(1, 0.25)
        raise RuntimeError


class Memory:
    def __init__(self, breaks: bool = False) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.breaks, self.ended = breaks, ""
        self.tables: list[tuple[str, Table, int]] = []

    def log(self, figures: Mapping[str, float], step: int) -> None:
        if self.breaks:
            raise OSError("no route")
        self.logged.append((step, dict(figures)))

    def log_table(self, name: str, table: Table, step: int) -> None:
        self.tables.append((name, table, step))

    def close(self, completed: bool) -> None:
        self.ended = "well" if completed else "badly"


def test_steps_and_scores_are_heard_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    monkeypatch.setattr(listener, "_trackers", lambda _: [memory])
    with tracking(ref()):
        emit(StageStarted(stage="evaluate_checkpoint 1"))
        ended("report")
        scored(0, 0.25, "cached")
        step(1, 0.5)
        scored(2, 0.75)
    step(2, 0.5)  # the run is over
    exam = {"eval/exam": 0.25, "eval/exam_low": 0.15, "eval/exam_high": 0.35}
    assert memory.logged[0] == (0, pytest.approx(exam))
    assert memory.logged[1] == (1, {"train/step": 1.0, "train/reward_mean": 0.5, "train/seconds": 0.5})
    assert memory.logged[2][0] == 10
    assert len(memory.logged) == 3
    assert memory.ended == "well"


def trained(run: RunRef, *kept: KeptRollout, epoch: int = 1) -> None:
    """An epoch ends that has kept these."""
    store, prefix = open_store(run.config.store), f"artifacts/train_epoch/k{epoch}/r-1"
    folder = Path(run.config.store.url) / "made"
    folder.mkdir(parents=True)
    write_rollouts(kept, folder / "rollouts.parquet")
    manifest = store.publish_files(prefix, folder)
    figures = figures_of("train_epoch", step=5 * epoch)
    record = Record(stage="train_epoch", key="k", inputs={}, files=prefix, manifest=manifest, figures=figures)
    emit(StageEnded(f"train_epoch {epoch}", record, cached=False))


def in_store(run: RunRef, folder: Path, **options: Any) -> RunRef:
    store = run.config.store.model_copy(update={"url": str(folder / "store")})
    return run.model_copy(update={"config": run.config.model_copy(update={"store": store, **options})})


def test_an_epoch_s_rollouts_are_a_bounded_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, run = Memory(), in_store(ref(), tmp_path)
    monkeypatch.setattr(listener, "_trackers", lambda _: [memory])
    with tracking(run):
        trained(run, *(row(step=i, completion="x" * 5000) for i in range(1, 200)), epoch=2)
    ((name, table, step),) = memory.tables
    assert (name, step, len(table.rows)) == ("rollouts/epoch-0002", 10, MOST_ROWS)
    column = dict(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    assert (column["step"][0], column["step"][-1]) == (1, 199)
    assert all(len(str(text)) < 2100 for text in column["completion"])


def test_what_was_kept_without_the_redaction_is_tracked_without_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory()
    run = in_store(ref(), tmp_path, redact="tests.cures_core.kept_rollouts.hooks:without_canary")
    monkeypatch.setattr(listener, "_trackers", lambda _: [memory])
    with tracking(run):
        trained(run, row(completion=CANARY, problem=CANARY))
    assert len(memory.tables[0][1].rows) == 1
    assert CANARY not in str(memory.tables)


def test_a_tracker_that_fails_is_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = Memory(breaks=True), Memory()
    monkeypatch.setattr(listener, "_trackers", lambda _: [broken, whole])
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError):
        failing_run(ref())
    assert len([r for r in caplog.records if "no route" in r.message]) == 1
    assert [number for number, _ in whole.logged] == [1]
    assert (broken.ended, whole.ended) == ("", "badly")


@pytest.mark.parametrize(
    ("module", "key"), [("mlflow", "mlflow"), ("torch.utils.tensorboard", "tensorboard"), ("wandb", "wandb")]
)
def test_a_missing_package_is_told_before_any_work(module: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [module, *(n for n in sys.modules if n.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{module}.entities", None)
    with pytest.raises(MissingExtra, match=rf"pip install 'cures\[{key}\]'"), tracking(ref(**{key: "x"})):
        pytest.fail("the run started")


def test_a_tracker_has_a_setting_an_extra_and_a_module() -> None:
    for name in TRACKERS:
        assert name in TrackingConfig.model_fields
        assert MODULES[name]
        module = tracker_module(name)
        assert callable(module.start)
        assert callable(module.probe)
    assert TrackingConfig().chosen == []
    assert TrackingConfig(wandb="p", mlflow="file:///m").chosen == ["mlflow", "wandb"]


def test_trackers_do_not_change_a_run_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/chains").mkdir(parents=True)
    (tmp_path / "data/chains/train.jsonl").write_text('{"problem": "1+1=", "answer": "2"}\n')
    assert identify(ref(mlflow="a").config) == identify(ref(tensorboard="b").config) == identify(ref().config)


def test_mlflow_keeps_figures_settings_and_the_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # needs no server
    tracking_module: Any = pytest.importorskip("mlflow.tracking")
    uri = f"file://{tmp_path / 'mlruns'}"
    client = tracking_module.MlflowClient(tracking_uri=uri)
    with pytest.raises(RuntimeError):
        failing_run(ref(mlflow=uri, mlflow_experiment="mine"))
    experiment = client.get_experiment_by_name("mine").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["FAILED"]
    with tracking(run := in_store(ref(mlflow=uri, mlflow_experiment="mine"), tmp_path)):
        step(2, 0.5)
        trained(run, row(completion="so it is 7"))
        scored(1, 0.75)
    (found,) = client.search_runs([experiment])
    assert (found.info.run_name, found.info.status) == ("demo-1", "FINISHED")
    assert found.data.params["training.learning_rate"] == "0.001"
    place = client.download_artifacts(found.info.run_id, "rollouts/epoch-0001.json", str(tmp_path))
    table = json.loads(Path(place).read_bytes())
    assert json.loads(found.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "rollouts/epoch-0001.json", "type": "table"}
    ]
    assert dict(zip(table["columns"], table["data"][0], strict=True))["completion"] == "so it is 7"
    history = client.get_metric_history(found.info.run_id, "train/reward_mean")
    assert [(m.step, m.value) for m in history] == [(1, 0.25), (2, 0.5)]
    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "eval/exam")] == [(5, 0.75)]


def test_tensorboard_events_can_be_read_back(tmp_path: Path) -> None:
    module: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with tracking(ref(tensorboard=str(tmp_path))):
        step(1, 0.25)
        step(2, 0.5)
        scored(1, 0.75)
    events = module.EventAccumulator(str(tmp_path / "demo-1")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/reward_mean")] == [(1, 0.25), (2, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("eval/exam")] == [(5, 0.75)]


def wandb_records(path: Path) -> list[Any]:
    """Records of an offline run: after a header of 7 bytes a log in blocks of 32 KiB, as LevelDB writes it."""
    pb: Any = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, at, found, parts = path.read_bytes(), 7, list[Any](), b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(pb.Record.FromString(parts))
            parts = b""
    return found


def test_wandb_offline_keeps_figures_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="pip install 'cures[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    with tracking(run := in_store(ref(wandb="mine"), tmp_path)):
        step(1, 0.25)
        trained(run, row(completion="so it is 7"))
        scored(1, 0.75)
    (path,) = tmp_path.glob("wandb/offline-run-*/run-demo-1.wandb")
    found = wandb_records(path)
    rows = [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(one["step"], one.get("train/reward_mean"), one.get("eval/exam")) for one in rows] == [
        (1, 0.25, None),
        (5, None, None),
        (5, None, 0.75),
    ]
    (place,) = [value for one in rows for name, value in one.items() if name == "rollouts/epoch-0001.path"]
    table = json.loads((path.parent / "files" / place).read_bytes())
    assert dict(zip(table["columns"], table["data"][0], strict=True))["completion"] == "so it is 7"
    (made,) = [record.run for record in found if record.WhichOneof("record_type") == "run"][:1]
    assert (made.run_id, made.project) == ("demo-1", "mine")
    settings = {update.key: json.loads(update.value_json) for update in made.config.update}
    assert settings["training.learning_rate"] == 0.001
