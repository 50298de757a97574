"""Rollouts, tokens and seconds of a profile, counted by hand."""

from __future__ import annotations

import pytest

from cures_core.config.loading import load_config
from cures_core.config.run import RunConfig
from cures_core.planning.costs import Rates, expected_tokens, most_tokens, rollouts, seconds
from tests.end_to_end.pipeline import PROJECT

SUITES = {"heldout": 400, "frontier": 400}


def quickstart(*overrides: str) -> RunConfig:
    return load_config(PROJECT / "configs" / "quickstart.toml", overrides)


def test_the_quickstart() -> None:
    cfg = quickstart()
    counts = rollouts(cfg, 1600, SUITES)
    assert counts == {"prior": 256, "training": 4 * 100 * 64, "evaluation": 5 * 800 * 5}
    assert most_tokens(cfg, counts, SUITES) == {part: 6 * number for part, number in counts.items()}
    rates = Rates("a run", {"prior": 4.0, "training": 3.5, "evaluation": 3.0},
                  {"prior": 0.01, "training": 0.02, "evaluation": 0.03}, {"policy": 60.0})  # fmt: skip
    assert expected_tokens(counts, rates) == {"prior": 1024, "training": 89_600, "evaluation": 60_000}
    assert seconds(counts, rates) == pytest.approx(
        {"policy": 60.0, "prior": 2.56, "training": 512.0, "evaluation": 600.0}
    )


@pytest.mark.parametrize(
    ("overrides", "part", "number"),
    [
        (['prior={type="none"}'], "prior", 0),
        (['prior={type="full",rollouts_per_prompt=4}'], "prior", 6400),
        (["prior.budget=7"], "prior", 6),  # whole prompts of two rollouts
        (["prior.budget=100000"], "prior", 3200),
        (["epochs=2"], "training", 12_800),
        (["evaluation.when=ends"], "evaluation", 2 * 800 * 5),
        (["evaluation.suites.0.limit=10"], "evaluation", 5 * 410 * 5),
        (["evaluation.suites.0.greedy=false"], "evaluation", 5 * (400 * 4 + 400 * 5)),
    ],
)
def test_every_setting_counts(overrides: list[str], part: str, number: int) -> None:
    assert dict(rollouts(quickstart(*overrides), 1600, SUITES))[part] == number


def test_a_suite_has_its_own_limit_of_tokens() -> None:
    cfg = quickstart("evaluation.suites.0.max_new_tokens=60", "evaluation.when=ends")
    counts = rollouts(cfg, 1600, SUITES)
    assert most_tokens(cfg, counts, SUITES)["evaluation"] == 2 * (400 * 5 * 60 + 400 * 5 * 6)
