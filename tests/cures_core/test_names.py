"""Names from outside: whatever they are, nothing is written outside of the folder they are for."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cures_core.errors import ConfigError, DataRejected
from cures_core.names import check_file_name, check_key, check_part, check_revision, check_tag, inside
from cures_core.prompts.columnar import dataset_files

PARTS = st.one_of(
    st.sampled_from(
        ["..", ".", "", "/", "//", "~", "etc", "a\\b", "\0", "\n", " ", "C:", "..\\..", "x" * 300, "\u2028"]
    ),
    st.text(max_size=12),
)
NAMES = st.lists(PARTS, min_size=1, max_size=6).map("/".join)
HOSTILE = [
    "",
    "/etc/x",
    "../x",
    "a/../../x",
    "a//etc/x",
    "a/",
    "a\0b",
    "a\nb",
    "a\\..\\b",
    ".",
    "a/./b",
    "x" * 300,
    "\ud800",
]


def written_below(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*")}


@given(NAMES)
@example("/etc/x")
@example("..")
@example("a/..")
def test_what_passes_is_written_inside_of_the_folder_and_nothing_else_is(name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place).resolve()
        folder = root / "deep" / "er" / "folder"
        folder.mkdir(parents=True)
        before = written_below(root)
        try:
            path = inside(folder, name, "s3://bucket/set", DataRejected)
        except DataRejected:
            assert written_below(root) == before
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        assert path.resolve().is_relative_to(folder)
        assert path.resolve() != folder
        assert all(new.startswith("deep/er/folder/") for new in written_below(root) - before)


@given(NAMES)
def test_the_stricter_doors_let_nothing_through_that_the_wide_one_refuses(name: str) -> None:
    for door in (check_key, check_file_name, check_tag, lambda n: check_part(n, "here")):
        try:
            door(name)
        except ConfigError:
            continue
        assert inside(Path("folder"), name, "here") == Path("folder") / name


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_by_every_door(name: str) -> None:
    for door in (check_key, check_file_name, check_tag, check_revision, lambda n: check_part(n, "here")):
        if door is check_revision and name in ("/etc/x", "a//etc/x", "a/", ".", "a/./b"):
            continue  # git has no such revision
        with pytest.raises(ConfigError):
            door(name)
    with pytest.raises(DataRejected, match=r"^s3://b/set: holds the name .* rename it there$") as caught:
        inside(Path("folder"), name, "s3://b/set", DataRejected)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["train.parquet", "data/train 1.parquet", "数据/訓練.jsonl", "..a/b..", "a..b", ".hidden"]
)
def test_ordinary_names_pass(name: str) -> None:
    assert inside(Path("folder"), name, "here") == Path("folder") / name


@pytest.mark.parametrize("revision", ["main", "v1.2", "HEAD~1", "HEAD^", "feature/größe", "0123abc", "posterior/run/3"])
def test_ordinary_revisions_pass(revision: str) -> None:
    assert check_revision(revision) == revision


@pytest.mark.parametrize("revision", ["--help", "-x", "a..b", "main:path", "a b", "a\n", "*", "", "x" * 300])
def test_options_ranges_paths_and_patterns_are_no_revisions(revision: str) -> None:
    with pytest.raises(ConfigError, match="name a branch, tag or commit"):
        check_revision(revision)


@pytest.mark.parametrize("name", ["../outside.arrow", "/etc/passwd", "a/b.arrow", "..", "", "a\0b"])
def test_a_saved_dataset_cannot_name_files_outside_of_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "outside.arrow").write_bytes(b"")
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataRejected, match=r"state\.json"):
        dataset_files(folder)
