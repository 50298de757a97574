"""The trainer's step: direction, micro-batching, clipping, non-finite gradients, exact resume."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from cures_core.config.policy import WarmStartPolicy
from cures_core.config.rollout import HfRolloutConfig
from cures_core.config.training import LoraConfig, TorchTrainerConfig
from cures_core.errors import ConfigError, OutOfMemory, TrainingDiverged
from cures_core.policy.characters import character_model, character_tokenizer
from cures_core.policy.loading import Policy, load_policy, save_policy
from cures_core.rollout.hf.engine import HfEngine
from cures_core.terms import FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict
from cures_core.training.losses import token_logprobs
from cures_core.training.torch_trainer import TorchTrainer

TINY = WarmStartPolicy(hidden_size=16, layers=1, heads=2)


def policy() -> Policy:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    return Policy(character_model(TINY, tokenizer).eval(), tokenizer, torch.device("cpu"))


def logprobs(p: Policy, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
    ids = torch.tensor([[*prompt, *tokens]])
    with torch.no_grad():
        logits = p.model(input_ids=ids).logits[:, len(prompt) - 1 : -1]
    return [float(x) for x in token_logprobs(logits, ids[:, len(prompt) :], 1.0)[0][0]]


def groups(p: Policy, seed: int = 0, num: int = 3) -> list[Group]:
    rng = np.random.default_rng(seed)
    out = []
    for g in range(num):
        prompt = tuple(int(x) for x in rng.integers(3, 20, rng.integers(2, 6)))
        rollouts = []
        for i in range(4):
            tokens = tuple(int(x) for x in rng.integers(3, 20, rng.integers(1, 5)))
            rollouts.append(
                Rollout(f"{g}", i, prompt, tokens, tuple(logprobs(p, prompt, tokens)), "", FinishReason.STOP)
            )
        verdicts = [Verdict(Outcome.CORRECT if i < 1 + g % 3 else Outcome.WRONG) for i in range(4)]
        out.append(Group(Request(f"{g}", Prompt(f"{g}", "", ""), 4, 0), rollouts, verdicts))
    return out


def step(cfg: TorchTrainerConfig, steps: int = 1) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    p = policy()
    trainer = TorchTrainer(p, cfg, 1.0)
    batch = groups(p)
    figures: dict[str, float] = {}
    for _ in range(steps):
        figures = dict(trainer.update(batch))
    return {k: v.detach().clone() for k, v in p.trainable().items()}, figures


def test_right_completions_become_likelier() -> None:
    p = policy()
    trainer = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3), 1.0)
    batch = groups(p)
    right = batch[0].rollouts[0]
    before = sum(logprobs(p, right.prompt_ids, right.token_ids))
    figures = trainer.update(batch)
    assert figures["updated"] == 1.0
    assert figures["logprob_gap_max"] < 1e-5
    assert sum(logprobs(p, right.prompt_ids, right.token_ids)) > before


SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
NOISY = {
    "gpt2": transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, initializer_range=0.3, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1
    ),
    "opt": transformers.OPTConfig(**SIZE, ffn_dim=64, word_embed_proj_dim=32, attention_dropout=0.1, layerdrop=0.1),
    "llama": transformers.LlamaConfig(**SIZE, intermediate_size=64, attention_dropout=0.1),
    "falcon": transformers.FalconConfig(**SIZE, hidden_dropout=0.1, attention_dropout=0.1),
    "mixtral": transformers.MixtralConfig(
        **SIZE, intermediate_size=32, num_key_value_heads=2, num_local_experts=4, router_jitter_noise=0.1
    ),
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {}) for kind in NOISY),
        ("gpt2", {"gradient_checkpointing": True}),
        ("gpt2", {"attention": "bounded"}),
        ("llama", {"attention": "bounded"}),
    ],
)
def test_a_policy_with_dropout_is_trained_as_it_was_sampled_from(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    cfg = NOISY[kind]
    cfg.update({"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})
    model = transformers.AutoModelForCausalLM.from_config(cfg, trust_remote_code=False)
    save_policy(Policy(model, tokenizer, torch.device("cpu")), tmp_path / "policy")
    p = load_policy(tmp_path / "policy", torch.device("cpu"))
    trainer = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3, **options), 1.0)
    requests = [Request(f"{i}", Prompt(f"{i}", f"{i}+1=", ""), 4, 0) for i in range(3)]
    rollouts = HfEngine(p.model, tokenizer, HfRolloutConfig(max_new_tokens=8, temperature=1.0)).generate(requests)
    verdicts = [Verdict(Outcome.CORRECT), *[Verdict(Outcome.WRONG)] * 3]
    batch = [Group(request, found, verdicts) for request, found in zip(requests, rollouts, strict=True)]
    assert trainer.update(batch)["logprob_gap_max"] < 1e-4


def test_it_says_what_the_update_made_of_every_rollout() -> None:
    """Advantages by rollout, and gaps whose mean over the tokens is the step's; none of what was left out."""
    p = policy()
    trainer = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3, micro_batch_tokens=64), 1.0)
    odd = [replace(r, logprobs=tuple(x - 0.1 * i for x in r.logprobs)) for i, r in enumerate(groups(p)[0].rollouts)]
    solved = replace(groups(p, seed=1)[2], verdicts=[Verdict(Outcome.CORRECT)] * 4)
    batch = [replace(groups(p)[0], rollouts=odd), replace(solved, rollouts=[replace(r, request_id="s") for r in odd])]
    figures = trainer.update(batch)
    assert set(trainer.credits) == {("0", i) for i in range(4)}
    for i, rollout in enumerate(odd):
        credit = trainer.credits["0", i]
        assert (credit.advantage > 0) is (i == 0)
        assert credit.logprob_gap == pytest.approx(0.1 * i, abs=1e-5)
        assert rollout.request_id == "0"
    tokens = [len(r.token_ids) for r in odd]
    whole = sum(n * trainer.credits["0", i].logprob_gap for i, n in enumerate(tokens))
    assert whole / sum(tokens) == pytest.approx(figures["logprob_gap_mean"], rel=1e-5)
    trainer.update(batch[1:])
    assert trainer.credits == {}


