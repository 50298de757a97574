"""The CI templates, run to the end as their services would, step by step in a fresh clone of this repository.

What installs is left out (the environment of the tests serves), and `gh` is a program that writes down what it is told.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.pipeline import PROJECT
from tests.tasks.ci.repository import git, sums, write_rows

pytestmark = pytest.mark.end_to_end
CI = PROJECT / "infra" / "ci"
INSTALLS = ("requirements/install.sh", "pip install", "apt-get ")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone, in which a branch changes a few of the prompts that a profile names."""
    git(tmp_path, "clone", "-q", str(PROJECT), "clone")
    folder = tmp_path / "clone"
    (folder / "own").mkdir()
    write_rows(folder / "own" / "prompts.jsonl", sums(range(100, 300)))
    write_rows(folder / "own" / "suite.jsonl", sums(range(500, 530)))
    profile = (folder / "configs" / "quickstart.toml").read_text()
    for path, ours in (("train", "prompts"), ("heldout", "suite"), ("frontier", "suite")):
        profile = profile.replace(f"data/chains/{path}.jsonl", f"own/{ours}.jsonl")
    (folder / "configs" / "own.toml").write_text(profile)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "our prompts")
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    """As after the installation: `cures`, `dvc`, `gh` on the PATH, and of this environment what a runner has too."""
    bin = folder.parent / "bin"
    bin.mkdir(exist_ok=True)
    programs = {
        "cures": f'exec {sys.executable} -m flows.cli.main "$@"',
        "dvc": f'exec {sys.executable} -m dvc "$@"',
        "gh": f'for word in "$@"; do printf "%s\\n" "$word" >> {folder.parent}/gh.txt; done',
    }
    for name, text in programs.items():
        (bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin / name).chmod(0o755)
    kept = {name: os.environ[name] for name in ("HOME", "CURES_SHARED_DATA") if name in os.environ}
    page = str(folder.parent / "page.md")
    return {
        **kept,
        "PATH": f"{bin}:{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": page,
        "PYTHONPATH": str(folder),
        **more,
    }


