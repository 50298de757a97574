"""The local store where things go wrong: full disk, killed writers, stuck locks, other file systems."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, CorruptArtifact, StoreUnavailable, SystemRefused
from cures_core.testing.store import folder_of
from tasks.storage import LocalStore, open_store
from tasks.storage import local as local_module
from tests.tasks.storage.vanishing import vanishing

ROOT = Path(__file__).resolve().parents[3]

FILL = """
import sys
from pathlib import Path
from cures_core.errors import StoreUnavailable
from tasks.storage import LocalStore
root = Path(sys.argv[1])
store = LocalStore(root / "full" / "store")
store.put("old", b"o" * 1000)
source = root / "source"
source.mkdir()
(source / "big").write_bytes(b"b" * 3_000_000)
writes = [lambda: store.put("old", b"n" * 3_000_000), lambda: store.put_if_absent("new", b"n" * 3_000_000),
          lambda: store.publish_files("art", source)]
for write in writes:
    try:
        write()
    except StoreUnavailable as error:
        print(error)
assert store.get("old") == b"o" * 1000
assert store.get("new") is None
assert not (store.root / "art").exists()
assert list((store.root / ".tmp").iterdir()) == []
(source / "big").write_bytes(b"b")
store.publish_files("art", source)
store.verify_files("art")
"""


def test_open_store_takes_the_configured_folder(tmp_path: Path) -> None:
    open_store(StoreConfig(url=str(tmp_path / "s"))).put("k", b"v")
    assert (tmp_path / "s" / "k").read_bytes() == b"v"


def test_a_really_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    script = f'mount -t tmpfs -o size=1m none "$0/full" && exec "{sys.executable}" -c "$1" "$0"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(tmp_path), FILL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("no right to mount a small file system here")
    assert done.returncode == 0, done.stderr
    messages = done.stdout.splitlines()
    assert len(messages) == 3
    for message, name in zip(messages, ("old", "new", "art"), strict=True):
        assert f"full/store/{name}: the disk is full, 3,000,0" in message
        assert "bytes are needed" in message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
def test_refusals_of_the_system_name_the_path_and_leave_the_old_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = LocalStore(tmp_path)
    store.put("k", b"old")

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        for write in (lambda: store.put("k", b"new"), lambda: store.compare_and_swap("k", b"old", b"new")):
            with pytest.raises((StoreUnavailable, SystemRefused), match="/k: ") as refused:
                write()
            assert refused.value.retryable is (number not in (errno.EACCES, errno.EROFS))
    assert store.get("k") == b"old"
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_files_from_another_file_system_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder_of(tmp_path / "in", {"a": b"1", "b/c/d": b"2"})
    rename = Path.rename

    def refuse_once(path: Path, target: Path) -> Path:
        if path == source:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_once)
    store = LocalStore(tmp_path / "store")
    digest = store.publish_files("art", source)
    store.verify_files("art", digest)
    assert (source / "a").read_bytes() == b"1"


def test_leftovers_of_dead_writers_are_swept_after_an_hour(tmp_path: Path) -> None:
    LocalStore(tmp_path).put("k", b"v")
    scratch = tmp_path / ".tmp"
    folder_of(scratch, {"old": b"", "oldfolder/x": b"", "new": b"", "growing/x": b"", "growing/old": b""})
    hour_ago = time.time() - 3700
    for name in ("old", "oldfolder/x", "oldfolder", "growing/old", "growing"):
        os.utime(scratch / name, (hour_ago, hour_ago))
    LocalStore(tmp_path).put("k", b"w")
    assert sorted(p.name for p in scratch.iterdir()) == ["growing", "new"]


def test_leftovers_of_a_killed_writer_are_swept_by_the_next_one_on_its_machine(tmp_path: Path) -> None:
    """Those of one that lives are its own, stopped or not; so are those of another machine, as far as anyone knows."""
    store = LocalStore(tmp_path)
    writers = []
    for _ in range(2):
        if (pid := os.fork()) == 0:
            folder_of(store._scratch_path(), {"weights": b"w"})
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        os.waitpid(pid, os.WUNTRACED)
        writers.append(pid)
    killed, lives = writers
    theirs = next((tmp_path / ".tmp").glob(f"*-{killed}-*"))
    elsewhere = theirs.with_name(f"{'0' * 16}-{theirs.name.partition('-')[2]}")
    elsewhere.touch()
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    try:
        LocalStore(tmp_path).put("k", b"w")
        left = sorted(path.name for path in (tmp_path / ".tmp").iterdir())
        assert left == sorted([elsewhere.name, *(p.name for p in (tmp_path / ".tmp").glob(f"*-{lives}-*"))])
        assert len(left) == 2
    finally:
        os.kill(lives, signal.SIGKILL)
        os.waitpid(lives, 0)


def test_a_lock_that_is_never_given_back_names_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_module, "_LOCK_WAIT_S", 0.1)
    store, other = LocalStore(tmp_path), LocalStore(tmp_path)
    store.put("k", b"1")
    with store._locked("k"), pytest.raises(StoreUnavailable, match=f"process {os.getpid()} while k was to be written"):
        other.compare_and_swap("k", b"1", b"2")
    assert other.compare_and_swap("k", b"1", b"2")


def test_one_name_cannot_be_a_value_and_a_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"")
    store.put("b/c", b"")
    with pytest.raises(ConfigError, match="Use another key"):
        store.put("a/b", b"")
    with pytest.raises(ConfigError, match="Use another key"):
        store.put("b", b"")
    assert store.get("a/b") is None
    assert store.get("b") is None


WRITER = """
import sys
from pathlib import Path
from cures_core.testing.store import folder_of
from tasks.storage import LocalStore
store = LocalStore(sys.argv[1])
number = int(store.get("number") or b"0")
print("ready", flush=True)
while True:
    number += 1
    text = str(number).encode()
    store.put("number", text)
    store.put("value", text * 20_000)
    store.put_if_absent(f"once/{number}", text * 20_000)
    store.compare_and_swap("value", text * 20_000, text * 10_000)
    store.publish_files("art", folder_of(store.root / "scratch" / text.decode(), {"a": text * 9_000, "b/c": text}))
