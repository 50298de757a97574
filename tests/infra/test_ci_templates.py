"""The CI templates, run to the end as their services would, step by step in a fresh clone of this repository.

What installs is left out (the environment of the tests serves), and `gh` is a program that writes down what it is told,
GitLab a server that does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.ci.announce import runs_of
from tests.end_to_end.pipeline import PROJECT
from tests.end_to_end.stack import running_stack
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


def gitlab(job: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a job, and after it, whatever became of it, its `after_script`, which must end well."""
    template = yaml.safe_load((CI / "gitlab-ci.yml").read_text())
    base = git(folder, "rev-parse", "HEAD~1")
    variables = {
        **template[".prompts"]["variables"],
        "CURES_CONFIG": "configs/own.toml",
        "CI_PROJECT_DIR": str(folder),
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": base,
        "CI_COMMIT_BEFORE_SHA": base,
        **more,
    }
    lines = [*template[".prompts"]["before_script"], *template[job]["script"]]
    text, env = "\n".join(line for line in lines if not line.startswith(INSTALLS)), environment(folder, **variables)
    done = shell(text, folder, env)
    after = shell("\n".join(template[job].get("after_script", [])), folder, env)
    assert after.returncode == 0, after.stderr
    return done


@pytest.fixture
def notes() -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    """The address of a GitLab that keeps notes, and what it was asked to write: method, path, token, text."""
    asked: list[tuple[str, str, str, str]] = []

    class GitLab(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = [{"id": 7, "body": text} for method, *_, text in asked if method == "POST"]
            self.answer([{"id": 1, "body": "what a person wrote"}, *found])

        def do_POST(self) -> None:
            text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
            asked.append((self.command, self.path, self.headers["PRIVATE-TOKEN"], text))
            self.answer({})

        def do_PUT(self) -> None:
            self.do_POST()

        def answer(self, what: object) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(what).encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), GitLab) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api/v4", asked
        server.shutdown()


def test_gitlab_writes_a_note_and_then_changes_it_also_where_a_set_is_not_fit(
    clone: Path, notes: tuple[str, list[tuple[str, str, str, str]]]
) -> None:
    url, asked = notes
    request = {"CI_API_V4_URL": url, "CI_MERGE_REQUEST_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "5"}
    write_rows(clone / "own" / "prompts.jsonl", [*sums(range(105, 300)), *sums(range(600, 640))])
    git(clone, "commit", "-qam", "other prompts")
    assert gitlab("validate-prompts", clone, **request).returncode == 0
    assert asked == []  # a fork has no token
    assert "Retraining is due" in (clone / "summary.md").read_text()
    for fit in (True, False):
        if not fit:
            write_rows(clone / "own" / "prompts.jsonl", [*sums(range(105, 125)), *[("", "1")] * 9])
            git(clone, "commit", "-qam", "bad prompts")
        assert gitlab("validate-prompts", clone, **request, GITLAB_TOKEN="glpat-1").returncode == (0 if fit else 3)
    path = "/api/v4/projects/3/merge_requests/5/notes"
    assert [what[:3] for what in asked] == [("POST", path, "glpat-1"), ("PUT", f"{path}/7", "glpat-1")]
    assert "Retraining is due" in asked[0][3]
    assert "**Not accepted.**" in asked[1][3]


def test_the_first_push_of_a_branch_has_no_commit_before_it(clone: Path) -> None:
    done = gitlab("retrain", clone, CI_COMMIT_BEFORE_SHA="0" * 40, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "does not answer" in done.stderr  # so something was to be told


def test_after_a_merge_both_tell_the_server_and_one_run_comes_of_it(clone: Path, tmp_path: Path) -> None:
    write_rows(clone / "own" / "prompts.jsonl", [*sums(range(105, 300)), *sums(range(600, 640))])
    git(clone, "commit", "-qam", "other prompts")
    without = gitlab("retrain", clone, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert without.returncode == 1
    assert "does not answer" in without.stderr
    with running_stack(tmp_path / "stack") as stack:
        time.sleep(5)  # the server reads its automations anew
        done = gitlab("retrain", clone, PREFECT_API_URL=stack.api_url)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["due"]
        merged = {
            "config": "configs/own.toml",
            "github.event.before": git(clone, "rev-parse", "HEAD~1"),
            "secrets.PREFECT_API_URL": stack.api_url,
        }
        assert github("retrain", clone, merged) == []
        deadline = time.monotonic() + 60
        while not (found := runs_of(stack.api_url, told["key"])) and time.monotonic() < deadline:
            time.sleep(1)
        time.sleep(5)
        assert len(found) == len(runs_of(stack.api_url, told["key"])) == 1
        assert found[0]["parameters"]["judged"]["data"]["path"] == "own/prompts.jsonl"