def shell(text: str, folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-e", "-c", text], cwd=folder, env=env, capture_output=True, text=True, check=False)


def github(job: str, folder: Path, context: Mapping[str, str]) -> list[str]:
    """Run a job; returns the steps that failed, each with its last words. `context`: values of the expressions."""

    def value(text: str) -> str:
        return re.sub(r"\$\{\{ *(.+?) *\}\}", lambda found: context.get(found[1], ""), text)

    workflow: dict[str, Any] = yaml.safe_load((CI / "github" / "prompts.yml").read_text())
    told, failed = workflow["jobs"][job], list[str]()
    outer = {**workflow["env"], **told.get("env", {}), "CURES_CONFIG": context["config"]}
    for step in told["steps"]:
        if "uses" in step or step["run"].startswith(INSTALLS):
            continue
        condition = step.get("if", "")
        if failed and "!cancelled()" not in condition:
            continue
        env = {name: value(text) for name, text in {**outer, **step.get("env", {})}.items()}
        if "env.OURS == 'true'" in condition and env["OURS"] != "true":
            continue
        done = shell(step["run"], folder, environment(folder, **env))
        if done.returncode:
            failed.append(f"{step['run']}: {done.returncode}: {done.stdout[-500:]}{done.stderr[-1500:]}")
    return failed


def pull_request(folder: Path, config: str, ours: bool = True) -> dict[str, str]:
    return {
        "config": config,
        "github.event.pull_request.base.sha": git(folder, "rev-parse", "HEAD~1"),
        "github.event.pull_request.head.repo.full_name == github.repository": json.dumps(ours),
        "github.event.pull_request.number": "7",
    }


def test_a_pull_request_is_commented_on(clone: Path) -> None:
    write_rows(clone / "own" / "prompts.jsonl", [*sums(range(105, 300)), *sums(range(600, 640))])
    git(clone, "commit", "-qam", "other prompts")
    assert github("validate", clone, pull_request(clone, "configs/own.toml")) == []
    words = (clone.parent / "gh.txt").read_text().split()
    assert words[:5] == ["pr", "comment", "7", "--body-file", "summary.md"]
    assert "Retraining is due" in (clone / "summary.md").read_text()
    assert (clone.parent / "page.md").read_text() == (clone / "summary.md").read_text()


def test_a_set_that_is_not_fit_fails_the_job_and_is_commented_on(clone: Path) -> None:
    write_rows(clone / "own" / "prompts.jsonl", [*sums(range(105, 125)), *[("", "1")] * 9])
    git(clone, "commit", "-qam", "bad prompts")
    (failed,) = github("validate", clone, pull_request(clone, "configs/own.toml"))
    assert "pull_request.sh: 3" in failed
    assert "**Not accepted.**" in (clone / "summary.md").read_text()
    assert (clone.parent / "gh.txt").exists()


def test_a_fork_writes_nothing_but_the_page_of_its_job(clone: Path) -> None:
    write_rows(clone / "own" / "prompts.jsonl", sums(range(105, 300)))
    git(clone, "commit", "-qam", "from a fork")
    assert github("validate", clone, pull_request(clone, "configs/own.toml", ours=False)) == []
    assert not (clone.parent / "gh.txt").exists()
    assert (clone.parent / "page.md").exists()
    workflow = yaml.safe_load((CI / "github" / "prompts.yml").read_text())
    assert (
        "pull_request" in workflow[True]
    )  # YAML reads `on` so; with `pull_request_target` forks would have our rights
    assert workflow["permissions"] == {"contents": "read"}
    assert not [step for step in workflow["jobs"]["validate"]["steps"] if "PREFECT" in json.dumps(step)]


def test_the_prompts_that_come_along_need_no_remote(clone: Path) -> None:
    """`data.dvc` from a fresh clone: without a remote, and then with the one that the documentation names."""
    assert github("validate", clone, pull_request(clone, "configs/quickstart.toml")) == []
    assert "Retraining is not due" in (clone / "summary.md").read_text()
    env = environment(clone)
    text = "cures data stats data/chains/train.jsonl > stats.txt && dvc commit -q -f && git diff --exit-code"
    done = shell(f"{text} && dvc remote add -q -d store {clone.parent}/remote && dvc push -q", clone, env)
    assert done.returncode == 0, done.stderr
    git(clone, "commit", "-qam", "a remote")
    git(clone.parent, "clone", "-q", str(clone), "second")
    second = clone.parent / "second"
    assert not (second / "data").exists()
    done = shell("infra/ci/scripts/fetch_data.sh", second, environment(second))
    assert done.returncode == 0, done.stderr
    for path in (clone / "data").rglob("*.jsonl"):
        assert (second / path.relative_to(clone)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("job", ["validate-prompts", "retrain"])
def test_gitlab_runs_the_same(clone: Path, job: str) -> None:
    """Until it tells a server of it, where there is none."""
    write_rows(clone / "own" / "prompts.jsonl", [*sums(range(105, 300)), *sums(range(600, 640))])
    git(clone, "commit", "-qam", "other prompts")
    template = yaml.safe_load((CI / "gitlab-ci.yml").read_text())
    base = git(clone, "rev-parse", "HEAD~1")
    variables = {
        **template[".prompts"]["variables"],
        "CURES_CONFIG": "configs/own.toml",
        "CI_PROJECT_DIR": str(clone),
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": base,
        "CI_COMMIT_BEFORE_SHA": base,
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }
    lines = [*template[".prompts"]["before_script"], *template[job]["script"]]
    text = "\n".join(line for line in lines if not line.startswith(INSTALLS))
    done = shell(text, clone, environment(clone, **variables))
    if job == "retrain":
        assert done.returncode == 1
        assert "does not answer" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert "Retraining is due" in (clone / "summary.md").read_text()
