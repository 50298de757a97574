"""A repository with a prompt set and a suite in two revisions, and its bare remote."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.end_to_end.pipeline import PROFILE


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write_rows(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    path.write_text("".join(json.dumps({"problem": p, "answer": a}) + "\n" for p, a in rows))


def sums(numbers: range) -> list[tuple[str, str]]:
    return [(f"{i}+{i % 7}=", str(i + i % 7)) for i in numbers]


def make_repository(folder: Path, rule: str = "") -> Path:
    """`folder`/work with one commit, pushed to the bare `folder`/remote.git."""
    remote, work = folder / "remote.git", folder / "work"
    work.mkdir(parents=True)
    git(folder, "init", "-q", "--bare", "-b", "main", str(remote))
    git(work, "init", "-q", "-b", "main")
    write_rows(work / "prompts.jsonl", sums(range(100, 300)))
    write_rows(work / "suite.jsonl", sums(range(500, 530)))
    paths = PROFILE.replace("data/chains/train.jsonl", "prompts.jsonl").replace(
        "data/chains/heldout.jsonl", "suite.jsonl"
    )
    (work / "tiny.toml").write_text(paths + rule)
    git(work, "add", "-A")
    git(work, "commit", "-qm", "prompts")
    git(work, "remote", "add", "origin", str(remote))
    git(work, "push", "-q", "origin", "main")
    return work


def commit(work: Path, message: str) -> None:
    git(work, "commit", "-qam", message)
    git(work, "push", "-q", "origin", "main")
