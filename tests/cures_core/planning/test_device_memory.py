"""Sizes of policies and the memory they take, beside hand counts and what autograd really keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cures_core.config.loading import load_config
from cures_core.config.policy import WarmStartPolicy
from cures_core.config.run import RunConfig
from cures_core.config.training import LoraConfig
from cures_core.errors import ConfigError, MissingInput
from cures_core.planning.device_memory import Memory, activation_bytes, memory
from cures_core.planning.shape import Shape, pretrained_shape, read_architecture, warm_start_shape
from cures_core.policy.characters import character_model, character_tokenizer
from tests.end_to_end.pipeline import PROJECT

CONFIGS = PROJECT / "configs"
TINY_QWEN2: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


def architecture(name: str) -> dict[str, Any]:
    return read_architecture(Path("nowhere"), CONFIGS / "architectures" / f"{name}.json")


@pytest.mark.parametrize(("name", "parameters"), [("1.5b", 1_543_714_304), ("7b", 7_615_616_512)])
def test_the_published_numbers_of_parameters(name: str, parameters: int) -> None:
    shape = pretrained_shape(architecture(f"qwen2.5-math-{name}"))
    assert (shape.parameters, shape.trained, shape.gated) == (parameters, parameters, True)


def test_adapters_are_what_is_trained() -> None:
    # q 64 -> 64, v 64 -> 32 in three layers
    shape = pretrained_shape(TINY_QWEN2, (8, ("q_proj", "v_proj")))
    assert shape.trained == 8 * 3 * ((64 + 64) + (64 + 32))
    assert shape.parameters == pretrained_shape(TINY_QWEN2).parameters
    for targets in (("wrong",), ("q_proj", "wrong"), ("mlp", "wrong"), ("norm", "wrong")):  # peft takes no such layers
        with pytest.raises(
            ConfigError, match=r"lora.targets: no layer .* is called .*wrong; there are down_proj, .*q_proj"
        ):
            pretrained_shape(TINY_QWEN2, (8, targets))


def test_of_the_default_targets_a_model_need_not_have_all() -> None:
    """GPT-NeoX has none of those names, Phi some."""
    usual = LoraConfig()
    phi = {"model_type": "phi", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}
    assert pretrained_shape(phi, (2, usual.targets)).trained == 2 * 3 * (64 + 64)
    with pytest.raises(ConfigError, match="there are dense"):
        pretrained_shape({**phi, "model_type": "gpt_neox"}, (2, usual.targets))


def test_a_context_without_a_limit_is_none() -> None:
    bloom = {"model_type": "bloom", "hidden_size": 64, "n_layer": 1, "n_head": 2, "vocab_size": 30}
    assert pretrained_shape(bloom).context is None


def test_a_missing_or_wrong_architecture_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"--architecture"):
        read_architecture(tmp_path / "model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="model_type"):
        read_architecture(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_architecture(tmp_path)
    with pytest.raises(ConfigError, match="magic"):
        pretrained_shape({"model_type": "magic"})


def kept_for_backward(model: Any, columns: int) -> int:
    """Bytes of what autograd keeps of one row, weights and attention masks aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.arange(columns).remainder(20)[None]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_activations_are_what_autograd_keeps(dtype: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    rest = {key: value for key, value in TINY_QWEN2.items() if key != "model_type"}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("qwen2", **rest), dtype=getattr(torch, dtype), trust_remote_code=False
    ).train()
    size = 2 if dtype == "bfloat16" else 4
    planned = 96 * activation_bytes(pretrained_shape(TINY_QWEN2), size, profile("1.5b", checkpointing=False).training)
    assert planned == pytest.approx(kept_for_backward(model, 96), rel=0.25)


@pytest.mark.parametrize("function", ["gelu_pytorch_tanh", "gelu_new"])
def test_activations_of_the_small_policy(function: str) -> None:
    """Its own function, and GPT-2's in several operations."""
    from transformers import GPT2LMHeadModel

    cfg = WarmStartPolicy()
    made = character_model(cfg, character_tokenizer()).config
    shape = warm_start_shape(cfg)
    assert made.activation_function == "gelu_pytorch_tanh"
    if function != made.activation_function:
        made.activation_function = function
        values = made.to_dict()
        shape = pretrained_shape(values)
        assert shape.stepwise
    training = load_config(CONFIGS / "quickstart.toml").training
    planned = 48 * activation_bytes(shape, 4, training)
    assert planned == pytest.approx(kept_for_backward(GPT2LMHeadModel(made).train(), 48), rel=0.25)


