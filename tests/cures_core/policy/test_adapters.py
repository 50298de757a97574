"""Adapters in a folder: merged into their base or trained further, and what is exported is what was evaluated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from cures_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cures_core.config.rollout import HfRolloutConfig
from cures_core.config.run import RunConfig
from cures_core.config.training import LoraConfig, TorchTrainerConfig
from cures_core.errors import ConfigError, CuresError, MissingInput
from cures_core.jobs import warm_start as job_module
from cures_core.jobs.assemble import assemble_policy, assemble_reference
from cures_core.jobs.spec import Job
from cures_core.policy.accounting import require_whole
from cures_core.policy.adapters import WEIGHTS, base_name
from cures_core.policy.loading import Policy, load_policy, save_policy
from cures_core.rollout.hf.engine import HfEngine
from cures_core.rollout.vllm.handover import merged_state
from cures_core.rollout.vllm.probe import probe_ids, probe_logprobs
from cures_core.terms import Prompt, Request
from cures_core.training.advantages import Sample
from cures_core.training.forward import completion_logprobs
from cures_core.training.packing import micro_batches
from cures_core.training.torch_trainer import TorchTrainer
from tasks.inputs.pretrained import pretrained_files
from tasks.readiness import check_run
from tests.cures_core.policy.test_supervised import FakeParent
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama
from tests.tasks.test_readiness import config

CPU = torch.device("cpu")
LORA = LoraConfig(rank=2, alpha=8, targets=("q_proj", "down_proj"))
TOKENIZER = character_tokenizer()
IDS = probe_ids(len(TOKENIZER))


def moved(policy: Policy, seed: int = 1) -> Policy:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with `base` and `adapters`, and what both together say of the probe."""
    folder = tmp_path_factory.mktemp("adapters")
    save_policy(Policy(tiny_llama(), TOKENIZER, CPU), folder / "base")
    policy = moved(load_policy(folder / "base", CPU, lora=LORA))
    policy.model.save_pretrained(folder / "adapters")
    return folder, probe_logprobs(policy.model, IDS)


