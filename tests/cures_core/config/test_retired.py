"""What a configuration can no longer say: whoever says it is told why, and what was kept is still read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cures_core.config.curriculum import CurriculumConfig, CustomConfig, PosteriorConfig
from cures_core.config.loading import dotted_keys, load_config
from cures_core.config.retired import TABLE, readable, reasons, retired_in
from cures_core.config.run import RunConfig
from cures_core.curriculum.strategies.custom import check_strategy
from cures_core.errors import ConfigError

PROFILE = Path("configs/quickstart.toml")
SHAPE: dict[str, Any] = {"prompts_per_step": 4, "rollouts_per_step": 64}
RIVALS = ("arc", "gvm", "mopps", "speed", "cures-official")
CURES: dict[str, Any] = {"type": "cures", **SHAPE}

CASES: list[tuple[dict[str, Any], str]] = [  # of the section `curriculum`
    *(({"type": name, **SHAPE}, rf'type = "{name}" was taken out in 0\.2\.0') for name in RIVALS),
    ({**CURES, "posterior": {"drift": 0.3}}, r"posterior\.drift = 0\.3 was taken out in .* lower .*fading"),
    ({**CURES, "posterior": {"lag": "fitted"}}, r'posterior\.lag = "fitted" was taken out in .* lower .*fading'),
    ({**CURES, "weighting": {"type": "ess", "share": 0.2}}, r'weighting\.type = "ess" was taken out .*"proportional"'),
    (
        {**CURES, "allocation": {"type": "neyman", "sigma": "gradient"}},
        r'allocation\.sigma = "gradient" was taken out .*equal groups',
    ),
    ({**CURES, "signal": "informative"}, r'signal = "informative" was taken out .*take that'),
    ({**CURES, "signal": "expected_spread"}, r'signal = "expected_spread" was taken out .*"expected_variance"'),
]
UNUSED: dict[str, Any] = {
    **CURES,
    "posterior": {"drift": 0.0, "lag": "ignored"},
    "allocation": {"type": "neyman", "sigma": "spread"},
}
"""As earlier versions wrote out what they did not use."""


def kept(curriculum: dict[str, Any]) -> dict[str, Any]:
    """A configuration with this section, as an earlier version might have noted it."""
    plain = {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1e-3}}
    return {**RunConfig.model_validate(plain).model_dump(mode="json"), "curriculum": curriculum}


def test_every_row_of_the_table_has_a_case() -> None:
    used = [retired_in({"curriculum": section}) for section, _ in CASES]
    used.append(retired_in({"training": {"kl_estimator": "k1"}}))
    found = {(key, json.dumps(value)) for one in used for key, value in one.items()}
    rows = {(row.key, json.dumps(value)) for row in TABLE for value in row.values or ()}
    assert rows <= found
    assert {row.key for row in TABLE} == {key for key, _ in found}


def test_no_row_forbids_what_there_is() -> None:
    keys = set(dotted_keys(RunConfig))
    assert [row.key for row in TABLE if not row.values and row.key in keys] == []


@pytest.mark.parametrize(("section", "words"), CASES)
def test_it_is_told_in_a_profile_by_set_and_by_the_api(section: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"1 bad field\n  curriculum: {words}") as told:
        load_config(PROFILE, [f"curriculum={_toml(section)}"])
    assert "(got" not in str(told.value)
    profile = tmp_path / "old.toml"
    profile.write_text(f"{PROFILE.read_text().partition('[curriculum')[0]}\n[curriculum]\n{_lines(section)}")
    with pytest.raises(ConfigError, match=words):
        load_config(profile, ["rollout.max_new_tokens=6", "training.learning_rate=1e-3"])
    with pytest.raises(ValidationError, match=words):
        RunConfig.model_validate(kept(section))
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(CurriculumConfig).validate_python(section)


def test_it_is_told_of_every_section_at_once() -> None:
    with pytest.raises(ConfigError) as told:
        load_config(PROFILE, ["training.kl_estimator=k1", "curriculum.signal=informative"])
    assert "2 bad fields" in str(told.value)
    assert re.search(r'  training: kl_estimator = "k1" was taken out in 0\.2\.0: .*take "k3"', str(told.value))
    read = RunConfig.model_validate(readable({**kept(CURES), "training": {"learning_rate": 1, "kl_estimator": "k1"}}))
    assert read.training.kl_estimator == "k3"


def test_it_is_told_whatever_stands_there() -> None:
    with pytest.raises(ConfigError, match=r'posterior\.drift = "2020-01-01" was taken out'):
        load_config(PROFILE, ["curriculum.posterior.drift=2020-01-01"])
    with pytest.raises(ConfigError, match=r"posterior\.drift = \[1, \{\}\] was taken out"):
        load_config(PROFILE, ["curriculum.posterior.drift=[1,{}]"])


def test_it_is_told_who_makes_a_posterior_in_python() -> None:
    with pytest.raises(ValidationError, match=r"drift = 0\.3 was taken out in 0\.2\.0"):
        PosteriorConfig(drift=0.3)  # type: ignore[call-arg]
    assert PosteriorConfig.model_validate({"drift": 0.0}) == PosteriorConfig()


def test_a_flow_refuses_it_as_a_parameter() -> None:
    from prefect.exceptions import ParameterTypeError

    from flows.train import train

    with pytest.raises(ParameterTypeError, match=r"posterior\.drift = 0\.3 was taken out in 0\.2\.0"):
        train.validate_parameters({"config": kept(CASES[5][0])})


def test_the_command_ends_with_2_and_the_reason() -> None:
    command = [sys.executable, "-m", "flows.cli.main", "run", "--config", str(PROFILE), "--set", "curriculum.type=arc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'type = "arc" was taken out in 0.2.0' in done.stderr
    assert "Traceback" not in done.stderr


def test_what_only_said_that_it_is_not_used_passes() -> None:
    cfg = TypeAdapter(CurriculumConfig).validate_python(UNUSED)
    assert cfg == TypeAdapter(CurriculumConfig).validate_python({**CURES, "allocation": {"type": "neyman"}})
    assert reasons(kept(UNUSED)) == []


@pytest.mark.parametrize("name", RIVALS)
def test_the_lines_that_are_told_run_the_rival(name: str) -> None:
    """With the settings that the profile had."""
    own = {"mopps": {"target": 0.4}, "gvm": {"alpha": 0.5}, "cures-official": {"probe": 2}}.get(name, {})
    section = {"type": name, **SHAPE, **own, "posterior": {"group_strength": 3.0}}
    with pytest.raises(ConfigError) as told:
        load_config(PROFILE, [f"curriculum={_toml(section)}"])
    found = re.search(r"\[curriculum\] (.*), with CURES_PLUGINS=(\S+) in", str(told.value))
    assert found is not None
    cfg = load_config(PROFILE, [f"curriculum={{{found[1]}}}"]).curriculum
    assert isinstance(cfg, CustomConfig)
    check_strategy(cfg)
    assert (cfg.prompts_per_step, cfg.rollouts_per_step) == (4, 64)
    assert cfg.options == own
    assert cfg.posterior.group_strength == 3.0
    assert cfg == RunConfig.model_validate(readable(kept(section))).curriculum
    assert found[2] == "benchmarks.curriculum.rivals.*"


@pytest.mark.parametrize(("section", "words"), CASES)
def test_what_was_kept_is_read_and_says_what_it_used(section: dict[str, Any], words: str) -> None:
    believed = {**PosteriorConfig().model_dump(), "drift": 0.0, **section.get("posterior", {})}
    config = kept({**section, "posterior": believed})
    before = json.dumps(config)
    read = RunConfig.model_validate(readable(config))
    assert read.curriculum.rollouts_per_step == 64
    assert json.dumps(config) == before
    (reason,) = reasons(config)
    assert re.search(words, reason)
    assert RunConfig.model_validate(readable(read.model_dump(mode="json"))) == read


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


def _lines(section: dict[str, Any]) -> str:
    text = "\n".join(f"{name} = {_toml(value)}" for name, value in section.items())
    assert tomllib.loads(text) == section
    return text