def profile(name: str, *overrides: str, checkpointing: bool = True) -> RunConfig:
    changed = [*overrides, f"training.gradient_checkpointing={str(checkpointing).lower()}"]
    return load_config(CONFIGS / f"qwen2.5-math-{name}.toml", changed)


SHAPE = Shape(
    "Any", parameters=1000, trained=1000, layers=2, hidden=8, feed_forward=16, keys=4, vocabulary=10, context=4096,
    gated=True,
)  # fmt: skip


def needs(*overrides: str, shape: Shape = SHAPE) -> Memory:
    return memory(profile("7b", *overrides), shape, 4096)


def test_zero_shares_out_what_it_says() -> None:
    # 8 ranks; bfloat16 weights, float32 masters and moments
    first, second, third = (needs(f"training.zero_stage={stage}") for stage in (1, 2, 3))
    assert (first.weights, first.masters, first.optimizer, first.gradients) == (2000, 500, 1000, 2000)
    assert (second.weights, second.masters, second.optimizer, second.gradients) == (2000, 500, 1000, 500)
    assert (third.weights, third.gradients, third.whole) == (250, 500, 2000)
    moved = needs("training.zero_stage=3", "training.offload_optimizer=true", "training.offload_parameters=true")
    assert (moved.weights, moved.masters, moved.optimizer, moved.host) == (0, 0, 0, 1750)


def test_one_process_holds_everything() -> None:
    base = 'training={type="torch",learning_rate=1e-6'
    whole = needs(base + "}")
    assert (whole.weights, whole.masters, whole.optimizer, whole.gradients) == (2000, 4000, 8000, 4000)
    plain = needs(base + ",master_weights=false}")
    assert (plain.masters, plain.optimizer, plain.gradients) == (0, 4000, 2000)


def test_logits_are_made_of_completions_alone() -> None:
    small = "curriculum.prompts_per_step=8", "curriculum.rollouts_per_step=16"  # two rollouts a rank
    assert needs(*small, "rollout.max_new_tokens=3").logits == 2 * (2 * 3) * 10 * 2
    assert needs(*small, "rollout.max_new_tokens=3").activations == needs(*small).activations


def test_the_engine_counts_where_it_is_awake() -> None:
    asleep, awake = needs(), needs("rollout.sleep_level=0")
    assert asleep.generation == awake.generation == 2000 + 16 * 2**30
    assert (asleep.resting, awake.resting) == (0, awake.generation)
    assert awake.update - asleep.update == awake.generation
    assert needs('rollout={type="hf",batch_rows=3,max_new_tokens=8}').generation == (
        3 * 4096 * (2 * 2 * 4 * 2) + 3 * 10 * (2 + 8)
    )
    assert needs('rollout={type="vllm_server",endpoints=["http://127.0.0.1:1"]}').generation == 0


def test_a_cache_that_steps_were_captured_on_stays_in_an_update() -> None:
    def plan(device: str, decoding: str) -> Memory:
        engine = f'rollout={{type="hf",batch_rows=3,max_new_tokens=8,decoding="{decoding}"}}'
        return needs(engine, f"device.type={device}")

    assert [plan("cuda", how).resting > 0 for how in ("auto", "static", "eager")] == [True, True, False]
    assert plan("cuda", "auto").update - plan("cuda", "eager").update == plan("cuda", "auto").generation
    assert plan("cpu", "auto").resting == 0


def test_the_reference_and_checkpointing() -> None:
    assert needs().reference == 2000
    assert needs("training.kl_coef=0").reference == 0
    assert needs("training.lora={rank=1}").reference == 0
    layer = 2 * (7 * 8 + 4 * 16) + 2 * (4 + 2) * 8
    assert needs().activations == 16384 * (2 * 2 * 8 + layer)
    assert memory(profile("7b", checkpointing=False), SHAPE, 4096).activations == 16384 * 2 * layer
    small = needs(
        "curriculum.prompts_per_step=4", "curriculum.rollouts_per_step=16", "training.micro_batch_tokens=65536"
    )
    assert small.activations == 2 * 4096 * (2 * 2 * 8 + layer)  # a rank's share of the step: two rollouts
