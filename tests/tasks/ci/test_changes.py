"""What `cures ci` answers for two revisions, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cures_core.config.loading import load_config
from cures_core.config.retrain import RetrainRule
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from tasks.ci.changes import change_key, changes
from tasks.ci.markdown import cost
from tests.end_to_end.pipeline import PROJECT, cures
from tests.tasks.ci.repository import commit, git, make_repository, sums, write_rows


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_repository(tmp_path)
    monkeypatch.chdir(folder)
    return folder


def test_ids_by_fate_and_a_key_that_follows_content(work: Path, tmp_path: Path) -> None:
    cfg = load_config(work / "tiny.toml")
    same = changes(cfg, "HEAD", "HEAD", tmp_path / "a")
    assert (same["changed"], same["due"], same["before"]) == (False, False, same["after"])
    write_rows(work / "prompts.jsonl", [*sums(range(105, 300)), *sums(range(300, 303))])
    commit(work, "five out, three in")
    found = changes(cfg, "HEAD~1", "HEAD", tmp_path / "b")
    assert found["changed"]
    assert (len(found["ids"]["new"]), len(found["ids"]["removed"]), found["counts"]["same"]) == (3, 5, 195)
    assert found["key"] != same["key"]
    assert changes(cfg, "HEAD~1", "HEAD", tmp_path / "c")["key"] == found["key"]
    other = cfg.model_copy(update={"seed": 99})
    assert changes(other, "HEAD~1", "HEAD", tmp_path / "d")["key"] != found["key"]
    exam = {"suites": {suite.name: {"kept": 10} for suite in cfg.evaluation.suites}}
    planned = cost(found, exam, cfg)
    assert planned["rollouts"] | {"evaluation": 0, "total": 0} == {
        "prior": 3 * 2,
        "training": 2 * 4 * 32,
        "evaluation": 0,
        "total": 0,
    }
    assert planned["rollouts"]["total"] == 3 * 2 + 2 * 4 * 32 + planned["rollouts"]["evaluation"]
    assert planned["tokens_at_most"]["training"] == 2 * 4 * 32 * cfg.rollout.max_new_tokens
    assert planned["seconds"] is None  # no run of the store says how long it takes


def test_the_machine_that_asks_is_no_part_of_the_key() -> None:
    """A run is computed on the deployment's."""
    sections = {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1e-3}}
    plain, other = (
        RunConfig.model_validate({**sections, "device": device}) for device in ({}, {"type": "cpu", "threads": 4})
    )
    assert change_key(other, "d", {}) == change_key(plain, "d", {})
    assert change_key(plain.model_copy(update={"seed": 9}), "d", {}) != change_key(plain, "d", {})


@pytest.mark.parametrize(
    ("rule", "changed", "suites", "due"),
    [
        (RetrainRule(), 1, (), False),
        (RetrainRule(), 10, (), True),
        (RetrainRule(min_share=None), 10, (), False),
        (RetrainRule(min_share=None, min_prompts=10), 10, (), True),
        (RetrainRule(min_share=None, min_prompts=11), 10, (), False),
        (RetrainRule(), 0, ("exam",), True),
        (RetrainRule(on_suites=False), 0, ("exam",), False),
    ],
)
def test_the_rule_decides(rule: RetrainRule, changed: int, suites: tuple[str, ...], due: bool) -> None:
    assert bool(rule.reasons(changed, 1000, suites)) is due


def test_exit_codes_and_json(work: Path) -> None:
    arguments = ["ci", "changed", "--base", "HEAD~1", "--config", "tiny.toml"]
    write_rows(work / "prompts.jsonl", sums(range(101, 300)))
    commit(work, "one less of 200: 0.5 %")
    assert cures(*arguments, cwd=work).code == 0
    write_rows(work / "suite.jsonl", sums(range(501, 530)))
    commit(work, "suite")
    outcome = cures(*arguments, "--json", cwd=work)
    found = json.loads(outcome.out)
    assert (outcome.code, found["due"], found["suites"]) == (10, True, ["heldout"])
    bad = cures("ci", "changed", "--base", "nowhere", "--config", "tiny.toml", cwd=work)
    assert bad.code == 2
    assert "no such revision" in bad.err


