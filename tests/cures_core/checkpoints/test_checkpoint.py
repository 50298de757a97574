"""A checkpoint is whole or absent, exact, and refused when a byte is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cures_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, weights_digest
from cures_core.errors import CorruptArtifact
from cures_core.files import digest_file, digest_folder


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


def test_large_tensors_are_split_over_files_and_come_back(tmp_path: Path) -> None:
    checkpoint = make(3)
    checkpoint.weights = {f"w{i}": torch.full((10,), float(i)) for i in range(5)}
    save_checkpoint(checkpoint, tmp_path / "whole")
    save_checkpoint(checkpoint, tmp_path / "split", shard_bytes=80)  # two tensors of 40 bytes
    save_checkpoint(checkpoint, tmp_path / "alone", shard_bytes=1)
    names = sorted(p.name for p in (tmp_path / "split").glob("weights*"))
    assert names == [f"weights-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert len(list((tmp_path / "alone").glob("weights*"))) == 5
    assert [p.name for p in (tmp_path / "whole").glob("weights*")] == ["weights.safetensors"]
    for name in ("split", "alone"):
        loaded = load_checkpoint(tmp_path / name)
        assert all(torch.equal(v, loaded.weights[k]) for k, v in checkpoint.weights.items())
        assert all(torch.equal(v, loaded.optimizer[k]) for k, v in checkpoint.optimizer.items())
    assert weights_digest(tmp_path / "whole") == digest_file(tmp_path / "whole" / "weights.safetensors")
    assert weights_digest(tmp_path / "split") != weights_digest(tmp_path / "alone")
    (tmp_path / "split" / names[1]).unlink()
    with pytest.raises(CorruptArtifact, match="00002-of-00003"):
        load_checkpoint(tmp_path / "split")


def test_a_snapshot_stays_what_it_was(tmp_path: Path) -> None:
    checkpoint = make(3)
    kept = checkpoint.snapshot()
    checkpoint.weights["w"].zero_()
    checkpoint.curriculum["posterior"]["a"][:] = 0
    checkpoint.metrics.append({"step": 4})
    save_checkpoint(kept, tmp_path / "a")
    save_checkpoint(make(3), tmp_path / "b")
    assert digest_folder(tmp_path / "a") == digest_folder(tmp_path / "b")
