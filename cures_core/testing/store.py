"""Knows what every store must do: subclass `StoreExam` in a test module and give it your store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from cures_core.errors import ConfigError, CorruptArtifact
from cures_core.files import digest_file
from cures_core.manifest import MANIFEST

BAD_KEYS = ("", "/", "a/", "/a", "../a", "a/../b", "a//b", "a b", ".hidden", "a/.hidden", "a\n", "ä", "a\\b", "x" * 513)
BAD_NAMES = ("a\nb", "ä.json", "back\\slash", "semi;colon", "star*")


class AnyStore(Protocol):
    """The methods of `tasks.storage.Store`."""

    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, data: bytes) -> None: ...
    def put_if_absent(self, key: str, data: bytes) -> bool: ...
    def compare_and_swap(self, key: str, expected: bytes | None, data: bytes) -> bool: ...
    def delete(self, prefix: str) -> None: ...
    def list(self, prefix: str) -> Iterator[str]: ...
    def publish_files(self, prefix: str, folder: Path) -> str: ...
    def verify_files(self, prefix: str, manifest: str | None = None, *, deep: bool = True) -> None: ...
    def local_path(self, prefix: str) -> Path: ...


class StoreExam:
    """The promises of `Store`, as tests. A subclass (named `Test...`, so that pytest finds it) defines the two methods.

    Each test gets an empty store. `make` is called more than once in a test: all stores it returns share their state.
    """

    def make(self, tmp_path: Path) -> AnyStore:
        """A store over the same state for the same `tmp_path`, as another process would open it."""
        raise NotImplementedError

    def damage(self, tmp_path: Path, key: str, change: Callable[[bytes], bytes | None]) -> None:
        """Change a stored file behind the store's back; None removes it."""
        raise NotImplementedError

    def test_values_come_back_as_written(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        assert store.get("a/b.json") is None
        for data in (b"", b"\x00\xff\r\n", b"x" * 300_000):
            store.put("a/b.json", data)
            assert self.make(tmp_path).get("a/b.json") == data

    def test_put_if_absent_writes_once(self, tmp_path: Path) -> None:
        assert self.make(tmp_path).put_if_absent("k", b"first")
        assert not self.make(tmp_path).put_if_absent("k", b"second")
        assert self.make(tmp_path).get("k") == b"first"

    def test_compare_and_swap_needs_the_expected_value(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        assert not store.compare_and_swap("k", b"", b"1")
        assert store.compare_and_swap("k", None, b"1")
        assert not store.compare_and_swap("k", None, b"2")
        assert not store.compare_and_swap("k", b"2", b"3")
        assert store.compare_and_swap("k", b"1", b"2")
        assert store.get("k") == b"2"

    def test_of_many_concurrent_first_writes_one_counts(self, tmp_path: Path) -> None:
        for round_ in range(5):
            key = f"race/{round_}"

            def write(i: int, key: str = key) -> bool:
                return self.make(tmp_path).put_if_absent(key, b"%d" % i)

            won = self.at_once(write, 8)
            assert sum(won) == 1
            assert self.make(tmp_path).get(key) == b"%d" % won.index(True)

    def test_concurrent_swaps_lose_no_increment(self, tmp_path: Path) -> None:
        def count(_: int) -> bool:
            store, done = self.make(tmp_path), 0
            while done < 10:
                value = store.get("counter")
                done += store.compare_and_swap("counter", value, b"%d" % (int(value or 0) + 1))
            return True

        self.at_once(count, 4)
        assert self.make(tmp_path).get("counter") == b"40"

    def test_list_is_sorted_and_stays_below_the_prefix(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        for key in ("runs/b/1", "runs/a/2", "runs/a/1", "runs-other/x", "runs.json"):
            store.put(key, b"")
        assert list(store.list("runs")) == ["runs/a/1", "runs/a/2", "runs/b/1"]
        assert list(store.list("nothing")) == []

    def test_delete_removes_a_value_or_all_below_a_prefix(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        for key in ("a/1", "a/b/2", "ab"):
            store.put(key, b"x")
        store.delete("a")
        assert [store.get(key) for key in ("a/1", "a/b/2", "ab")] == [None, None, b"x"]
        store.delete("ab")
        store.delete("ab")
        assert store.get("ab") is None
        assert store.put_if_absent("ab", b"again")

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_keys_outside_the_allowed_names_are_refused(self, tmp_path: Path, key: str) -> None:
        store = self.make(tmp_path)
        calls: list[Callable[[], object]] = [
            lambda: store.get(key),
            lambda: store.put(key, b""),
            lambda: store.put_if_absent(key, b""),
            lambda: store.compare_and_swap(key, b"", b""),
            lambda: store.delete(key),
            lambda: list(store.list(key)),
            lambda: store.publish_files(key, folder_of(tmp_path / "in", {"a": b""})),
            lambda: store.verify_files(key),
            lambda: store.local_path(key),
        ]
        for call in calls:
            with pytest.raises(ConfigError):
                call()

    def test_published_files_come_back(self, tmp_path: Path) -> None:
        files = {"weights.bin": bytes(range(256)) * 1000, "deep/er/x.json": b"{}", ".hidden": b"h", "empty": b""}
        files["deep/manifest.json"] = b"an inner folder's own"
        digest = self.make(tmp_path).publish_files("art/one", folder_of(tmp_path / "in", files))
        store = self.make(tmp_path)
        store.verify_files("art/one", digest)
        place = store.local_path("art/one")
        assert {name: (place / name).read_bytes() for name in files} == files
        assert digest_file(place / MANIFEST) == digest

    def test_publishing_the_same_again_changes_nothing_and_other_files_replace(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        first = store.publish_files("art", folder_of(tmp_path / "a", {"x": b"1", "gone": b""}))
        assert store.publish_files("art", folder_of(tmp_path / "b", {"x": b"1", "gone": b""})) == first
        second = store.publish_files("art", folder_of(tmp_path / "c", {"x": b"2"}))
        assert second != first
        store.verify_files("art", second)
        place = store.local_path("art")
        assert (place / "x").read_bytes() == b"2"
        assert not (place / "gone").exists()
        with pytest.raises(CorruptArtifact):
            store.verify_files("art", first)

    def test_files_that_were_not_finished_are_refused(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        for check in (store.verify_files, store.local_path):
            with pytest.raises(CorruptArtifact):
                check("art")
        store.publish_files("art", folder_of(tmp_path / "in", {"x": b"1"}))
        self.damage(tmp_path, f"art/{MANIFEST}", lambda _: None)
        with pytest.raises(CorruptArtifact):
            self.make(tmp_path).verify_files("art")

    @pytest.mark.parametrize(
        ("change", "deep"),
        [
            (lambda data: data[:-1] + bytes([data[-1] ^ 1]), True),
            (lambda data: data[:-1], False),
            (lambda data: data + b"x", False),
            (lambda data: b"", False),
            (lambda data: None, False),
        ],
    )
    def test_damage_is_found_and_named(
        self, tmp_path: Path, change: Callable[[bytes], bytes | None], deep: bool
    ) -> None:
        self.make(tmp_path).publish_files("art", folder_of(tmp_path / "in", {"x": b"x", "sub/y.bin": b"abc"}))
        self.damage(tmp_path, "art/sub/y.bin", change)
        with pytest.raises(CorruptArtifact, match=r"sub/y\.bin"):
            self.make(tmp_path).verify_files("art", deep=deep)

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"files":[]}', b'{"files":{"../../x":{"bytes":0}}}'])
    def test_a_manifest_that_is_none_is_refused(self, tmp_path: Path, data: bytes) -> None:
        self.make(tmp_path).publish_files("art", folder_of(tmp_path / "in", {"x": b"x"}))
        self.damage(tmp_path, f"art/{MANIFEST}", lambda _: data)
        store = self.make(tmp_path)
        for check in (store.verify_files, lambda prefix: store.verify_files(prefix, deep=False)):
            with pytest.raises(CorruptArtifact):
                check("art")

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_file_names_outside_the_allowed_ones_are_refused(self, tmp_path: Path, name: str) -> None:
        store = self.make(tmp_path)
        with pytest.raises(ConfigError):
            store.publish_files("art", folder_of(tmp_path / "in", {name: b""}))
        assert list(store.list("art")) == []

    def test_links_are_not_published(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path / "in", {"x": b""})
        (folder / "link").symlink_to("/etc/hostname")
        with pytest.raises(ConfigError, match="link"):
            self.make(tmp_path).publish_files("art", folder)

    @staticmethod
    def at_once(work: Callable[[int], bool], number: int) -> list[bool]:
        """Run `work(0) ... work(number - 1)` in threads that start together; a thread's error fails the test."""
        start, results, errors = threading.Barrier(number), [False] * number, list[Exception]()

        def body(i: int) -> None:
            try:
                start.wait()
                results[i] = work(i)
            except Exception as error:  # a thread's boundary: raised again below
                errors.append(error)

        threads = [threading.Thread(target=body, args=(i,)) for i in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return results


def folder_of(folder: Path, files: dict[str, bytes]) -> Path:
    """Write `files` (relative name to bytes) below a new folder and return it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
