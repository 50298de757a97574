"""DeepSpeed at every stage and on any number of ranks gives what one process gives, and takes its checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cures_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cures_core.config.training import DeepSpeedTrainerConfig
from cures_core.distributed import World
from cures_core.errors import ConfigError, MissingExtra, RankLost
from cures_core.training.deepspeed_setup import alone_in, prepare_deepspeed
from cures_core.training.updaters import build_updater
from tests.cures_core.training.test_data_parallel import assert_close, batches, train
from tests.cures_core.training.test_torch_trainer import policy


def ranks(folder: Path, size: int, cases: list[dict[str, Any]]) -> list[Checkpoint]:
    """What `size` ranks make of the cases, one after another."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, "-m", "tests.cures_core.training.zero_ranks", str(folder)]
    env = {**os.environ, "WORLD_SIZE": str(size), "GLOO_SOCKET_IFNAME": "lo", "LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen(command, env={**env, "RANK": str(rank)}) for rank in range(size)]
    try:
        assert [p.wait(500) for p in processes] == [0] * size
    finally:
        for p in processes:
            p.kill()
            p.wait()
    return [load_checkpoint(folder / str(i)) for i in range(len(cases))]


def zero(stage: int, seeds: tuple[int, ...] = (0, 1, 2), **more: Any) -> dict[str, Any]:
    training = {"type": "deepspeed", "zero_stage": stage, **more.pop("training", {})}
    return {"training": training, "seeds": seeds, **more}


@pytest.mark.slow
def test_every_stage_gives_what_one_process_gives(tmp_path: Path) -> None:
    one, figures, _ = train(1, batches(3))
    saved, _, _ = train(1, batches(3)[:1])
    save_checkpoint(Checkpoint(saved[0], saved[1], {}, {"step": 1, "trainer": saved[2]}), tmp_path / "saved")
    cases = [zero(stage) for stage in (0, 1, 2, 3)]
    cases += [zero(stage, (1, 2), saved=str(tmp_path / "saved")) for stage in (0, 1, 2, 3)]
    cases += [zero(stage, training={"grad_clip": 0.0, "micro_batch_tokens": 64}) for stage in (2, 3)]
    made = ranks(tmp_path / "two", 2, cases)
    free, _, _ = train(1, batches(3), grad_clip=0.0)
    for i, checkpoint in enumerate(made):
        wanted = one if i < 8 else free
        assert_close(wanted[0], checkpoint.weights)
        assert_close(wanted[1], checkpoint.optimizer)
        assert checkpoint.state["trainer"]["step"] == 3
        assert checkpoint.metrics[-1]["grad_norm"] == pytest.approx(figures[-1]["grad_norm"], rel=1e-2)
        assert checkpoint.metrics[-1]["loss"] == pytest.approx(figures[-1]["loss"], abs=1e-4)
        assert checkpoint.metrics[-1]["tokens_trained"] == figures[-1]["tokens_trained"]
    for stage in (1, 2, 3):
        assert_close(made[0].weights, made[stage].weights, 1e-5)
    # Both ways between numbers of ranks and trainers: two ranks of ZeRO 3 go on as one, and as one process of torch.
    first = ranks(tmp_path / "first", 2, [zero(3, (0,)), zero(2, (0,))])
    rest = ranks(
        tmp_path / "rest",
        1,
        [zero(3, (1, 2), saved=str(tmp_path / "first/0")), zero(1, (1, 2), saved=str(tmp_path / "first/1"))],
    )
    for checkpoint in rest:
        assert_close(one[0], checkpoint.weights)
        assert_close(one[1], checkpoint.optimizer)
    back, _, _ = train(1, batches(3)[1:], saved=(first[0].weights, first[0].optimizer, first[0].state["trainer"]))
    assert_close(one[0], back[0])


@pytest.mark.slow
def test_offload_bfloat16_adapters_and_gradients_that_are_not_finite(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from cures_core.policy.characters import character_tokenizer
    from cures_core.policy.loading import Policy, save_policy

    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=1, pad_token_id=0, **size))
    save_policy(Policy(model, tokenizer, torch.device("cpu")), tmp_path / "llama")
    offloaded = {"offload_optimizer": True}
    cases = [
        zero(1, training=offloaded),
        zero(2, training=offloaded),
        zero(3, training={**offloaded, "offload_parameters": True}),
        *(zero(stage, dtype="bfloat16") for stage in (1, 2, 3)),
        *(zero(stage, policy=str(tmp_path / "llama")) for stage in (0, 1, 2, 3)),
        *(zero(stage, policy=str(tmp_path / "llama"), training={"kl_coef": 0.5}) for stage in (0, 3)),
        *(zero(stage, (0,), poison=True) for stage in (0, 1, 2, 3)),
    ]
    made = ranks(tmp_path / "two", 2, cases)
    one, _, _ = train(1, batches(3))
    for checkpoint in made[:3]:
        assert_close(one[0], checkpoint.weights)
        assert_close(one[1], checkpoint.optimizer)
    low, _, _ = train(1, batches(3), dtype=torch.bfloat16)
    for checkpoint in made[3:6]:
        assert set(checkpoint.optimizer) == set(low[1])
        for i, (name, weight) in enumerate(checkpoint.weights.items()):
            assert weight.dtype == torch.bfloat16
            assert torch.equal(weight, checkpoint.optimizer[f"{list(low[0]).index(name)}.master"].bfloat16()), i
        masters = [{k: v for k, v in t.items() if k.endswith("master")} for t in (low[1], checkpoint.optimizer)]
        assert_close(*masters, 5e-3)
    for checkpoint in made[6:10]:
        assert all("lora_" in name for name in checkpoint.weights)
        assert any(v.abs().sum() > 0 for k, v in checkpoint.weights.items() if "lora_B" in k)
        assert_close(made[6].weights, checkpoint.weights, 1e-5)
    assert made[10].metrics[-1]["kl"] > 0
    assert_close(made[10].weights, made[11].weights, 1e-5)
    start = {k: v.detach() for k, v in policy().trainable().items()}
    for checkpoint in made[12:]:
        assert checkpoint.metrics[0]["non_finite"] == 1.0
        assert_close(start, checkpoint.weights, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zero_stage": 0, "offload_optimizer": True}, "zero_stage 1, 2 or 3"),
        ({"zero_stage": 2, "offload_parameters": True}, "zero_stage = 3"),
        ({"nodes": 2}, "address"),
        ({"address": "nowhere"}, "host:port"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepSpeedTrainerConfig(learning_rate=1e-3, **options)


def test_stage_0_is_for_float32() -> None:
    p = policy()
    p.model.to(torch.bfloat16)
    with pytest.raises(ConfigError, match="zero_stage = 1"):
        build_updater(p, DeepSpeedTrainerConfig(learning_rate=1e-3, zero_stage=0), World())


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cures\[deepspeed\]'"):
        prepare_deepspeed(DeepSpeedTrainerConfig(learning_rate=1e-3))


def test_a_lock_of_a_killed_process_is_removed_and_a_held_folder_has_a_deadline(tmp_path: Path) -> None:
    (tmp_path / "cpu_adam").mkdir()
    (tmp_path / "cpu_adam" / "lock").touch()
    with alone_in(tmp_path, 1.0):
        assert not (tmp_path / "cpu_adam" / "lock").exists()
        with pytest.raises(RankLost, match=r"waited 0\.3 s for another process to compile"), alone_in(tmp_path, 0.3):
            pass
    with alone_in(tmp_path, 1.0):
        pass
