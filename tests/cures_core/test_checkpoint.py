"""A checkpoint is whole or absent, exact, and refused when a byte is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cures_core.checkpoint import Checkpoint, latest_step, load_checkpoint, save_checkpoint, save_step
from cures_core.errors import CorruptArtifact, InjectedFault


def make(step: int) -> Checkpoint:
    rng = np.random.default_rng(step)
    curriculum = {"type": "x", "rng": rng.bit_generator.state, "posterior": {"a": rng.random(5), "n": np.arange(3)}}
    return Checkpoint(
        weights={"w": torch.full((2, 3), float(step)), "b": torch.arange(3, dtype=torch.bfloat16)},
        optimizer={"0.exp_avg": torch.ones(6), "0.step": torch.tensor(float(step))},
        curriculum=curriculum,
        state={"step": step, "trainer": {"bad_steps": 0}},
        metrics=[{"step": step, "reward_mean": 0.25}],
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    save_checkpoint(make(3), tmp_path / "c")
    loaded = load_checkpoint(tmp_path / "c")
    assert torch.equal(loaded.weights["w"], make(3).weights["w"])
    assert loaded.weights["b"].dtype == torch.bfloat16
    assert np.array_equal(loaded.curriculum["posterior"]["a"], make(3).curriculum["posterior"]["a"])
    assert loaded.curriculum["rng"] == make(3).curriculum["rng"]
    assert loaded.state == make(3).state
    assert loaded.metrics == make(3).metrics


def test_same_state_gives_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_checkpoint(make(3), tmp_path / name)
    for file in sorted(p.name for p in (tmp_path / "a").iterdir()):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "extra", "no manifest"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    save_checkpoint(make(3), tmp_path / "c")
    file = tmp_path / "c" / "weights.safetensors"
    if damage == "flip":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif damage == "truncate":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "remove":
        file.unlink()
    elif damage == "extra":
        (tmp_path / "c" / "more").write_text("x")
    else:
        (tmp_path / "c" / "manifest.json").unlink()
    with pytest.raises(CorruptArtifact):
        load_checkpoint(tmp_path / "c")


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
