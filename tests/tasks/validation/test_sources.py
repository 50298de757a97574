"""Mixed sets: each gold answer is checked by its own verifier, and names written wrongly are found before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet
from tasks.validation import validate
from tasks.validation.golds import gold_judges
from tasks.validation.sources import require_sources
from tests.cures_core.prompts.files import jsonl

ROWS: list[dict[str, Any]] = [
    {"problem": "How many are 3 and 4?", "answer": "7", "source": "sums"},
    {"problem": "How many are 3 and 5?", "answer": "eight", "source": "sums"},
    {"problem": "Which letter is third, of A, B and C?", "answer": "C", "source": "quiz"},
    {"problem": "Which letter is fourth, of A, B and C?", "answer": "7", "source": "quiz"},
    {"problem": "Write the word abc backwards.", "answer": "cba", "source": "words"},
    {"problem": "Which number is it?", "answer": "7", "source": "quiz", "checker": "numeric"},
    {"problem": "Which number is it now?", "answer": "7", "source": "quiz", "checker": "numerical"},
    {"problem": "What is one half?", "answer": "1/2", "source": "sums"},
    {"problem": "What is one half?", "answer": "0.5", "source": "sums"},
]
REWARD = {
    "type": "exact",
    "by_source": [
        {"sources": ["sums"], "verifier": {"type": "numeric"}},
        {"sources": ["quiz"], "verifier": {"type": "choice"}},
    ],
}


def config(folder: Path, **more: Any) -> RunConfig:
    data = {"path": str(jsonl(folder / "set.jsonl", ROWS)), "columns": {"verifier": "checker"}, "max_reject_share": 0.9}
    profile = {"data": data, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1e-3}, "reward": REWARD}
    return RunConfig.model_validate({**profile, **more})


def test_every_row_is_checked_by_the_verifier_that_will_judge_it(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    with gold_judges(cfg) as (judge, of_suites):
        summary = validate(cfg.data, [], tmp_path / "out", judge, judge_of_suite=of_suites)
    assert summary["prompts"]["reasons"] == {
        "gold_rejected": 2,  # "eight" is no number, 7 no letter
        "unknown_verifier": 1,
        "duplicate_copy": 1,  # to the numeric verifier one half is 0.5
        "duplicate_problem": 1,
    }
    assert summary["prompts"]["golds_rejected"] == {"quiz": 1, "sums": 1}
    quarantine = (tmp_path / "out" / "quarantine.jsonl").read_text()
    assert "no verifier is called 'numerical'; there are default, numeric, choice" in quarantine
    kept = PromptSet.read_parquet(tmp_path / "out" / "prompts.parquet")
    assert {(p.answer, p.source, p.verifier) for p in kept} == {
        ("7", "sums", ""),
        ("C", "quiz", ""),
        ("cba", "words", ""),
        ("7", "quiz", "numeric"),
        ("1/2", "sums", ""),
    }


def test_a_source_that_no_prompt_has_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    known = ["sums", "quiz", "words"]
    require_sources(config(tmp_path), known)
    with pytest.raises(ConfigError, match=r"reward.by_source names the source 'quiz', .* there are 'sums', 'words'"):
        require_sources(config(tmp_path), ["sums", "words"])
    quotas = {"prompts_per_step": 2, "rollouts_per_step": 4, "quotas": [{"source": "sumz", "max": 0.5}]}
    with pytest.raises(ConfigError, match=r"curriculum.quotas names the source 'sumz', which no prompt of"):
        require_sources(config(tmp_path, curriculum={"type": "uniform", **quotas}), known)
