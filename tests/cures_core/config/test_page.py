"""docs/settings.md is what its script writes, names every setting, and its marks are those that `--resume` goes by."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cures_core.config.loading import dotted_keys, load_config
from cures_core.config.marks import Mark, leaves
from cures_core.config.run import RunConfig
from tests.cures_core.config.page import PAGE, page
from tests.end_to_end.pipeline import PROJECT

TEXT = PAGE.read_text(encoding="utf-8")
ROWS = [re.split(r"\s*(?<!\\)\|\s*", line)[1:-1] for line in TEXT.splitlines() if line.startswith("| `")]
"""Cells of the tables: setting, value, default, mark, meaning."""


def test_the_page_is_what_the_script_writes() -> None:
    assert page(TEXT) == TEXT, "write it anew: python -m tests.cures_core.config.page"


def test_every_setting_is_named() -> None:
    names = {setting.strip("`").rsplit(".", 1)[-1] for setting, *_ in ROWS}
    assert {key.rsplit(".", 1)[-1] for key in dotted_keys(RunConfig)} == names


def test_bounds_choices_and_defaults_are_said() -> None:
    rows = {row[0].strip("`"): row[1:4] for row in ROWS}
    for key, said in {
        "training.clip_low": ["number, above 0, below 1", "`0.2`", "result, fork"],
        "training.ratio": ["`token`, `sequence`", '`"token"`', "result, fork"],
        "training.type": ["`torch`, `torchrun`, `deepspeed`", "`torch`", "result"],
        "rollout.type": ["`hf`, `vllm`, `vllm_server`", "`hf`", "result, fork"],
        "rollout.block_tokens": ["integer, 16 or more, a multiple of 16", "`32`", "operation"],
        "curriculum.posterior.fading": ["number, 0 to 1 or `fitted`", "`0.97`", "result"],
        "reward.model": ["text, 1 to 200 characters", "required", "result"],
        "data.path": ["text", "required", "placement"],
        "policy.warm_start": ["[table](#policywarm_start)", "none", ""],
        "evaluation.suites": ["[list of tables](#evaluationsuitesn)", "`[]`", ""],
        "curriculum": [
            "[table](#curriculum)",
            '`{type = "cures", prompts_per_step = 32, rollouts_per_step = 256}`',
            "",
        ],
    }.items():
        assert rows[key] == said, key


@pytest.mark.parametrize("profile", sorted((PROJECT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_marks_are_those_that_a_run_goes_by(profile: Path) -> None:
    found = {re.sub(r"\.\d+(?=\.)", ".N", leaf.path): leaf for leaf in leaves(load_config(profile))}
    told = {key: mark for setting, _, _, mark, _ in ROWS if (key := setting.strip("`")) in found and mark}
    assert len(told) > 60
    fork = {key for key, leaf in found.items() if leaf.mark is Mark.RESULT and not leaf.settled}
    assert told == {key: "result, fork" if key in fork else str(found[key].mark) for key in told}