def test_an_engine_that_disagrees_is_bounded_and_the_share_is_told() -> None:
    p = policy()
    batch = [
        replace(g, rollouts=[replace(r, logprobs=tuple(x - 3.0 for x in r.logprobs)) for r in g.rollouts])
        for g in groups(p)
    ]
    norms = {}
    for bound in (1.5, 2.0, 1e9):
        trainer = TorchTrainer(policy(), TorchTrainerConfig(learning_rate=1e-3, importance_bound=bound), 1.0)
        figures = trainer.update(batch)
        norms[bound] = figures["grad_norm"]
        assert figures["importance_bound"] == bound
        assert figures["importance_truncated_share"] == (1.0 if bound < 20 else 0.0)
    assert norms[2.0] == pytest.approx(norms[1.5] * 2 / 1.5, rel=1e-3)
    assert norms[1e9] == pytest.approx(norms[2.0] * math.exp(3) / 2, rel=1e-3)
    honest = TorchTrainer(policy(), TorchTrainerConfig(learning_rate=1e-3), 1.0).update(groups(p))
    assert honest["importance_truncated_share"] == 0.0


def test_micro_batching_changes_no_result_beyond_float_tolerance() -> None:
    whole, a = step(TorchTrainerConfig(learning_rate=1e-3))
    split, b = step(TorchTrainerConfig(learning_rate=1e-3, micro_batch_tokens=64))
    assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
    assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
    for name, value in whole.items():
        assert torch.allclose(value, split[name], atol=2e-4), name


def test_micro_batches_sum_the_same_gradient_in_another_order() -> None:
    """What the docstring of `micro_batch_tokens` says: float tolerance, not bytes."""
    whole, _ = step(TorchTrainerConfig(learning_rate=1e-3))
    again, _ = step(TorchTrainerConfig(learning_rate=1e-3))
    split, _ = step(TorchTrainerConfig(learning_rate=1e-3, micro_batch_tokens=64))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert not all(torch.equal(value, split[name]) for name, value in whole.items())
    assert max(float((value - split[name]).abs().max()) for name, value in whole.items()) < 1e-5


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 2e-3},
        {"betas": (0.5, 0.5)},
        {"weight_decay": 0.5},
        {"grad_clip": 1e-3},
        {"advantage": "dr-grpo", "grad_clip": 0.0},
        {"loss_weight": "token", "grad_clip": 0.0},
        {"length_norm": 1.0, "grad_clip": 0.0},
        {"warmup_steps": 10},
        {"clip_low": 1e-4, "clip_high": 1e-4},
        {"clip_high": 1e-4, "clip_low": 0.2},
        {"ratio": "sequence", "grad_clip": 0.0},
        {"loss": "dapo", "grad_clip": 0.0},
        {"loss": "rloo", "grad_clip": 0.0},
        {"loss": "reinforce++", "grad_clip": 0.0},
        {"loss": "reinforce++-baseline", "grad_clip": 0.0},
        {"loss": "dr-grpo", "length_norm": 6.0, "grad_clip": 0.0},
    ],
)
def test_every_option_changes_the_result(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"learning_rate": 1e-3, "grad_clip": change.get("grad_clip", 1.0)}
    if "grad_clip" in change and len(change) == 1:
        base["grad_clip"] = 0.0
    a, _ = step(TorchTrainerConfig(**base), steps=3)
    b, _ = step(TorchTrainerConfig(**{**base, **change}), steps=3)
    assert any(not torch.equal(a[k], b[k]) for k in a)


