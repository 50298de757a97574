"""Bad prompt formats and sampling options are refused when the configuration is read."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cures_core.config.marks import Mark, marked_fields, results
from cures_core.config.rollout import (
    HfRolloutConfig,
    PromptFormat,
    RolloutConfig,
    VllmRolloutConfig,
    VllmServerRolloutConfig,
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"template": "Solve:"}, "exactly once"),
        ({"template": "{problem} {problem}"}, "exactly once"),
        ({"stop": [""]}, "empty string"),
        ({"system": "Be brief."}, "chat is false"),
    ],
)
def test_bad_prompt_format_is_refused_with_the_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PromptFormat(**fields)


@pytest.mark.parametrize(
    "fields",
    [{"temperature": -0.1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0}, {"batch_rows": 0}, {"beams": 4}],
)
def test_bad_sampling_options_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HfRolloutConfig(**fields)


def test_temperature_zero_is_greedy() -> None:
    assert HfRolloutConfig(temperature=0).greedy
    assert not HfRolloutConfig(temperature=0.1).greedy


def test_config_survives_json() -> None:
    cfg = HfRolloutConfig(prompt_format=PromptFormat(template=r"\boxed{} {problem}", stop=("\n",)), top_p=0.9)
    assert HfRolloutConfig.model_validate_json(cfg.model_dump_json()) == cfg


ROLLOUT: TypeAdapter[Any] = TypeAdapter(RolloutConfig)


def test_a_profile_without_an_engine_means_hf() -> None:
    assert ROLLOUT.validate_python({"max_new_tokens": 5}) == HfRolloutConfig(max_new_tokens=5)
    assert ROLLOUT.validate_json('{"top_p": 0.5}') == HfRolloutConfig(top_p=0.5)


def test_the_engine_is_chosen_by_its_type() -> None:
    assert isinstance(ROLLOUT.validate_python({"type": "vllm"}), VllmRolloutConfig)
    with pytest.raises(ValidationError, match="batch_rows"):
        ROLLOUT.validate_python({"type": "vllm", "batch_rows": 4})
    with pytest.raises(ValidationError, match="'hf', 'vllm', 'vllm_server'"):
        ROLLOUT.validate_python({"type": "sglang"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"endpoints": ["10.0.0.7:8000"]}, "http://HOST:PORT"),
        ({"endpoints": ["http://10.0.0.7:8000/v1"]}, "http://HOST:PORT"),
        ({"endpoints": ["http://localhost:1", "http://localhost:1/"]}, "named twice"),
        ({"endpoints": ["http://10.0.0.7:8000"]}, "set weights_folder to a folder that both see"),
        ({"endpoints": ["http://localhost:1"], "kv_cache_gib": 2}, "kv_cache_gib: for a server that is started here"),
        ({"top_p": 0.9, "temperature": 0.7}, "top_p = 1 or temperature = 1"),
    ],
)
def test_bad_servers_are_refused_with_the_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VllmServerRolloutConfig(**fields)


def test_a_fleet_on_other_machines_survives_json() -> None:
    cfg = VllmServerRolloutConfig(
        endpoints=("http://10.0.0.7:8000", "http://10.0.0.8:8000"), weights_folder="/shared/w"
    )  # type: ignore[arg-type]
    assert ROLLOUT.validate_json(cfg.model_dump_json()) == cfg


def test_vllm_refuses_a_cut_whose_log_probabilities_it_cannot_give() -> None:
    with pytest.raises(ValidationError, match="top_p = 1 or temperature = 1"):
        VllmRolloutConfig(top_p=0.9, temperature=0.7)
    assert VllmRolloutConfig(top_p=0.9).logprobs_known


def test_servers_may_move_without_doing_stages_again() -> None:
    here = VllmServerRolloutConfig(endpoints=("http://localhost:1",))
    there = VllmServerRolloutConfig(endpoints=("http://localhost:2", "http://localhost:3"), call_timeout_s=9)
    assert results(here) == results(there)
    assert results(here) != results(VllmServerRolloutConfig(max_new_tokens=5))
    assert results(VllmRolloutConfig()) != results(HfRolloutConfig())


def test_no_time_limit_is_a_result() -> None:
    marks = dict(marked_fields(VllmRolloutConfig)) | dict(marked_fields(VllmServerRolloutConfig))
    limits = {name: found for name, found in marks.items() if name.endswith("_timeout_s")}
    assert len(limits) >= 6
    assert set(limits.values()) == {(Mark.OPERATION,)}
