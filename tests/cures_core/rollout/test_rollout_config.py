"""Bad prompt formats and sampling options are refused when the configuration is read."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cures_core.config.rollout import HfRolloutConfig, PromptFormat


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