def test_a_solved_advantage_trains_on_what_is_solved() -> None:
    p = policy()
    batch = [Group(g.request, g.rollouts, [Verdict(Outcome.CORRECT)] * 4) for g in groups(p)]
    assert TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3), 1.0).update(batch)["updated"] == 0.0
    held = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3, solved_advantage=1.0), 1.0).update(batch)
    assert held["updated"] == 1.0


def test_no_signal_changes_nothing() -> None:
    p = policy()
    trainer = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3), 1.0)
    before = {k: v.detach().clone() for k, v in p.trainable().items()}
    batch = [Group(g.request, g.rollouts, [Verdict(Outcome.WRONG)] * 4) for g in groups(p)]
    assert trainer.update(batch)["updated"] == 0.0
    assert trainer.update([])["updated"] == 0.0
    assert all(torch.equal(v, before[k]) for k, v in p.trainable().items())


def test_non_finite_gradients_update_nothing_and_stop_after_the_limit() -> None:
    p = policy()
    trainer = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3, max_bad_steps=2), 1.0)
    batch = groups(p)
    good = {k: v.detach().clone() for k, v in p.trainable().items()}
    with torch.no_grad():
        next(iter(p.trainable().values())).fill_(float("nan"))
    assert trainer.update(batch)["non_finite"] == 1.0
    with pytest.raises(TrainingDiverged, match="2 steps in a row"):
        trainer.update(batch)
    p.load_trainable(good)
    assert trainer.update(batch)["updated"] == 1.0


def test_resumed_training_equals_uninterrupted_training() -> None:
    cfg = TorchTrainerConfig(learning_rate=1e-3, warmup_steps=5)
    straight, _ = step(cfg, steps=4)
    p = policy()
    first = TorchTrainer(p, cfg, 1.0)
    batch = groups(p)
    for _ in range(2):
        first.update(batch)
    weights, optimizer, state = first.state_dict()
    saved = ({k: v.detach().clone() for k, v in weights.items()}, {k: v.clone() for k, v in optimizer.items()}, state)
    q = policy()
    second = TorchTrainer(q, cfg, 1.0)
    second.load_state_dict(*saved)
    for _ in range(2):
        second.update(batch)
    assert all(torch.equal(v, straight[k]) for k, v in q.trainable().items())


def test_adapters_train_only_themselves() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from cures_core.policy.loading import load_policy, save_policy

    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        save_policy(Policy(model, tokenizer, torch.device("cpu")), Path(folder))
        p = load_policy(folder, torch.device("cpu"), lora=LoraConfig(rank=2, alpha=4, targets=("q_proj", "v_proj")))
    assert all("lora_" in name for name in p.trainable())
    trainer = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-2), 1.0)
    frozen = {k: v.detach().clone() for k, v in p.model.named_parameters() if not v.requires_grad}
    assert trainer.update(groups(p))["updated"] == 1.0
    assert all(torch.equal(v, frozen[k]) for k, v in p.model.named_parameters() if not v.requires_grad)
    assert any(v.abs().sum() > 0 for k, v in p.trainable().items() if "lora_B" in k)


class _Limited:
    """Lets a model run out of memory on more than `limit` columns."""

    def __init__(self, model: Any, limit: int) -> None:
        self.calls: list[int] = []
        self._limit, self._forward, self._model = limit, model.forward, model
        model.forward = self.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(kwargs["input_ids"].numel())
        if self.calls[-1] > self._limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._forward(*args, **kwargs)


def test_out_of_memory_halves_micro_batches_and_keeps_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    cfg = TorchTrainerConfig(learning_rate=1e-3, micro_batch_tokens=128)
    whole, roomy = step(cfg)
    p = policy()
    trainer, batch = TorchTrainer(p, cfg, 1.0), groups(p)
    _Limited(p.model, 40)
    figures = trainer.update(batch)
    assert figures["micro_batch_tokens"] == 32.0
    assert caplog.text.count("micro-batches are halved") == 2
    assert figures["grad_norm"] == pytest.approx(roomy["grad_norm"], rel=1e-4)
    assert all(torch.allclose(v, whole[k], atol=2e-4) for k, v in p.trainable().items())
    assert trainer.state_dict()[2]["micro_batch_tokens"] == 32


