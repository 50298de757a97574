"""Publishing snapshots: what lies where afterwards, and what happens twice, at once, half-way and under damage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cures_core.config.snapshot import SnapshotConfig
from cures_core.errors import ConfigError, CorruptArtifact, InjectedFault, MissingInput, StoreUnavailable
from tasks.runs.figures import SnapshotFigures
from tasks.snapshots import commands, diff_snapshots, find_snapshot, list_snapshots, publish_snapshot, read_snapshot
from tasks.snapshots import pointers as pointers_module
from tasks.snapshots.objects import FolderObjects, object_name
from tasks.snapshots.pointers import DamagedReference, Pointers
from tasks.snapshots.reading import diff_posteriors
from tasks.storage.leftovers import owned_name

ROOT = Path(__file__).resolve().parents[3]
LINEAGE = {
    "parent": None,
    "policy": "p" * 64,
    "dataset": "d" * 64,
    "config": "c" * 64,
    "versions": {"numpy": "2"},
    "created_at": "2026-01-02T03:04:05+00:00",
}


@pytest.fixture
def cfg(tmp_path: Path) -> SnapshotConfig:
    return SnapshotConfig().within(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three published snapshots, made once: each costs about a second."""
    folder = tmp_path_factory.mktemp("template")
    cfg = SnapshotConfig().within(str(folder / "store"))
    for k in (10, 9, 2):
        publish(folder, cfg, k, f"posterior/run-1/{k}", parent=k - 1)
    return folder


