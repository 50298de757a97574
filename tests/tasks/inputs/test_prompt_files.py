"""Prompt files by name: paths, revisions of git and DVC, objects on S3, and the same bytes on every retry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from cures_core.config.data import DataConfig
from cures_core.config.loading import load_config
from cures_core.errors import ConfigError, DataRejected, MissingExtra, MissingInput, StoreUnavailable, TryAgain
from cures_core.files import digest_file, digest_json
from cures_core.prompts import load_prompts
from tasks.ci.changes import changes
from tasks.inputs.prompt_files import Inputs, is_elsewhere
from tasks.runs.opening import identify
from tasks.runs.opening import open_run as opened_run
from tasks.runs.resume import resumed_config
from tasks.stages.validate_dataset import validate_dataset
from tasks.storage.s3_client import S3, make_client
from tests.end_to_end.pipeline import PROFILE
from tests.tasks.ci.repository import commit, git, make_repository, sums, write_rows
from tests.tasks.storage.servers import BUCKET, KEYS, moto_url

__all__ = ["moto_url"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with prompts.jsonl of 200 rows, tagged v1, and of 210 rows now."""
    folder = make_repository(tmp_path)
    git(folder, "tag", "v1")
    write_rows(folder / "prompts.jsonl", sums(range(100, 310)))
    commit(folder, "ten more")
    monkeypatch.chdir(folder)
    return folder


def number(inputs: Inputs, name: str) -> int:
    return len(load_prompts(DataConfig(path=name), source=inputs.local(name)).prompts)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path / "inputs")


# paths and revisions


def test_a_path_is_read_where_it_is(work: Path, inputs: Inputs) -> None:
    assert inputs.local("prompts.jsonl") == Path("prompts.jsonl")
    (work / "odd@v1").write_text("{}")
    assert inputs.local("odd@v1") == Path("odd@v1")
    assert [is_elsewhere(name) for name in ("odd@v1", "prompts.jsonl@v1", "s3://b/k", "gone.jsonl")] == [0, 1, 1, 0]


def test_a_revision_of_git_is_read(work: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (number(inputs, "prompts.jsonl@v1"), number(inputs, "prompts.jsonl@main")) == (200, 210)
    assert number(inputs, f"{work}/prompts.jsonl@v1") == 200
    (work / "sub").mkdir()
    monkeypatch.chdir(work / "sub")
    assert number(inputs, "../prompts.jsonl@v1") == 200


def test_what_a_killed_download_left_goes_with_the_next_one(work: Path, tmp_path: Path, inputs: Inputs) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    if (pid := os.fork()) == 0:
        Inputs(folder)._keep("half.jsonl@v1", lambda out: (out.write_text("half"), os._exit(0)))  # type: ignore[func-returns-value]
    os.waitpid(pid, 0)
    assert len(list(folder.glob(".fetch-*/half.jsonl"))) == 1
    assert number(inputs, "prompts.jsonl@v1") == 200
    assert list(folder.glob(".fetch-*")) == []


def test_a_branch_is_read_anew_when_it_moves_unless_its_content_is_pinned(work: Path, tmp_path: Path) -> None:
    folder, name = tmp_path / "inputs", "prompts.jsonl@main"
    first = Inputs(folder).local(name)
    write_rows(work / "prompts.jsonl", sums(range(100, 105)))
    commit(work, "cut")
    assert number(Inputs(folder), name) == 5
    pinned = Inputs(folder, pinned={name: digest_file(first)})
    assert number(pinned, name) == 210
    first.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"prompts\.jsonl@main: has changed since it was read first"):
        pinned.local(name)


