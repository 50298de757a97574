"""What is said of a bad configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from cures_core.config.loading import load_config
from cures_core.errors import ConfigError

PROFILE = Path("configs/quickstart.toml")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("curriculum.posterior.fading=2", "curriculum.posterior.fading: Input should be less than or equal to 1, or "),
        ("curriculum.posterior.strength=fited", "or Input should be 'fitted' (got 'fited')"),
        ("curriculum.posterior.dead_prior=1.5", "curriculum.posterior.dead_prior: Input should be less than 1"),
        ("curriculum.posterior.fadin=0.9", "the nearest one is curriculum.posterior.fading"),
    ],
)
def test_one_line_names_the_field_and_what_it_takes(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(PROFILE, [override])
    assert said in str(caught.value)
    assert "1 bad field\n" in str(caught.value)