def test_before_the_first_push_of_a_branch_there_was_nothing(work: Path) -> None:
    """GitLab and GitHub name a commit of zeros then."""
    outcome = cures("ci", "changed", "--base", "0" * 40, "--config", "tiny.toml", "--json", cwd=work)
    found = json.loads(outcome.out)
    assert (outcome.code, found["due"], found["suites"]) == (10, True, ["heldout"]), outcome.err
    assert (len(found["ids"]["new"]), found["before"]["prompts"], found["after"]["prompts"]) == (200, 0, 200)
    done = run_script("pull_request.sh", work, CURES_BASE="0" * 40, CURES_CONFIG="tiny.toml")
    assert done.returncode == 0, done.stderr
    assert "Retraining is due" in (work / "summary.md").read_text()


def test_a_path_that_nobody_tracks_is_said(work: Path, tmp_path: Path) -> None:
    cfg = load_config(work / "tiny.toml", ["data.path=other.jsonl"])
    with pytest.raises(ConfigError, match="neither git nor DVC knows it"):
        changes(cfg, "HEAD", "HEAD", tmp_path / "a")


def test_sets_that_dvc_tracks_are_compared_too(work: Path, tmp_path: Path) -> None:
    git(work, "rm", "-q", "--cached", "prompts.jsonl")

    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=work, check=True, capture_output=True)

    dvc("init", "-q")
    dvc("add", "-q", "prompts.jsonl")
    git(work, "add", "-A")
    commit(work, "under DVC")
    write_rows(work / "prompts.jsonl", sums(range(100, 310)))
    dvc("add", "-q", "prompts.jsonl")
    commit(work, "ten more")
    found = changes(load_config(work / "tiny.toml"), "HEAD~1", "HEAD", tmp_path / "a")
    assert (found["before"]["prompts"], found["after"]["prompts"], found["due"]) == (200, 210, True)


def test_the_pull_request_script_writes_a_comment_and_refuses_a_bad_set(work: Path, tmp_path: Path) -> None:
    write_rows(work / "prompts.jsonl", [*sums(range(105, 300)), ("", "1"), *sums(range(500, 502))])
    commit(work, "one empty, two of the suite")
    done = run_script("pull_request.sh", work, CURES_BASE="HEAD~1", CURES_CONFIG="tiny.toml")
    assert done.returncode == 0, done.stderr
    text = (work / "summary.md").read_text()
    for words in ("empty_problem: 1", "heldout (2 ", "Retraining is due", "| rollouts | 4 | 256 |", "| same |"):
        assert words in text, text
    write_rows(work / "prompts.jsonl", [*sums(range(105, 125)), *[("", "1")] * 9])
    commit(work, "bad")
    assert run_script("pull_request.sh", work, CURES_BASE="HEAD~1", CURES_CONFIG="tiny.toml").returncode == 3
    told = (work / "summary.md").read_text()
    assert "**Not accepted.**" in told
    assert "empty_problem" in told


def test_the_merge_script_pushes_the_data_before_it_tells_the_server(work: Path, tmp_path: Path) -> None:
    git(work, "rm", "-q", "--cached", "prompts.jsonl")
    for words in (["init", "-q"], ["add", "-q", "prompts.jsonl"], ["remote", "add", "-q", "-d", "here", "../objects"]):
        subprocess.run([sys.executable, "-m", "dvc", *words], cwd=work, check=True, capture_output=True)
    git(work, "add", "-A")
    commit(work, "under DVC, with a remote")
    write_rows(work / "prompts.jsonl", sums(range(100, 310)))
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "prompts.jsonl"], cwd=work, check=True)
    commit(work, "ten more")
    nobody = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = run_script("merge.sh", work, CURES_BASE="HEAD~1", CURES_CONFIG="tiny.toml", **nobody)
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    (pushed,) = [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]
    assert pushed.read_bytes() == (work / "prompts.jsonl").read_bytes()


def run_script(name: str, work: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A CI template's script, with a `cures` and a `dvc` on its PATH as an installation has them."""
    import os

    folder = work.parent / "bin"
    folder.mkdir(exist_ok=True)
    for command, module in (("cures", "flows.cli.main"), ("dvc", "dvc")):
        path = folder / command
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        path.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PATH": f"{folder}:{os.environ['PATH']}", **variables}
    script = PROJECT / "infra" / "ci" / "scripts" / name
    return subprocess.run([str(script)], cwd=work, env=environment, capture_output=True, text=True, check=False)