def test_a_revision_of_dvc_is_read_files_and_folders(work: Path, inputs: Inputs) -> None:
    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=work, check=True, capture_output=True)

    git(work, "rm", "-q", "--cached", "prompts.jsonl")
    saved(work / "saved", 7)
    dvc("init", "-q")
    (work / "-x.jsonl").write_bytes((work / "prompts.jsonl").read_bytes())
    dvc("add", "-q", "--", "prompts.jsonl", "saved", "-x.jsonl")
    git(work, "add", "-A")
    commit(work, "under DVC")
    git(work, "tag", "v2")
    (work / "prompts.jsonl").unlink()
    (work / "-x.jsonl").unlink()
    assert (number(inputs, "prompts.jsonl@v2"), number(inputs, "saved@v2")) == (210, 7)
    assert number(inputs, "-x.jsonl@v2") == 210  # no option
    assert number(inputs, "prompts.jsonl@v1") == 200  # git's own, before DVC took it over


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("[Errno 2] No storage files available: 'gone.jsonl'", MissingInput, "cannot get it .*Push it with `dvc push`"),
        (
            'Could not connect to the endpoint URL: "http://s3/b/files/md5/76"',
            StoreUnavailable,
            "does not answer .*URL",
        ),
    ],
)
def test_a_remote_of_dvc_that_is_away_is_no_missing_file(
    said: str, error: Any, message: str, work: Path, tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In DVC's own words, which would take it half a minute to say."""
    (work / "gone.jsonl.dvc").write_text("outs: []")
    git(work, "add", "-A")
    commit(work, "under DVC")
    dvc = tmp_path / "dvc"
    dvc.write_text(f"#!/bin/sh\ncat >&2 <<'END'\nERROR: unexpected error - {said}\nEND\nexit 255")
    dvc.chmod(0o755)
    monkeypatch.setattr("tasks.inputs.revisions.sys", SimpleNamespace(executable=str(dvc)))
    with pytest.raises(error, match=message):
        inputs.local("gone.jsonl@main")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("prompts.jsonl@v9", ConfigError, "v9: no such revision"),
        ("prompts.jsonl@--help", ConfigError, "name a branch, tag or commit"),
        ("none.jsonl@v1", ConfigError, "neither git nor DVC knows it at"),
        ("../none.jsonl@v1", ConfigError, "inside the repository"),
        ("https://example.org/set.jsonl", ConfigError, "s3://bucket/key"),
        ("s3://bucket", ConfigError, "s3://bucket/key"),
    ],
)
def test_what_cannot_be_found_is_said(name: str, error: Any, message: str, work: Path, inputs: Inputs) -> None:
    with pytest.raises(error, match=message):
        inputs.local(name)


def test_a_revision_without_git_says_that_it_is_not_installed(
    work: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(work))
    with pytest.raises(MissingExtra, match=r"git is not installed.*apt-get install git"):
        inputs.local("prompts.jsonl@v1")


def test_outside_a_repository_there_are_no_revisions(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="not inside a git repository"):
        inputs.local("prompts.jsonl@v1")


def test_a_fixed_revision_cannot_be_compared_by_ci(work: Path, tmp_path: Path) -> None:
    cfg = load_config(work / "tiny.toml", ["data.path=prompts.jsonl@v1"])
    with pytest.raises(ConfigError, match="not a path of this repository"):
        changes(cfg, "HEAD~1", "HEAD", tmp_path / "ci")


# objects


