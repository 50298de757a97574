"""How long a prompt may be, by the context of the policy and the length of completions."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from cures_core.config.rollout import HfRolloutConfig, RolloutConfig
from cures_core.errors import ConfigError
from cures_core.planning.shape import model_config
from cures_core.rollout.room import context_of, planned_context, prompt_room

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def context(model_type: str, **values: Any) -> Any:
    return context_of(model_config({"model_type": model_type, **values}))


@pytest.mark.parametrize(
    ("architecture", "tokens"),
    [
        ({"model_type": "llama", "max_position_embeddings": 64}, 64),
        ({"model_type": "gpt2", "n_positions": 32}, 32),  # by another name
        ({"model_type": "llama"}, 2048),  # what transformers takes where nothing is said
        ({"model_type": "bloom"}, None),
    ],
)
def test_the_context_is_what_transformers_makes_of_config_json(
    architecture: dict[str, Any], tokens: int | None
) -> None:
    found = context(**architecture)
    assert (None if found is None else found.tokens) == tokens


@pytest.mark.parametrize(
    ("rollout", "rope", "tokens"),
    [
        ({"type": "hf"}, None, 64),
        ({"type": "hf"}, YARN, 64),
        ({"type": "vllm"}, None, 64),
        ({"type": "vllm"}, YARN, None),  # vLLM multiplies
        ({"type": "vllm", "max_model_len": 48}, YARN, 48),
        ({"type": "vllm_server", "endpoints": ["http://127.0.0.1:8000"]}, None, 64),
    ],
)
def test_the_context_of_an_engine_is_known_before_there_is_one(
    rollout: dict[str, Any], rope: dict[str, Any] | None, tokens: int | None
) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(RolloutConfig)
    own = context("llama", max_position_embeddings=64, rope_scaling=rope)
    found = planned_context(adapter.validate_python(rollout), own)
    assert (None if found is None else found.tokens) == tokens


def test_completions_that_leave_no_room_are_refused_by_the_setting_s_name() -> None:
    assert prompt_room(HfRolloutConfig(max_new_tokens=63), 64) == 1
    with pytest.raises(ConfigError, match=r"evaluation\.suites\.exam\.max_new_tokens = 64 leaves no room .* Lower it"):
        prompt_room(HfRolloutConfig(max_new_tokens=64), 64, "evaluation.suites.exam.max_new_tokens")
