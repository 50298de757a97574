"""What is said of a bad configuration."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from cures_core.config.loading import dotted_keys, load_config
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError

PROFILE = Path("configs/quickstart.toml")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("curriculum.posterior.fading=2", "curriculum.posterior.fading: Input should be less than or equal to 1, or "),
        ("curriculum.posterior.strength=fited", "or Input should be 'fitted' (got 'fited')"),
        ("curriculum.posterior.dead_prior=1.5", "curriculum.posterior.dead_prior: Input should be less than 1"),
        ("curriculum.posterior.fadin=0.9", "the nearest one is curriculum.posterior.fading"),
        ("epochs={a=1}", "epochs: Input should be a valid integer (got a table)"),
        ("seed=[1]", "seed: Input should be a valid integer (got a list)"),
        (
            "evaluation.suites=[]",
            "or run a copy of the profile without its [promotion]\n",
        ),  # what it got is said before
    ],
)
def test_one_line_names_the_field_and_what_it_takes(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(PROFILE, [override])
    assert said in f"{caught.value}\n"
    assert "1 bad field\n" in str(caught.value)


def test_keys_of_another_type_of_a_table_are_not_called_misspelt() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(PROFILE, ["prior.type=none"])
    remedy = """--set 'prior={type = "none"}'"""
    assert 'prior.budget: prior.type = "none" has no such key, another type has; leave it out, or ' in str(caught.value)
    assert str(caught.value).count(remedy) == 2
    assert load_config(PROFILE, [remedy.removeprefix("--set '").removesuffix("'")]).prior.type == "none"


def test_the_type_that_lacks_a_key_is_the_innermost_one() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(PROFILE, ["curriculum.weighting.type=softmax", "curriculum.weighting.power=1"])
    assert 'curriculum.weighting.type = "softmax" has no such key' in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_config(PROFILE, ["curriculum.type=uniform", "curriculum.weighting.type=softmax"])
    assert 'curriculum.weighting: curriculum.type = "uniform" has no such key' in str(caught.value)


def test_the_baseline_of_the_docs_is_a_configuration() -> None:
    text = Path("docs/curriculum.md").read_text().replace("\\\n", " ")
    command = re.search(r"cures run (--config .*uniform.*)", text)
    assert command is not None
    words = shlex.split(command[1])
    cfg = load_config(Path(words[1]), [after for word, after in itertools.pairwise(words) if word == "--set"])
    assert cfg.curriculum.type == "uniform"
    assert cfg.prior.type == "none"


def test_every_seed_is_one_that_all_generators_take() -> None:
    """A larger one failed in the prior's process, three times."""

    def setting(key: str, value: int) -> str:
        if key == "policy.warm_start.seed":  # of another type of policy than the profile's
            return f'policy={{type = "pretrained", path = "m", warm_start = {{seed = {value}}}}}'
        return f"{key}={value}"

    seeds = [key for key in dotted_keys(RunConfig) if key.rsplit(".", 1)[-1] == "seed"]
    assert {"seed", "policy.seed", "evaluation.seed"} <= set(seeds)
    for key in seeds:
        for value in (2**63, 2**64, 2**100, -1):
            with pytest.raises(ConfigError, match=rf"{key}: Input should be (less|greater) than or equal to"):
                load_config(PROFILE, [setting(key, value)])
        load_config(PROFILE, [setting(key, 2**63 - 1)])


def test_the_largest_seed_serves_all_generators() -> None:
    import numpy as np
    import torch

    from cures_core.config.device import DeviceConfig
    from cures_core.policy.loading import setup_torch
    from cures_core.rollout.hf.sampling import uniforms

    setup_torch(DeviceConfig(type="cpu"), 2**63 - 1)
    assert torch.initial_seed() == 2**63 - 1
    np.random.default_rng([2**63 - 1, 4])
    assert uniforms([(2**63 - 1, "p", 0)], 3).shape == (1, 3)


BAD = 'seed = -1\n[data]\npath = "a.jsonl"\n[rollout]\nmax_new_tokens = 0\n[training]\nlearning_rate = 1e-4\n'
GOOD = BAD.replace("-1", "1").replace("max_new_tokens = 0", "max_new_tokens = 8")


@pytest.mark.parametrize(
    ("profile", "overrides", "of_profile", "of_set"),
    [
        (BAD, [], ["rollout.max_new_tokens", "seed"], []),
        (GOOD, ["seed=-2", "epohs=3"], [], ["epohs", "seed"]),
        (BAD, ["epochs=0"], ["rollout.max_new_tokens", "seed"], ["epochs"]),
        (BAD, ["seed=-2"], ["rollout.max_new_tokens"], ["seed"]),
        (BAD, ["seed=0", "rollout.max_new_tokens=4", "training.learning_rate=x"], [], ["training.learning_rate"]),
        (GOOD, ["promotion={model='m', suites=['gone']}"], [], ["the configuration"]),
    ],
)
def test_a_fault_is_blamed_on_what_was_typed(
    profile: str, overrides: list[str], of_profile: list[str], of_set: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "p.toml"
    path.write_text(profile)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    origin, blamed = "", dict[str, list[str]]()
    for line in str(caught.value).splitlines():
        if line.startswith("  "):
            blamed[origin].append(line.partition(":")[0].strip())
        else:
            origin = line.rpartition(": ")[0]
            blamed[origin] = []
    expected = {str(path): of_profile, "--set": of_set}
    assert {typed: sorted(keys) for typed, keys in blamed.items()} == {o: k for o, k in expected.items() if k}