class Bucket:
    """The tests' bucket, and how often objects were fetched from it."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client, self.fetched = make_client(url, attempts=1), 0
        fetch = S3.fetch

        def counted(*arguments: Any) -> None:
            self.fetched += 1
            fetch(*arguments)

        monkeypatch.setattr(S3, "fetch", counted)

    def put(self, key: str, rows: range) -> str:
        body = "".join(json.dumps({"problem": p, "answer": a}) + "\n" for p, a in sums(rows))
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body.encode())
        return f"s3://{BUCKET}/{key}"


@pytest.fixture
def bucket(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    return Bucket(moto_url, monkeypatch)


def saved(folder: Path, num: int) -> None:
    """A folder as `datasets` saves it."""
    table = pa.table({"problem": [p for p, _ in sums(range(num))], "answer": [a for _, a in sums(range(num))]})
    folder.mkdir()
    with pa.ipc.new_stream(folder / "data-0.arrow", table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))


def test_an_object_is_fetched_once_for_each_version(bucket: Bucket, inputs: Inputs) -> None:
    name = bucket.put("sets/train.jsonl", range(20))
    assert (number(inputs, name), number(inputs, name), bucket.fetched) == (20, 20, 1)
    bucket.put("sets/train.jsonl", range(30))
    assert (number(inputs, name), bucket.fetched) == (30, 2)
    bucket.put("sets/train.jsonl", range(20))
    assert (number(inputs, name), bucket.fetched) == (20, 2)


def test_damaged_copies_are_fetched_again(bucket: Bucket, inputs: Inputs) -> None:
    name = bucket.put("sets/damaged.jsonl", range(20))
    copy = inputs.local(name)
    copy.write_bytes(b"{}")
    assert (number(inputs, name), bucket.fetched) == (20, 2)
    (aside,) = copy.parent.parent.glob("*.damaged-1")
    assert (aside / copy.name).read_bytes() == b"{}"


def test_a_damaged_copy_stays_where_it_is_while_nothing_can_take_its_place(
    bucket: Bucket, inputs: Inputs, tmp_path: Path
) -> None:
    name = bucket.put("sets/away.jsonl", range(20))
    copy = inputs.local(name)
    copy.write_bytes(b"{}")
    bucket.client.delete_object(Bucket=BUCKET, Key="sets/away.jsonl")
    with pytest.raises(MissingInput):
        inputs.local(name)
    assert copy.read_bytes() == b"{}"


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"sha256": ""}', '{"sha256": "../../.."}'])
def test_a_damaged_note_of_a_version_removes_nothing_and_is_written_again(
    note: str, bucket: Bucket, inputs: Inputs, tmp_path: Path
) -> None:
    name = bucket.put("sets/noted.jsonl", range(20))
    inputs.local(name)
    (beside,) = (tmp_path / "inputs" / "versions").iterdir()
    good = beside.read_bytes()
    beside.write_text(note)
    assert number(inputs, name) == 20
    assert beside.read_bytes() == good


def test_a_damaged_copy_is_replaced_where_its_note_is_gone(bucket: Bucket, inputs: Inputs, tmp_path: Path) -> None:
    name = bucket.put("sets/unnoted.jsonl", range(20))
    inputs.local(name).write_bytes(b"{}")
    shutil.rmtree(tmp_path / "inputs" / "versions")
    assert number(inputs, name) == 20


def test_pinned_content_is_read_though_the_object_is_another_or_gone(bucket: Bucket, tmp_path: Path) -> None:
    name = bucket.put("sets/pinned.jsonl", range(20))
    digest = digest_file(Inputs(tmp_path).local(name))
    bucket.put("sets/pinned.jsonl", range(30))
    assert number(Inputs(tmp_path, pinned={name: digest}), name) == 20
    bucket.client.delete_object(Bucket=BUCKET, Key="sets/pinned.jsonl")
    assert number(Inputs(tmp_path, pinned={name: digest}), name) == 20
    with pytest.raises(MissingInput, match=rf"s3://{BUCKET}/sets/pinned\.jsonl: no such object"):
        Inputs(tmp_path).local(name)


def test_a_saved_dataset_on_s3_is_read(bucket: Bucket, inputs: Inputs, tmp_path: Path) -> None:
    saved(tmp_path / "saved", 7)
    for file in (tmp_path / "saved").iterdir():
        bucket.client.upload_file(str(file), BUCKET, f"sets/saved/{file.name}")
    name = f"s3://{BUCKET}/sets/saved"
    assert (number(inputs, name), number(inputs, f"{name}/"), bucket.fetched) == (7, 7, 4)


@pytest.mark.parametrize(
    "rest", ["/etc/x", "/{outside}", "a/../../../x", "..", "a\0b", "a\\b", "a//b", "x" * 300, "state.json/x"]
)
def test_objects_with_hostile_names_are_refused_before_anything_is_fetched(
    rest: str, bucket: Bucket, inputs: Inputs, tmp_path: Path
) -> None:
    saved(tmp_path / "saved", 7)
    place = f"planted/{digest_json(rest)[:8]}"
    for file in (tmp_path / "saved").iterdir():
        bucket.client.upload_file(str(file), BUCKET, f"{place}/{file.name}")
    outside = tmp_path / "outside"
    bucket.client.put_object(Bucket=BUCKET, Key=f"{place}/{rest.format(outside=outside)}", Body=b"planted")
    with pytest.raises(DataRejected, match=rf"s3://{BUCKET}/{place}: .*rename"):
        inputs.local(f"s3://{BUCKET}/{place}")
    assert bucket.fetched == 0
    assert not outside.exists()
    assert b"planted" not in [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    "name", ["s3://{bucket}/..", "s3://{bucket}/a/..", "s3://{bucket}/{long}", "..@main", "a/..@main"]
)
def test_names_without_a_last_part_that_could_be_a_file_are_refused(name: str, work: Path, inputs: Inputs) -> None:
    with pytest.raises(ConfigError):
        inputs.local(name.format(bucket=BUCKET, long="x" * 300))


def test_an_object_that_is_replaced_meanwhile_is_not_mixed(
    bucket: Bucket, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = bucket.put("sets/moving.jsonl", range(20))
    monkeypatch.setattr(S3, "etag", lambda *_: '"0123"')
    with pytest.raises(TryAgain, match="was replaced or removed while it was fetched"):
        inputs.local(name)


def test_refusals_name_bucket_and_key_and_no_secret(
    bucket: Bucket, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    def refused(*_: Any, **__: Any) -> Any:
        answer: Any = {"Error": {"Code": "403", "Message": KEYS["AWS_SECRET_ACCESS_KEY"]},
                       "ResponseMetadata": {"HTTPStatusCode": 403}}  # fmt: skip
        raise ClientError(answer, "HeadObject")

    monkeypatch.setattr(make_client(None, attempts=1), "head_object", refused)
    with pytest.raises(ConfigError, match=rf"s3://{BUCKET}/sets/private\.jsonl: refused to access key AKIA") as caught:
        inputs.local(f"s3://{BUCKET}/sets/private.jsonl")
    for secret in KEYS.values():
        assert secret not in str(caught.value)


# runs


def profile(folder: Path, path: str) -> Any:
    (folder / "tiny.toml").write_text(PROFILE)
    return load_config(folder / "tiny.toml", [f"data.path={path}"])


def test_a_run_is_named_after_the_content_and_a_retry_reads_it_again(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow run's id is what a Retry has in common with the first try."""
    monkeypatch.chdir(tmp_path)
    config = profile(tmp_path, bucket.put("sets/run.jsonl", range(20)))
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", "first")
    with opened_run(config) as run:
        pass
    bucket.put("sets/run.jsonl", range(30))
    assert identify(config).name == run.name
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", "second")
    assert identify(config).name != run.name
    monkeypatch.delenv("PREFECT__RUNTIME__FLOW_RUN__ID")
    with pytest.raises(ConfigError, match=r"sets/run\.jsonl has changed since run"):
        resumed_config(config.store, run.name)


def validated(run: Any) -> Any:
    """The stage's record, without Prefect around it."""
    stage: Any = validate_dataset
    return stage.__wrapped__(run)


def test_a_stage_reads_what_the_run_has_read(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = profile(tmp_path, bucket.put("sets/stage.jsonl", range(100, 120)))
    with opened_run(config) as run:
        bucket.put("sets/stage.jsonl", range(100, 130))
        record = validated(run)
    assert record.figures.rows == 20
    assert record.inputs["files"]["data.path"] == run.inputs["data.path"]


def test_a_path_that_changes_after_the_start_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "set.jsonl", sums(range(100, 120)))
    config = profile(tmp_path, "set.jsonl")
    with opened_run(config) as run:
        write_rows(tmp_path / "set.jsonl", sums(range(100, 130)))
        with pytest.raises(TryAgain, match="has changed since the run was started"):
            validated(run)