@pytest.fixture
def folder(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the adapters whose base lies beside them."""
    shutil.copytree(made[0] / "base", tmp_path / "base")
    return Path(shutil.copytree(made[0] / "adapters", tmp_path / "adapters"))


def job_of(path: Path, out: Path, lora: LoraConfig | None = None, **training: Any) -> Job:
    adapters = "merge" if lora is None else "continue"
    cfg = RunConfig.model_validate(
        {
            "data": {"path": "x"},
            "rollout": {"max_new_tokens": 4},
            "training": {"learning_rate": 1e-3, "lora": lora, **training},
            "policy": {"type": "pretrained", "path": str(path), "adapters": adapters},
            "device": {"type": "cpu"},
        }
    )
    return Job(name="warm_start", config=cfg, scratch=out / "scratch", out=out, policy=str(path))


def test_adapters_are_merged_into_their_base(made: tuple[Path, Any], tmp_path: Path) -> None:
    folder, wanted = made
    job_module.run(job_of(folder / "adapters", tmp_path), FakeParent())  # type: ignore[arg-type]
    merged = load_policy(tmp_path / "policy", CPU)
    assert np.abs(probe_logprobs(merged.model, IDS) - wanted).max() < 1e-4
    assert np.abs(probe_logprobs(load_policy(folder / "base", CPU).model, IDS) - wanted).max() > 0.01
    assert not hasattr(merged.model, "peft_config")
    assert json.loads((tmp_path / "figures.json").read_bytes()).keys() == {"machine"}


def test_adapters_go_on_as_adapters(made: tuple[Path, Any], tmp_path: Path) -> None:
    folder, wanted = made
    policy = assemble_policy(job_of(folder / "adapters", tmp_path, LORA), None)
    assert np.abs(probe_logprobs(policy.model, IDS) - wanted).max() < 1e-5
    fresh = load_policy(folder / "base", CPU, lora=LORA)
    assert set(policy.trainable()) == set(fresh.trainable())
    assert all(".lora_" in name for name in policy.trainable())


@pytest.mark.parametrize("kind", ["full weights", "fresh adapters", "continued adapters"])
def test_export_engine_and_trainer_say_the_same(kind: str, made: tuple[Path, Any], tmp_path: Path) -> None:
    """Of a policy that has moved, through its checkpoint: what is promoted is what was trained and evaluated."""
    place = made[0] / ("adapters" if kind == "continued adapters" else "base")
    lora = None if kind == "full weights" else LORA
    trained = moved(load_policy(place, CPU, lora=lora), seed=2)
    save_checkpoint(Checkpoint(dict(trained.trainable()), {}, {}, {"step": 1}), tmp_path / "checkpoint")
    again = load_policy(place, CPU, lora=lora)
    again.load_trainable(load_checkpoint(tmp_path / "checkpoint").weights)
    engine = HfEngine(again.model, again.tokenizer, HfRolloutConfig(max_new_tokens=12))
    (rollout,) = engine.generate([Request("r", Prompt("p", "1+2=", "3"), 1, 5)])[0]
    (batch,) = micro_batches([Sample(rollout, 1.0, 1.0)], 256, 0)

    def trainers(model: Any) -> Any:
        with torch.no_grad():
            return completion_logprobs(model.eval(), batch, 1.0, CPU)[0].numpy()

    in_training = trainers(trained.model)
    handed_over = merged_state(again.model)
    save_policy(again, tmp_path / "export")
    exported = load_policy(tmp_path / "export", CPU)
    assert np.abs(np.array(rollout.logprobs) - in_training).max() < 1e-4
    assert np.abs(trainers(exported.model) - in_training).max() < 1e-4
    assert np.abs(trainers(load_policy(place, CPU).model) - in_training).max() > 1e-3
    held = exported.model.state_dict()
    assert set(held) == set(handed_over)
    assert max(float((held[name] - value).abs().max()) for name, value in handed_over.items()) < 1e-6


def test_a_kl_penalty_holds_continued_adapters_to_where_they_began(made: tuple[Path, Any], tmp_path: Path) -> None:
    folder, wanted = made
    job = job_of(folder / "adapters", tmp_path, LORA, kl_coef=0.1)
    reference = assemble_reference(job)
    assert reference is not None
    assert np.abs(probe_logprobs(reference, IDS) - wanted).max() < 1e-4
    policy = assemble_policy(job, None)
    trainer = TorchTrainer(policy, TorchTrainerConfig(learning_rate=1e-3, lora=LORA, kl_coef=0.1), 1.0, reference)
    engine = HfEngine(policy.model, policy.tokenizer, HfRolloutConfig(max_new_tokens=6))
    rollouts = engine.generate([Request("r", Prompt("p", "1+2=", "3"), 2, 5)])[0]
    (batch,) = micro_batches([Sample(r, 1.0, 1.0) for r in rollouts], 256, 0)
    now = completion_logprobs(policy.model, batch, 1.0, CPU)[0].detach()
    assert float((trainer._reference_logprobs(batch) - now).abs().max()) < 1e-4


def test_the_tokenizer_may_be_with_the_base_or_with_the_adapters(folder: Path) -> None:
    assert load_policy(folder, CPU).tokenizer.get_vocab() == TOKENIZER.get_vocab()
    TOKENIZER.save_pretrained(folder)
    shutil.rmtree(folder.parent / "tokenizers", ignore_errors=True)
    assert load_policy(folder, CPU).tokenizer.get_vocab() == TOKENIZER.get_vocab()


def test_the_base_is_found_beside_the_adapters_or_where_it_is_said_to_be(folder: Path, tmp_path: Path) -> None:
    text = (folder / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(json.dumps({**json.loads(text), "base_model_name_or_path": "../base"}))
    require_whole(folder)
    (folder / "adapter_config.json").write_text(json.dumps({**json.loads(text), "base_model_name_or_path": None}))
    with pytest.raises(ConfigError, match=r"names no base model; set policy\.base"):
        require_whole(folder)
    require_whole(folder, str(tmp_path / "base"))


def test_a_policy_of_adapters_is_named_by_both(folder: Path, tmp_path: Path) -> None:
    cfg = config(tmp_path, policy={"type": "pretrained", "path": str(folder), "base": str(tmp_path / "base")}).policy
    before = pretrained_files(cfg)  # type: ignore[arg-type]
    assert {"adapter_config.json", "base/config.json"} <= set(before)
    (tmp_path / "base" / "note.txt").write_text("other")
    assert pretrained_files(cfg) != before  # type: ignore[arg-type]


def change(folder: Path, how: Callable[[dict[str, torch.Tensor]], object]) -> None:
    held = load_file(folder / WEIGHTS)
    how(held)
    save_file(held, folder / WEIGHTS, metadata={"format": "pt"})


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
SPOILT: list[tuple[Callable[[Path], object], type[CuresError], str]] = [
    (lambda f: change(f, lambda held: held.pop(FIRST)), ConfigError, f"the file lacks {FIRST}"),
    (lambda f: change(f, lambda held: held.update({"x": torch.zeros(1)})), ConfigError, "has no place for x"),
    (lambda f: change(f, lambda held: held.update({FIRST: torch.zeros(2, 3)})), ConfigError, f"another shape: {FIRST}"),
    (lambda f: (f / WEIGHTS).write_bytes(b"x" * 20), ConfigError, "damaged"),
    (lambda f: (f / WEIGHTS).unlink(), MissingInput, f"without {WEIGHTS}"),
    (lambda f: (f / "adapter_config.json").write_text("{"), ConfigError, "damaged"),
    (lambda f: shutil.copytree(f, f.parent / "base", dirs_exist_ok=True), ConfigError, "adapters too"),
]


@pytest.mark.parametrize("name", ["7", '["org/base"]', '{"a": 1}', '"org/\\u0000base"', f'"{"x" * 300}"'])
def test_a_base_that_is_no_name_is_refused(name: str, folder: Path) -> None:
    (folder / "adapter_config.json").write_text(f'{{"base_model_name_or_path": {name}}}')
    with pytest.raises(ConfigError, match=r"base_model_name_or_path: .* set policy\.base"):
        base_name(folder)


@pytest.mark.parametrize(("spoil", "kind", "words"), SPOILT)
def test_adapters_that_do_not_fit_are_refused_by_name(
    spoil: Callable[[Path], object], kind: type[CuresError], words: str, folder: Path, tmp_path: Path
) -> None:
    spoil(folder)
    base = str(tmp_path / "base")
    cfg = config(tmp_path, policy={"type": "pretrained", "path": str(folder), "base": base})
    checked = next(checked.error for checked in check_run(cfg) if checked.finding.name == "policy")
    for look in (lambda: require_whole(folder, base), lambda: load_policy(folder, CPU, base=base)):
        with pytest.raises(kind) as caught:
            look()
        assert words in str(caught.value)
    assert words in str(checked)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"rank": 4}, r"rank is 2, training\.lora\.rank 4"),
        ({"alpha": 2}, "alpha is 8"),
        ({"targets": ("q_proj",)}, "targets is"),
    ],
)
def test_adapters_that_are_continued_are_what_the_configuration_says(
    other: dict[str, Any], words: str, folder: Path, tmp_path: Path
) -> None:
    lora = LORA.model_copy(update=other)
    with pytest.raises(ConfigError, match=words):
        load_policy(folder, CPU, lora=lora)
    policy = {"type": "pretrained", "path": str(folder), "adapters": "continue", "base": str(tmp_path / "base")}
    cfg = config(tmp_path, policy=policy, training={"learning_rate": 1e-3, "lora": lora.model_dump()})
    checked = next(checked.error for checked in check_run(cfg) if checked.finding.name == "policy")
    assert "training.lora" in str(checked)


def test_only_adapters_can_be_continued(made: tuple[Path, Any], tmp_path: Path) -> None:
    policy = {"type": "pretrained", "path": str(made[0] / "base"), "adapters": "continue"}
    cfg = config(tmp_path, policy=policy, training={"learning_rate": 1e-3, "lora": LORA.model_dump()})
    checked = next(checked.error for checked in check_run(cfg) if checked.finding.name == "policy")
    assert "holds no adapters to continue" in str(checked)
    with pytest.raises(ValidationError, match=r"set training\.lora to what the adapters are like"):
        config(tmp_path, policy=policy)
    with pytest.raises(ValidationError, match="leaves no adapters to continue"):
        config(tmp_path, policy={**policy, "warm_start": {}}, training={"learning_rate": 1e-3, "lora": {}})