@pytest.fixture
def filled(tmp_path: Path, template: Path) -> SnapshotConfig:
    """A copy of the template, its Parquet files in `tmp_path`."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return SnapshotConfig().within(str(tmp_path / "store"))


def posterior(folder: Path, seed: int, rows: int = 100) -> Path:
    frame = pd.DataFrame(
        {"id": [f"{i:032x}" for i in range(rows)], "alpha": np.random.default_rng(seed).random(rows) + 1, "beta": 1.0}
    )
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / f"{seed}.parquet")
    return folder / f"{seed}.parquet"


def publish(tmp_path: Path, cfg: SnapshotConfig, seed: int, tag: str, **lineage: Any) -> SnapshotFigures:
    return publish_snapshot(posterior(tmp_path, seed), LINEAGE | lineage, tag, cfg, tmp_path / "scratch")


def git(repository: str | None, *arguments: str) -> str:
    assert repository is not None
    return subprocess.run(
        ["git", "-C", repository, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def stored(cfg: SnapshotConfig, md5: str) -> Path:
    return Path(cfg.remote or "") / object_name(md5)


def test_a_snapshot_is_read_with_plain_dvc_and_pandas(tmp_path: Path, template: Path) -> None:
    repository = template / "store" / "snapshots.git"
    command = ["dvc", "get", str(repository), "posterior/run-1/posterior.parquet", "--rev", "posterior/run-1/9"]
    subprocess.run([sys.executable, "-m", *command, "-o", "got.parquet"], cwd=tmp_path, check=True, capture_output=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "got.parquet"), pd.read_parquet(posterior(tmp_path, 9)))


def test_the_record_names_what_lies_where(tmp_path: Path, cfg: SnapshotConfig) -> None:
    record = publish(tmp_path, cfg, 1, "posterior/run-1/0")
    data = (tmp_path / "1.parquet").read_bytes()
    assert record.model_dump() == {
        "tag": "posterior/run-1/0",
        "commit": git(cfg.repository, "rev-parse", "refs/tags/posterior/run-1/0"),
        "md5": record.md5,
        "size": len(data),
        "remote": str(tmp_path / "store" / "dvc"),
        "path": "posterior/run-1/posterior.parquet",
    }
    assert stored(cfg, record.md5).read_bytes() == data
    assert git(cfg.repository, "rev-parse", "snapshots") == record.commit
    files = git(cfg.repository, "ls-tree", "-r", "--name-only", record.commit).splitlines()
    assert files == [
        ".dvc/config",
        "posterior/run-1/lineage.json",
        "posterior/run-1/posterior.parquet.dvc",
    ]
    assert json.loads(git(cfg.repository, "show", f"{record.tag}:posterior/run-1/lineage.json")) == LINEAGE
    assert git(cfg.repository, "log", "-1", "--format=%an %ae %aI %cI", "snapshots") == (
        "cures cures@localhost 2026-01-02T03:04:05+00:00 2026-01-02T03:04:05+00:00"
    )
    assert git(cfg.repository, "fsck", "--strict", "--no-dangling") == ""
    assert list((tmp_path / "scratch").iterdir()) == []


def test_snapshots_are_listed_in_order_and_read_back(tmp_path: Path, cfg: SnapshotConfig, template: Path) -> None:
    assert list_snapshots(cfg) == []
    cfg = SnapshotConfig().within(str(template / "store"))
    found = list_snapshots(cfg)
    assert [s.tag for s in found] == [f"posterior/run-1/{k}" for k in (2, 9, 10)]
    assert [s.lineage["parent"] for s in found] == [1, 8, 9]
    assert read_snapshot("posterior/run-1/9", cfg) == (template / "9.parquet").read_bytes()
    assert find_snapshot("posterior/run-1/9", cfg) == found[1]
    with pytest.raises(MissingInput, match=r"ones there: posterior/run-1/2, posterior/run-1/9, posterior/run-1/10"):
        find_snapshot("posterior/run-1/11", cfg)
    assert git(cfg.repository, "rev-list", "--count", "snapshots") == "3"


def test_the_same_again_is_the_same_record_and_no_commit(tmp_path: Path, filled: SnapshotConfig) -> None:
    known = find_snapshot("posterior/run-1/9", filled)
    started = time.monotonic()
    again = publish(tmp_path, filled, 9, "posterior/run-1/9", parent=8, created_at="2026-05-05", versions={})
    assert time.monotonic() - started < 1
    assert (again.commit, again.md5, again.size) == (known.commit, known.md5, known.size)
    assert git(filled.repository, "rev-list", "--count", "--all") == "3"


def test_another_content_under_a_tag_is_refused_with_both_digests(tmp_path: Path, filled: SnapshotConfig) -> None:
    two, nine = (find_snapshot(f"posterior/run-1/{k}", filled).md5 for k in (2, 9))
    with pytest.raises(ConfigError, match=f"{nine}.*{two}"):
        publish(tmp_path, filled, 2, "posterior/run-1/9", parent=8)
    with pytest.raises(ConfigError, match=r"policy is 'ppp.*'other' here"):
        publish(tmp_path, filled, 9, "posterior/run-1/9", parent=8, policy="other")
    assert read_snapshot("posterior/run-1/9", filled) == (tmp_path / "9.parquet").read_bytes()


@pytest.mark.slow
def test_commits_are_the_same_when_made_again(tmp_path: Path) -> None:
    """In two repositories with one remote, whose address is part of the commit."""
    cfgs = [SnapshotConfig(remote=str(tmp_path / "remote")).within(str(tmp_path / name)) for name in ("a", "b")]
    commits = [publish(tmp_path, cfg, 1, "posterior/run-1/0").commit for cfg in cfgs]
    assert commits[0] == commits[1]


def test_branch_repository_and_remote_are_the_configured_ones(tmp_path: Path) -> None:
    cfg = SnapshotConfig(
        repository=str(tmp_path / "r.git"), remote=str(tmp_path / "data"), branch="posteriors/all"
    ).within("unused")
    record = publish(tmp_path, cfg, 1, "posterior/run-1/0")
    assert git(str(tmp_path / "r.git"), "rev-parse", "refs/heads/posteriors/all") == record.commit
    assert (tmp_path / "data" / object_name(record.md5)).is_file()


def test_a_working_tree_and_its_index_are_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "project"
    home.mkdir()
    git(str(home), "init", "-q", "-b", "main")
    (home / "code.py").write_text("1")
    git(str(home), "add", "code.py")
    git(str(home), "-c", "user.name=u", "-c", "user.email=u@u", "commit", "-q", "-m", "code")
    (home / "staged.py").write_text("2")
    git(str(home), "add", "staged.py")
    before = git(str(home), "status", "--porcelain=v2", "--branch")
    cfg = SnapshotConfig(repository=str(home)).within(str(tmp_path / "store"))
    publish(tmp_path, cfg, 1, "posterior/run-1/0")
    assert git(str(home), "status", "--porcelain=v2", "--branch") == before
    assert git(str(home), "tag") == "posterior/run-1/0"
    with pytest.raises(ConfigError, match=r"main holds other files \(code.py\)"):
        publish(tmp_path, cfg.model_copy(update={"branch": "main"}), 2, "posterior/run-1/1")


def test_what_a_killed_process_was_making_goes_with_the_next_one(tmp_path: Path, cfg: SnapshotConfig) -> None:
    """Also beside a repository that is made by now, and nothing that only looks alike."""
    parent = Path(str(cfg.repository)).parent
    name = Path(str(cfg.repository)).name
    for _ in range(2):
        if (pid := os.fork()) == 0:
            (parent / f".{name}.{owned_name()}" / "refs").mkdir(parents=True)
            os._exit(0)
        os.waitpid(pid, 0)
        (own := parent / f".{name}.{owned_name()}").mkdir()
        (other := parent / f".{name}.bak").touch()
        os.utime(other, (0, 0))
        Pointers(str(cfg.repository), tmp_path / "scratch").create("snapshots")
        assert sorted(parent.glob(f".{name}.*")) == sorted([other, own])
        own.rmdir()


@pytest.mark.parametrize("made", ["folder", "file", "cut"])
def test_a_place_that_holds_no_whole_repository_is_refused(made: str, tmp_path: Path, cfg: SnapshotConfig) -> None:
    """It may lie in a working tree, which git would take for what was meant."""
    place = Path(str(cfg.repository))
    place.parent.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(place.parent)], check=True)
    if made == "file":
        place.touch()
    else:
        (place / "objects").mkdir(parents=True)
    if made == "cut":
        (place / "HEAD").touch()
    with pytest.raises(ConfigError, match=r"snapshot\.repository: .*is no git repository, or not a whole one"):
        publish(tmp_path, cfg, 1, "posterior/run-1/0")


def test_four_processes_at_once_all_land(tmp_path: Path, cfg: SnapshotConfig) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.tasks.snapshots.test_publish import publish, SnapshotConfig\n"
        "folder, store, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])\n"
        "cfg = SnapshotConfig().within(store)\n"
        "publish(folder, cfg, n, f'posterior/run-{n}/0')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(tmp_path / "store")]
    processes = [subprocess.Popen([*command, str(n)], cwd=ROOT, stderr=subprocess.PIPE) for n in range(4)]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr.decode()
    assert [s.tag for s in list_snapshots(cfg)] == [f"posterior/run-{n}/0" for n in range(4)]
    assert git(cfg.repository, "rev-list", "--count", "snapshots") == "4"
    assert git(cfg.repository, "fsck", "--strict", "--no-dangling") == ""
    for n in range(4):
        assert read_snapshot(f"posterior/run-{n}/0", cfg) == (tmp_path / f"{n}.parquet").read_bytes()


@pytest.mark.slow
def test_threads_at_once_with_the_same_snapshot_get_one_record(tmp_path: Path, cfg: SnapshotConfig) -> None:
    records: list[SnapshotFigures] = []
    parquet = posterior(tmp_path, 1)

    def work(i: int) -> None:
        records.append(publish_snapshot(parquet, LINEAGE, "posterior/run-1/0", cfg, tmp_path / f"scratch-{i}"))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records) == 3
    assert records[0] == records[1] == records[2]


@pytest.mark.parametrize("point", ["snapshot.after_push", "snapshot.before_pointer"])
def test_stopped_between_data_and_pointer_there_is_no_tag_and_a_retry_succeeds(
    tmp_path: Path, cfg: SnapshotConfig, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setenv("CURES_FAULTS", f"{point}=raise")
    monkeypatch.setenv("CURES_FAULTS_DIR", str(tmp_path / "faults"))
    with pytest.raises(InjectedFault):
        publish(tmp_path, cfg, 1, "posterior/run-1/0")
    assert list_snapshots(cfg) == []
    assert len(list((tmp_path / "store" / "dvc").rglob("*/*/*/*"))) > 0
    publish(tmp_path, cfg, 1, "posterior/run-1/0")
    assert read_snapshot("posterior/run-1/0", cfg) == (tmp_path / "1.parquet").read_bytes()


def kill_publisher(tmp_path: Path, cfg: SnapshotConfig, k: int, seconds: float) -> None:
    """Kill a publisher with its git and DVC children: the tag is there with its data or not at all; a retry works."""
    script = (
        "import sys; from pathlib import Path; from tests.tasks.snapshots.test_publish import publish, SnapshotConfig\n"
        "print('ready', flush=True)\n"
        "k = int(sys.argv[3])\n"
        "publish(Path(sys.argv[1]), SnapshotConfig().within(sys.argv[2]), k, f'posterior/run/{k}')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(tmp_path / "store"), str(k)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for snapshot in list_snapshots(cfg):
        assert read_snapshot(snapshot.tag, cfg) == (tmp_path / f"{snapshot.tag.rsplit('/')[-1]}.parquet").read_bytes()
    publish(tmp_path, cfg, k, f"posterior/run/{k}")
    assert read_snapshot(f"posterior/run/{k}", cfg) == (tmp_path / f"{k}.parquet").read_bytes()


def test_killed_at_an_instant_old_or_new(tmp_path: Path, cfg: SnapshotConfig) -> None:
    kill_publisher(tmp_path, cfg, 0, 0.9)


@pytest.mark.slow
def test_killed_at_fifty_instants_old_or_new(
    tmp_path: Path, cfg: SnapshotConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pointers_module, "_STALE_LOCK_S", 1.0)
    for k, seconds in enumerate(np.random.default_rng(0).uniform(0, 1.6, 50)):
        kill_publisher(tmp_path, cfg, k, float(seconds))


def test_a_lock_left_by_a_killed_git_is_removed_when_it_is_old(tmp_path: Path, filled: SnapshotConfig) -> None:
    lock = Path(str(filled.repository)) / "refs" / "heads" / "snapshots.lock"
    lock.touch()
    os.utime(lock, (time.time() - 100, time.time() - 100))
    publish(tmp_path, filled, 3, "posterior/run-1/3")
    assert not lock.exists()


def spoil(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    path.unlink()
    if how == "flipped":
        data[len(data) // 2] ^= 4
    elif how == "cut":
        del data[len(data) // 2 :]
    if how != "gone":
        path.write_bytes(data)


def objects_of(cfg: SnapshotConfig, tag: str) -> dict[str, Path]:
    """The objects that a tag consists of, by what they are."""
    place = Path(str(cfg.repository)) / "objects"
    listed = [line.split(maxsplit=3) for line in git(cfg.repository, "ls-tree", "-r", "-t", tag).splitlines()]
    names = {f"{kind} {path}": name for _, kind, name, path in listed}
    names |= {what: git(cfg.repository, "rev-parse", f"{tag}^{{{what}}}") for what in ("commit", "tree")}
    return {what: place / name[:2] / name[2:] for what, name in names.items()}


@pytest.mark.parametrize(
    ("what", "how", "k"),
    [
        ("commit", "flipped", 10),
        pytest.param("commit", "cut", 2, marks=pytest.mark.slow),
        ("commit", "gone", 10),
        pytest.param("tree", "cut", 2, marks=pytest.mark.slow),
        pytest.param("tree posterior/run-1", "flipped", 10, marks=pytest.mark.slow),
        ("blob .dvc/config", "gone", 2),
        pytest.param("blob posterior/run-1/lineage.json", "flipped", 2, marks=pytest.mark.slow),
    ],
)
def test_an_object_that_is_damaged_in_the_repository_is_told_and_published_again(
    tmp_path: Path, filled: SnapshotConfig, what: str, how: str, k: int
) -> None:
    """Of the first of three tags (10), on which the branch stands no more, or of the last (2)."""
    tag = f"posterior/run-1/{k}"
    spoil(objects_of(filled, tag)[what], how)
    with pytest.raises(DamagedReference, match=f"{tag}: damaged: .*cures run --resume RUN"):
        read_snapshot(tag, filled)
    assert tag not in [snapshot.tag for snapshot in list_snapshots(filled)]
    publish(tmp_path, filled, k, tag, parent=k - 1)
    assert read_snapshot(tag, filled) == (tmp_path / f"{k}.parquet").read_bytes()
    assert (Path(str(filled.repository)) / "damaged").exists() is (how != "gone")


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_another_tag_that_is_damaged_does_not_stop_others_from_being_published(
    tmp_path: Path, filled: SnapshotConfig, how: str
) -> None:
    spoil(objects_of(filled, "posterior/run-1/10")["commit"], how)
    publish(tmp_path, filled, 11, "posterior/run-2/0")
    assert read_snapshot("posterior/run-2/0", filled)
    publish(tmp_path, filled, 10, "posterior/run-1/10", parent=9)
    assert len(list_snapshots(filled)) == 4


def test_a_repository_elsewhere_that_fails_is_away_not_damaged(tmp_path: Path, filled: SnapshotConfig) -> None:
    away = filled.model_copy(update={"repository": f"file://{filled.repository}"})
    spoil(objects_of(filled, "posterior/run-1/10")["commit"], "flipped")
    with pytest.raises(StoreUnavailable):
        read_snapshot("posterior/run-1/10", away)


def test_a_push_that_is_refused_for_good_is_reported_with_gits_words(tmp_path: Path, filled: SnapshotConfig) -> None:
    hook = Path(str(filled.repository)) / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho no room for you >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(StoreUnavailable, match="no room for you"):
        publish(tmp_path, filled, 3, "posterior/run-1/3")
    assert len(list_snapshots(filled)) == 3


@pytest.mark.parametrize("damage", [b"other bytes", None])
def test_damaged_or_lost_data_is_found_on_reading_and_restored_by_publishing(
    tmp_path: Path, filled: SnapshotConfig, damage: bytes | None
) -> None:
    known = find_snapshot("posterior/run-1/9", filled)
    place = stored(filled, known.md5)
    place.unlink()
    if damage is not None:
        place.write_bytes(damage)
    with pytest.raises(CorruptArtifact, match="posterior/run-1/9"):
        read_snapshot("posterior/run-1/9", filled)
    assert publish(tmp_path, filled, 9, "posterior/run-1/9", parent=8).commit == known.commit
    assert place.read_bytes() == (tmp_path / "9.parquet").read_bytes()


def test_data_that_is_damaged_on_its_way_never_gets_a_tag(
    tmp_path: Path, cfg: SnapshotConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FolderObjects.read

    def flipped(objects: FolderObjects, md5: str) -> bytes | None:
        data = read(objects, md5)
        return None if data is None else data[:-1] + bytes([data[-1] ^ 1])

    monkeypatch.setattr(FolderObjects, "read", flipped)
    with pytest.raises(CorruptArtifact, match=r"twice.*was not published"):
        publish(tmp_path, cfg, 1, "posterior/run-1/0")
    assert list_snapshots(cfg) == []


def test_a_remote_that_cannot_be_written_is_reported_with_dvcs_words(tmp_path: Path, cfg: SnapshotConfig) -> None:
    Path(cfg.remote or "").parent.mkdir()
    Path(cfg.remote or "").write_text("a file, not a folder")
    with pytest.raises(StoreUnavailable, match=r"dvc add .*push .*failed"):
        publish(tmp_path, cfg, 1, "posterior/run-1/0")
    assert list_snapshots(cfg) == []


def test_a_repository_that_is_not_there_is_reported_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret-value")
    cfg = SnapshotConfig(repository="https://127.0.0.1:9/canary-secret-value.git").within(str(tmp_path))
    with pytest.raises(StoreUnavailable) as caught:
        publish(tmp_path, cfg, 1, "posterior/run-1/0")
    assert "127.0.0.1" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "tag", ["", "posterior/run", "posterior/run/1/2", "x/run/1", "posterior/../1", "posterior/a.lock/1", "-x"]
)
def test_tags_outside_the_allowed_names_are_refused(tmp_path: Path, cfg: SnapshotConfig, tag: str) -> None:
    with pytest.raises(ConfigError, match="posterior/RUN/NUMBER"):
        publish(tmp_path, cfg, 1, tag)


def test_a_date_that_is_none_is_refused(tmp_path: Path, cfg: SnapshotConfig) -> None:
    with pytest.raises(ConfigError, match="created_at"):
        publish(tmp_path, cfg, 1, "posterior/run-1/0", created_at="yesterday")


def test_diff_counts_prompts_by_content_id() -> None:
    old = pd.DataFrame({"id": list("abcd"), "alpha": [1.0, 2.0, 3.0, np.nan], "beta": [1, 1, 1, 1]})
    new = pd.DataFrame({"id": list("dcbx"), "alpha": [np.nan, 3.0, 4.5, 9.0], "beta": [1, 1, 1, 1]})
    diff = diff_posteriors(old, new)
    assert (diff.added, diff.removed, diff.changed, diff.unchanged) == (1, 1, 1, 2)
    assert diff.largest_change == {"alpha": 2.5, "beta": 0.0}
    nothing = diff_posteriors(old, new.iloc[3:])
    assert (nothing.added, nothing.removed, nothing.changed, nothing.largest_change) == (1, 4, 0, {})


def test_diff_of_two_snapshots(tmp_path: Path, filled: SnapshotConfig) -> None:
    diff = diff_snapshots("posterior/run-1/2", "posterior/run-1/9", filled)
    assert (diff.added, diff.removed, diff.changed, diff.unchanged) == (0, 0, 100, 0)
    assert 0 < diff.largest_change["alpha"] < 1
    assert diff.lineage == {"parent": (1, 8)}


def test_a_folder_that_is_taken_away_is_not_taken_for_a_missing_git(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="is gone"):
        commands.git(tmp_path / "gone", "status")