"""


def kill_writer(root: Path, seconds: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = LocalStore(root)
    number = store.get("number")
    if number is None:
        return
    # A writer that was killed between the two leaves "value" behind "number"; several in a row leave it further behind.
    recent = [str(n).encode() for n in range(max(1, int(number) - 9), int(number) + 1)]
    assert (store.get("value") or b"") in {b"", *(text * times for text in recent for times in (10_000, 20_000))}
    for key in store.list("once"):
        assert store.get(key) == key.split("/")[1].encode() * 20_000
    try:
        digest = hashlib.sha256((store.local_path("art") / "manifest.json").read_bytes()).hexdigest()
    except CorruptArtifact:
        return  # between the old and the new one
    store.verify_files("art", digest)


def test_killed_at_random_instants_values_and_files_are_whole(tmp_path: Path) -> None:
    for seconds in np.random.default_rng(0).uniform(0, 0.15, 5):
        kill_writer(tmp_path, float(seconds))


@pytest.mark.slow
def test_killed_two_hundred_times_values_and_files_are_whole(tmp_path: Path) -> None:
    for seconds in np.random.default_rng(1).uniform(0, 0.15, 200):
        kill_writer(tmp_path, float(seconds))


def test_every_flipped_byte_and_truncation_is_found(tmp_path: Path) -> None:
    store, rng = LocalStore(tmp_path / "store"), np.random.default_rng(0)
    files = {"weights": rng.bytes(5000), "state.json": b'{"step": 3}', "deep/er": rng.bytes(100)}
    digest = store.publish_files("art", folder_of(tmp_path / "in", files))
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "store" / "art", whole)
    names = [*files, "manifest.json"]
    for _ in range(1000):
        path = tmp_path / "store" / "art" / names[int(rng.integers(len(names)))]
        data = bytearray(path.read_bytes())
        place = int(rng.integers(len(data)))
        if rng.random() < 0.5:
            data[place] ^= 1 << int(rng.integers(8))
        else:
            del data[place:]
        path.write_bytes(data)
        with pytest.raises(CorruptArtifact):
            store.verify_files("art", digest)
        path.write_bytes((whole / path.relative_to(tmp_path / "store" / "art")).read_bytes())
    store.verify_files("art", digest)


def test_what_begins_with_a_dot_is_not_listed_wherever_it_lies(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for key in ("a/b.json", "a/c/d.json"):
        store.put(key, b"1")
    for hidden in ("a/.b.json.tmp", "a/.scratch/e.json"):
        path = tmp_path / hidden
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"1")
    assert list(store.list("a")) == ["a/b.json", "a/c/d.json"]


@pytest.mark.parametrize("look", [1, 2, 3, 4])
def test_what_others_delete_meanwhile_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: int) -> None:
    store = LocalStore(tmp_path / "store")
    for key in ("a/b/c", "a/z"):
        store.put(key, b"1")
    vanishing(tmp_path / "store" / "a" / "b", look, monkeypatch)
    assert list(store.list("a"))[-1] == "a/z"


@pytest.mark.parametrize("look", range(1, 9))
def test_what_is_deleted_while_it_is_verified_is_told_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    store = LocalStore(tmp_path / "store")
    store.publish_files("art", folder_of(tmp_path / "in", {"a": b"1", "b/c": b"2"}))
    vanishing(tmp_path / "store" / "art", look, monkeypatch)
    with pytest.raises(CorruptArtifact, match=r"gone|manifest"):
        store.verify_files("art")


def test_a_folder_that_is_gone_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match=r"store/art: no such folder\. .* run its stage again"):
        LocalStore(tmp_path / "store").local_path("art")
