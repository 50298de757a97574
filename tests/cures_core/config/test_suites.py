"""Suites from files of their own: what they are, what a profile may change, and that the public sets fit them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cures_core.config.evaluation import EvaluatedSuite
from cures_core.config.loading import load_config
from cures_core.errors import ConfigError, MissingInput
from cures_core.prompts import load_prompts, require_acceptable
from cures_core.rewards import make_verifier
from tests.shared_data import shared_file

SUITES = Path(__file__).resolve().parents[3] / "configs" / "suites"
PROFILE = """
[data]
path = "train.jsonl"
[rollout]
max_new_tokens = 8
[training]
learning_rate = 1e-3
[[evaluation.suites]]
"""


def loaded(folder: Path, suite: str, *overrides: str) -> EvaluatedSuite:
    (folder / "profile.toml").write_text(PROFILE + suite)
    (found,) = load_config(folder / "profile.toml", overrides).evaluation.suites
    return found


def test_every_shipped_suite_is_whole_but_for_its_file(tmp_path: Path) -> None:
    names = sorted(path.stem for path in SUITES.glob("*.toml"))
    assert names == [
        "aime24",
        "aime25",
        "amc23",
        "gaokao2023en",
        "gsm8k",
        "math500",
        "minerva",
        "olympiadbench",
        "svamp",
    ]
    for name in names:
        include = f'include = "{SUITES / name}.toml"\n'
        suite = loaded(tmp_path, f'{include}path = "{name}.jsonl"')
        assert (suite.name, suite.path) == (name, f"{name}.jsonl")
        assert suite.reward is not None
        assert suite.prompt_format is not None
        with pytest.raises(ConfigError, match=r"suites\.0\.path: missing"):
            loaded(tmp_path, include)


def test_the_docs_table_has_every_shipped_suite_with_its_verifier() -> None:
    text = (SUITES.parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = text.partition("| suite | answers | k | temperature |\n|---|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [line.split("|") for line in table.splitlines()]
    told = {name: answers.strip(" `") for _, names, answers, *_ in rows for name in re.findall(r"[a-z]\w*", names)}
    shipped = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in SUITES.glob("*.toml")}
    assert told == {name: suite["reward"]["type"] for name, suite in shipped.items()}


@pytest.mark.parametrize(
    ("name", "file", "changes", "items"),
    [
        ("math500", "math500_test", {}, 500),
        ("gsm8k", "gsm8k_test", {"answer_rule": "field"}, 1319),
        ("gsm8k", "gsm8k_test", {"columns.answer": "solution"}, 1319),
        ("minerva", "minerva_math", {}, 272),
        ("olympiadbench", "olympiadbench", {}, 675),
        ("aime24", "aime24", {}, 30),
        ("amc23", "amc23", {}, 40),
        ("svamp", "svamp", {}, 1000),
    ],
)
def test_public_sets_run_as_they_are(name: str, file: str, changes: dict[str, str], items: int, tmp_path: Path) -> None:
    path = shared_file(f"{file}.jsonl")
    more = "".join(f'{key} = "{value}"\n' for key, value in changes.items())
    suite = loaded(tmp_path, f'include = "{SUITES / name}.toml"\npath = "{path}"\n{more}')
    assert suite.reward is not None
    with make_verifier(suite.reward) as verifier:
        found = load_prompts(suite, judge=verifier)
    require_acceptable(found, suite)
    assert items * 0.97 <= len(found.prompts) <= items
    assert found.rows_read == items


def test_the_profile_s_keys_stand_above_the_included_ones(tmp_path: Path) -> None:
    (tmp_path / "exam.toml").write_text(
        'name = "exam"\nsamples = 4\n[columns]\nproblem = "q"\nanswer = "a"\n[reward]\ntype = "math"\ntimeout_s = 9.0\n'
    )
    plain = loaded(tmp_path, 'include = "exam.toml"\npath = "x"')
    assert (plain.samples, plain.columns.problem, plain.columns.answer) == (4, "q", "a")
    mine = 'include = "exam.toml"\npath = "x"\nsamples = 2\ncolumns.answer = "b"\n'
    changed = loaded(tmp_path, mine + 'reward = { type = "numeric" }')
    assert (changed.samples, changed.columns.problem, changed.columns.answer) == (2, "q", "b")
    assert changed.reward is not None
    assert changed.reward.type == "numeric"
    joined = loaded(tmp_path, mine + "reward.workers = 3")
    assert joined.reward is not None
    assert joined.reward.model_dump(include={"type", "timeout_s", "workers"}) == {
        "type": "math",
        "timeout_s": 9.0,
        "workers": 3,
    }
    assert loaded(tmp_path, 'include = "exam.toml"', "evaluation.suites.0.path=y").path == "y"


def test_bad_includes_are_told(tmp_path: Path) -> None:
    (tmp_path / "loop.toml").write_text('include = "loop.toml"')
    (tmp_path / "odd.toml").write_text("name = ")
    with pytest.raises(MissingInput, match=r"evaluation\.suites\.0\.include: no file none\.toml"):
        loaded(tmp_path, 'include = "none.toml"')
    with pytest.raises(ConfigError, match="cannot include another"):
        loaded(tmp_path, 'include = "loop.toml"')
    with pytest.raises(ConfigError, match=r"odd\.toml: not valid TOML"):
        loaded(tmp_path, 'include = "odd.toml"')
    with pytest.raises(ConfigError, match="is not the path"):
        loaded(tmp_path, "include = 3")
    with pytest.raises(ConfigError, match=r"suites\.0\.colour: no such key"):
        loaded(tmp_path, 'name = "a"\npath = "x"\ncolour = 1')
