"""The built-in sets: whole or made again, whoever was killed while making them, and however many start at once."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cures_core.errors import MissingInput
from cures_core.files import digest_file
from tasks.inputs.builtin import ASIDE, EARLIER, FILES, ensure_builtin, folder_digest, is_builtin
from tests.end_to_end.pipeline import PROJECT

TRAIN = Path("data/chains/train.jsonl")
CODE = f"from pathlib import Path\nfrom tasks.inputs.builtin import ensure_builtin\nensure_builtin(Path('{TRAIN}'))"
USE = [sys.executable, "-c", CODE]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without anything, such as one where an installed `cures` is run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkout(bare: Path) -> Path:
    """What a fresh clone has: no data, no DVC cache."""
    for name in (".dvc/config", ".dvcignore", "data.dvc"):
        (bare / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, bare / name)
    return bare


def wrong() -> list[str]:
    """Names of built-in files that are missing or not what they should be, and of others that lie there."""
    there = {p.relative_to("data").as_posix(): p for p in Path("data").rglob("*") if p.is_file()}
    whole = {n for n, p in there.items() if n in FILES and p.stat().st_size == FILES[n][0] and md5(p) == FILES[n][1]}
    return sorted((there.keys() | FILES.keys()) - whole)


def md5(path: Path) -> str:
    import hashlib

    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_the_table_is_what_the_generators_write_and_data_dvc_tracks(checkout: Path) -> None:
    ensure_builtin(TRAIN)
    assert wrong() == []
    found = re.search(r"md5: (\w+)\.dir", (checkout / "data.dvc").read_text())
    assert found is not None
    assert found[1] == folder_digest()


@pytest.mark.slow
def test_dvc_finds_nothing_changed_in_a_fresh_clone(checkout: Path) -> None:
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    ensure_builtin(TRAIN)
    done = subprocess.run([sys.executable, "-m", "dvc", "commit", "-f"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (checkout / "data.dvc").read_text() == (PROJECT / "data.dvc").read_text()


@pytest.mark.parametrize("size", [0, 5000])
@pytest.mark.parametrize("place", ["bare", "checkout"])
def test_a_truncated_file_is_made_again(place: str, size: int, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(place)
    ensure_builtin(TRAIN)
    os.truncate(TRAIN, size)
    ensure_builtin(TRAIN)
    assert wrong() == []


def test_other_bytes_in_a_checkout_are_set_aside_and_made_again_and_it_is_said(
    checkout: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_builtin(TRAIN)
    data = bytearray(TRAIN.read_bytes())
    data[777] ^= 1
    TRAIN.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        ensure_builtin(TRAIN)
    assert wrong() == []
    (kept,) = (p for p in ASIDE.rglob("*") if p.is_file())
    assert kept.read_bytes() == data
    assert f"{TRAIN}: not the built-in set" in caplog.text
    assert str(kept) in caplog.text


def test_a_file_of_ones_own_is_left_alone_outside_of_a_checkout(bare: Path) -> None:
    TRAIN.parent.mkdir(parents=True)
    TRAIN.write_text('{"problem": "1+1", "answer": "2"}\n')
    before = digest_file(TRAIN)
    ensure_builtin(TRAIN)
    ensure_builtin(Path("data/sums/train.jsonl"))
    assert (digest_file(TRAIN), wrong()) == (before, ["chains/train.jsonl"])


def test_where_data_dvc_tracks_other_data_nothing_is_made(checkout: Path) -> None:
    Path("data.dvc").write_text(Path("data.dvc").read_text().replace(folder_digest(), "0" * 32))
    with pytest.raises(MissingInput, match="dvc pull"):
        ensure_builtin(TRAIN)
    assert not Path("data").exists()
    TRAIN.parent.mkdir(parents=True)
    TRAIN.write_text("mine")
    ensure_builtin(TRAIN)
    assert TRAIN.read_text() == "mine"


def test_a_data_dvc_from_before_the_mixture_tracks_our_sets_too(checkout: Path) -> None:
    was = (checkout / "data.dvc").read_text().replace(folder_digest(), EARLIER)
    Path("data.dvc").write_text(was)
    ensure_builtin(TRAIN)
    assert wrong() == []
    assert is_builtin(TRAIN, was.encode())
    assert not is_builtin(Path("data/mixed/train.jsonl"), was.encode())  # was not there then
    assert is_builtin(Path("data/mixed/train.jsonl"), (PROJECT / "data.dvc").read_bytes())


def test_what_is_not_built_in_is_left_alone(checkout: Path) -> None:
    for name in ("data/mine/train.jsonl", "elsewhere/chains/train.jsonl", "data/chains/mine.jsonl"):
        ensure_builtin(Path(name))
    assert not (checkout / "data").exists()


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT), **more}


@pytest.mark.parametrize("name", ["chains/frontier.jsonl", "chains/train.jsonl", "sums/train.jsonl"])
def test_a_kill_while_they_are_made_costs_nothing(name: str, checkout: Path) -> None:
    faults = {"CURES_FAULTS": f"builtin.before_file:{name}=kill", "CURES_FAULTS_DIR": str(checkout / "faults")}
    assert subprocess.run(USE, env=environment(**faults), check=False).returncode == -9
    assert wrong() != []
    (checkout / "data/chains").mkdir(parents=True, exist_ok=True)
    (checkout / "data/chains/.train.jsonl.4194999.tmp").write_text("of a writer that was killed")
    ensure_builtin(TRAIN)
    ensure_builtin(Path("data") / name)
    assert wrong() == []


def test_several_first_starts_at_once_all_find_whole_sets(checkout: Path) -> None:
    TRAIN.parent.mkdir(parents=True)
    TRAIN.write_text("cut")  # one more reason to write
    look = f"{CODE}\nprint(len(Path('{TRAIN}').read_bytes()))"
    starts = [
        subprocess.Popen([*USE[:2], look], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    said = [start.communicate() for start in starts]
    assert [out.strip() for out, _ in said] == [b"146913"] * 4, said
    assert wrong() == []
