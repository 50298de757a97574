"""In-stage checkpoints: whole or absent, written behind training, few kept but always the last healthy one."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import cures_core.checkpoints.in_epoch
from cures_core.checkpoints.checkpoint import load_checkpoint
from cures_core.checkpoints.in_epoch import StepWriter, latest_step, retain, save_step
from cures_core.config.checkpoint import CheckpointConfig
from cures_core.errors import CorruptArtifact, InjectedFault
from tests.cures_core.checkpoints.test_checkpoint import make


def test_a_damaged_latest_falls_back_and_no_intact_one_is_not_a_fresh_start(tmp_path: Path) -> None:
    for step in (1, 2):
        save_step(make(step), tmp_path)
    (tmp_path / "step-000002" / "state.json").write_bytes(b"{}")
    found = latest_step(tmp_path)
    assert found is not None
    assert found.step == 1
    (tmp_path / "step-000001" / "state.json").write_bytes(b"{}")
    with pytest.raises(CorruptArtifact, match="none of 2"):
        latest_step(tmp_path)


def test_retention_keeps_the_newest(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_step(make(step), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000004", "step-000005"]


@pytest.mark.parametrize("point", ["half_written", "before_manifest", "before_rename"])
def test_a_save_that_dies_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    save_step(make(1), tmp_path / "steps")
    monkeypatch.setenv("CURES_FAULTS", f"checkpoint.{point}=raise")
    monkeypatch.setenv("CURES_FAULTS_DIR", str(tmp_path / "faults"))
    with pytest.raises(InjectedFault):
        save_step(make(2), tmp_path / "steps")
    found = latest_step(tmp_path / "steps")
    assert found is not None
    assert found.step == 1
    save_step(make(2), tmp_path / "steps")  # the fault fires once
    found = latest_step(tmp_path / "steps")
    assert found is not None
    assert found.step == 2


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("step-*"))


def test_keep_last_and_shards_are_as_configured(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_step(make(step), tmp_path, CheckpointConfig(keep_last=3, max_shard_mib=1e-6))
    assert names(tmp_path) == ["step-000003", "step-000004", "step-000005"]
    assert len(list((tmp_path / "step-000005").glob("weights-*"))) == 2


def bad(step: int) -> Any:
    checkpoint = make(step)
    checkpoint.state["trainer"]["bad_steps"] = 1
    return checkpoint


def test_the_last_healthy_one_outlives_those_after_steps_that_were_not_finite(tmp_path: Path) -> None:
    save_step(make(1), tmp_path)
    save_step(make(2), tmp_path)
    for step in (3, 4, 5):
        save_step(bad(step), tmp_path)
    assert names(tmp_path) == ["step-000002", "step-000004", "step-000005"]
    save_step(make(6), tmp_path)
    assert names(tmp_path) == ["step-000005", "step-000006"]


def test_the_last_healthy_one_outlives_those_that_cannot_be_read_back(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_step(make(step), tmp_path, CheckpointConfig(keep_last=3))
    for step in (2, 3):
        (tmp_path / f"step-00000{step}" / "state.json").write_bytes(b"{}")
    retain(tmp_path, 1)
    assert names(tmp_path) == ["step-000001", "step-000003"]


@pytest.mark.parametrize("background", [True, False])
def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    gate = threading.Event()
    save = cures_core.checkpoints.in_epoch.save_checkpoint

    def slow(*args: Any) -> None:
        assert gate.wait(30)
        save(*args)

    monkeypatch.setattr(cures_core.checkpoints.in_epoch, "save_checkpoint", slow)
    with closing(StepWriter(tmp_path, CheckpointConfig(background=background))) as writer:
        if not background:
            gate.set()
        checkpoint = make(1)
        writer.save(checkpoint)
        assert (names(tmp_path) == []) == background
        checkpoint.weights["w"].zero_()  # the next step
        gate.set()
        writer.save(make(2))
    assert names(tmp_path) == ["step-000001", "step-000002"]
    assert float(load_checkpoint(tmp_path / "step-000001").weights["w"].sum()) == 6.0


def test_what_goes_wrong_behind_training_is_raised_at_the_next_occasion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURES_FAULTS", "checkpoint.before_manifest:2=raise,checkpoint.before_manifest:4=raise")
    monkeypatch.setenv("CURES_FAULTS_DIR", str(tmp_path / "faults"))
    writer = StepWriter(tmp_path / "steps", CheckpointConfig())
    writer.save(make(1))
    writer.save(make(2))
    with pytest.raises(InjectedFault):
        writer.save(make(3))
    writer.save(make(4))
    with pytest.raises(InjectedFault):
        writer.close()
    assert names(tmp_path / "steps") == ["step-000001"]