@pytest.mark.parametrize(
    ("before", "limit", "old", "now", "used"),
    [
        (64, 10**6, False, 4096, 4096),  # raised
        (4096, 10**6, False, 64, 64),
        (128, 40, False, 128, 32),  # halved twice, and remembered
        (128, 40, False, 256, 256),  # halved, then set otherwise
        (128, 40, True, 128, 32),
        (4096, 10**6, True, 64, 64),
    ],
)
def test_halving_is_remembered_until_the_setting_is_another(
    before: int, limit: int, old: bool, now: int, used: int
) -> None:
    """`old`: of a checkpoint that does not say which value was configured."""
    p = policy()
    trainer, batch = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3, micro_batch_tokens=before), 1.0), groups(p)
    _Limited(p.model, limit)
    trainer.update(batch)
    weights, optimizer, state = trainer.state_dict()
    state = {name: value for name, value in state.items() if not (old and name.endswith("_configured"))}
    resumed = TorchTrainer(policy(), TorchTrainerConfig(learning_rate=1e-3, micro_batch_tokens=now), 1.0)
    resumed.load_state_dict(weights, optimizer, state)
    assert resumed.update(batch)["micro_batch_tokens"] == used


def test_out_of_memory_is_an_error_after_three_halvings() -> None:
    p = policy()
    trainer, batch = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3, micro_batch_tokens=128), 1.0), groups(p)
    before = {k: v.detach().clone() for k, v in p.trainable().items()}
    limited = _Limited(p.model, 6)
    with pytest.raises(OutOfMemory, match="gradient_checkpointing"):
        trainer.update(batch)
    assert len(limited.calls) == 4
    assert all(torch.equal(v, before[k]) for k, v in p.trainable().items())


@pytest.mark.parametrize(
    ("tokens", "checkpointing", "advised"),
    [
        (2048, False, ["training.micro_batch_tokens=128", "training.gradient_checkpointing=true"]),
        (64, False, ["training.gradient_checkpointing=true"]),
        (2048, True, ["training.micro_batch_tokens=128"]),
        (64, True, []),
    ],
)
def test_only_what_would_need_less_is_advised(tokens: int, checkpointing: bool, advised: list[str]) -> None:
    p = policy()
    cfg = TorchTrainerConfig(learning_rate=1e-3, micro_batch_tokens=tokens, gradient_checkpointing=checkpointing)
    trainer, batch = TorchTrainer(p, cfg, 1.0), groups(p)
    _Limited(p.model, 1)
    with pytest.raises(OutOfMemory) as told:
        trainer.update(batch)
    assert re.findall(r"--set (\S+)", str(told.value)) == advised
    assert "a smaller model" in str(told.value) or advised


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    p = policy()
    trainer, batch = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3), 1.0), groups(p)
    p.model.forward = lambda **_: (_ for _ in ()).throw(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        trainer.update(batch)


def test_gradient_checkpointing_changes_no_result_and_recomputes() -> None:
    plain, _ = step(TorchTrainerConfig(learning_rate=1e-3))
    p = policy()
    trainer, batch = (
        TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3, gradient_checkpointing=True), 1.0),
        groups(p),
    )
    calls: list[int] = []
    p.model.transformer.h[0].attn.register_forward_pre_hook(lambda *_: calls.append(1))
    trainer.update(batch)
    assert len(calls) == 2  # forward, and again for backward
    assert all(torch.allclose(v, plain[k], atol=1e-6) for k, v in p.trainable().items())


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_kl_to_the_base_policy(estimator: Any) -> None:
    p, reference = policy(), policy()
    batch = groups(p)
    cfg = TorchTrainerConfig(learning_rate=1e-2, kl_coef=1.0, kl_estimator=estimator, grad_clip=0.0)
    trainer = TorchTrainer(p, cfg, 1.0, reference.model)
    assert trainer.update(batch)["kl"] == pytest.approx(0.0, abs=1e-6)
    assert trainer.update(batch)["kl"] > 1e-3
    free, _ = step(TorchTrainerConfig(learning_rate=1e-2, grad_clip=0.0), steps=2)
    assert any(not torch.allclose(v, free[k], atol=1e-5) for k, v in p.trainable().items())


def test_a_kl_penalty_on_full_weights_wants_the_base_policy_and_without_one_no_copy_is_used() -> None:
    with pytest.raises(ConfigError, match="kl_coef"):
        TorchTrainer(policy(), TorchTrainerConfig(learning_rate=1e-3, kl_coef=0.1), 1.0)
    p, reference = policy(), policy()
    reference.model.forward = None
    batch = groups(p)
    assert TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3), 1.0, reference.model).update(batch)["updated"] == 1.0


def test_a_recipe_fills_in_what_the_profile_leaves_open() -> None:
    cfg = TorchTrainerConfig(learning_rate=1e-3, loss="dapo")
    assert (cfg.loss_weight, cfg.clip_high, cfg.clip_low) == ("token", 0.28, 0.2)
    assert TorchTrainerConfig(learning_rate=1e-3, loss="dapo", clip_high=0.3).clip_high == 0.3
    assert TorchTrainerConfig.model_validate_json(cfg.model_dump_json()) == cfg
    with pytest.raises(ValueError, match="length_norm"):
        TorchTrainerConfig(learning_rate=1e-3, loss="dr-grpo")
