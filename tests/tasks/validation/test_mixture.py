"""The built-in mixture goes through the validation that any set does: no row is rejected or dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from cures_core.builtin.mixture import write_builtin
from cures_core.config.data import SuiteConfig
from cures_core.config.loading import load_config
from cures_core.prompts import PromptSet
from cures_core.rewards.sandbox.confinement import why_not
from tasks.validation import validate
from tasks.validation.golds import gold_judges
from tasks.validation.sources import require_sources
from tests.end_to_end.pipeline import PROJECT

PROFILE = PROJECT / "configs" / "mixed.toml"


@pytest.mark.skipif(why_not() != "", reason=why_not())
def test_every_gold_passes_its_own_verifier_and_no_suite_s_problem_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_builtin(tmp_path / "data" / "mixed")
    monkeypatch.chdir(tmp_path)
    # Where other work holds the machine up, a solution must not run out of time.
    cfg = load_config(PROFILE, ["reward.by_source.1.verifier.timeout_s=120"])
    suites = [SuiteConfig(name=suite.name, path=suite.path) for suite in cfg.evaluation.suites]
    with gold_judges(cfg) as (judge, of_suites):
        summary = validate(cfg.data, suites, tmp_path / "out", judge, judge_of_suite=of_suites)
    for part, rows in ((summary["prompts"], 120), (summary["suites"]["mixed"], 48)):
        assert (part["kept"], part["rejected"], part["dropped"]) == (rows, 0, 0)
        assert set(part["reasons"]) <= {"eval_near"}  # the same question with other numbers
    sources = PromptSet.read_parquet(tmp_path / "out" / "prompts.parquet").column("source")
    assert set(sources) == {"sums", "choices", "code"}
    require_sources(cfg, sources)
