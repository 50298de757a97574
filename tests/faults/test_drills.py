"""The drills can be run: each quick one once, and their record says what happened, goes on and names what failed."""

from __future__ import annotations

import gzip
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cures_core.errors import ConfigError
from tests.faults.drills import stages
from tests.faults.harness import Fault, Series, Tally, Try, read_tallies
from tests.faults.invariants import CANARIES, check_nothing_is_left
from tests.faults.matrix import MATRIX, ROWS, chosen
from tests.faults.page import PAGE, load_kept, page

QUICK = (
    "schedule", "clock_steps", "damage_values", "damage_unfinished", "stop_in_epoch", "not_finite", "verifier_ends",
    "changed_inputs", "migrated_posterior", "malformed_rows", "random_bytes", "s3_refuses",
)  # fmt: skip
"""The rest takes a process, a server or a second a try; all of them are tried where it is worth the time."""


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tries leave that did not hold goes with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def luck(t: Try) -> Mapping[str, int]:
    """Holds twice in three times, by its own random numbers."""
    number = int(t.rng.integers(1 << 30))
    assert t.rng.random() < 0.66, f"number {number}"
    return {"numbers": number}


LUCK = Fault("luck", (1,), "chance", "luck", "part", luck)


def tally(folder: Path) -> Tally:
    return read_tallies(folder)["luck"]


def test_every_row_of_the_matrix_has_a_drill_and_every_drill_a_name() -> None:
    assert {row for fault in MATRIX for row in fault.rows} == set(ROWS)
    assert len({fault.name for fault in MATRIX}) == len(MATRIX)
    assert chosen("10,stack=3", 7) == [(f, 7) for f in MATRIX if 10 in f.rows] + [
        (f, 3) for f in MATRIX if f.form == "stack"
    ]
    assert chosen("", 7) == [(f, 7) for f in MATRIX]
    for wrong in ("kill_jobs", "kill_job=x"):
        with pytest.raises(ConfigError, match=wrong):
            chosen(wrong, 7)


def test_a_session_that_is_broken_off_goes_on_with_the_same_tries(tmp_path: Path) -> None:
    whole, parts = Series(tmp_path / "whole", 7, lambda _: None), Series(tmp_path / "parts", 7, lambda _: None)
    assert not whole.run([(LUCK, 30)])
    for number in (4, 4, 19, 30):
        parts.run([(LUCK, number)])
    one, two = tally(tmp_path / "whole"), tally(tmp_path / "parts")
    assert (one.tries, one.held + len(one.failures)) == (30, 30)
    assert 5 < one.held < 28
    assert [f.number for f in one.failures] == [f.number for f in two.failures]
    assert one.counts == two.counts
    with pytest.raises(ConfigError, match="seed 7"):
        Series(tmp_path / "whole", 8, lambda _: None).run([(LUCK, 31)])


def test_a_failing_try_is_repeated_by_its_command(tmp_path: Path) -> None:
    said: list[str] = []
    series = Series(tmp_path, 7, said.append)
    series.run([(LUCK, 30)])
    failure = tally(tmp_path).failures[0]
    assert failure.command == f"make drills ONLY=luck SEED=7 N=1 FIRST={failure.number}"
    assert any(failure.command in line for line in said)
    assert not series.repeat(LUCK, 1, failure.number)
    again = said[-1]
    assert failure.error.splitlines()[0] in again  # with the same number
    assert tally(tmp_path).tries == 30


def leaky(t: Try) -> Mapping[str, int]:
    (t.folder / "log").write_text(f"token {CANARIES['HF_TOKEN']}")
    return {}


PACKED = CANARIES["JUDGE_API_KEY"] + " " * 200  # whatever packs a text this long makes it shorter


def in_git(folder: Path, *, pack: bool) -> None:
    (folder / "file").write_text(PACKED)
    further = ("-c user.name=u -c user.email=u@u commit -q -m x", "repack -q -a -d") if pack else ()
    for command in ("init -q .", "add file", *further):
        subprocess.run(["git", "-C", str(folder), *command.split()], check=True)
    (folder / "file").unlink()


def in_parquet(folder: Path) -> None:
    table = pa.table({"text": [PACKED] * 9, "parts": [[{"x": PACKED}]] * 9})
    pq.write_table(table, folder / "table.parquet", compression="gzip", write_statistics=False)


def in_gzip(folder: Path) -> None:
    (folder / "set.jsonl.gz").write_bytes(gzip.compress(PACKED.encode()))


def in_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "pages.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("page", PACKED)


@pytest.mark.parametrize(
    "write",
    [partial(in_git, pack=False), partial(in_git, pack=True), in_parquet, in_gzip, in_zip],
    ids=["object", "pack", "parquet", "gzip", "zip"],
)
def test_a_secret_is_found_in_what_is_packed(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    assert not any(CANARIES["JUDGE_API_KEY"].encode() in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    check_nothing_is_left(tmp_path, ["another"])
    with pytest.raises(AssertionError, match="a secret in"):
        check_nothing_is_left(tmp_path, CANARIES.values())


def untried(_: Try) -> Mapping[str, int]:
    pytest.skip("no such server here")


def test_a_secret_that_turns_up_is_a_failure_and_what_cannot_be_tried_is_said(tmp_path: Path) -> None:
    series = Series(tmp_path, 1, lambda _: None)
    assert not series.run([(replace(LUCK, name="leaky", trial=leaky), 1)])
    assert series.run([(replace(LUCK, name="untried", trial=untried), 1)])
    found = read_tallies(tmp_path)
    assert "a secret in" in found["leaky"].failures[0].error
    assert (found["untried"].tries, found["untried"].skipped) == (0, "no such server here")


class Ended:
    """A run whose stage ends before it is killed, so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, *_: object) -> Ended:
        return self

    def wait_for(self, stage: str) -> None:
        """It has begun."""

    def kill(self, *, with_children: bool) -> None:
        self.left -= 1

    def end(self) -> str:
        return "StageEnded promote\n" if self.left >= 0 else ""


@pytest.mark.parametrize("times", [0, 3])
def test_a_kill_that_comes_after_the_stage_is_missed_and_not_counted(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = SimpleNamespace(config=None, seconds={"promote": 0.001}, store_before=lambda *_: None)
    monkeypatch.setattr(stages, "undisturbed", lambda _: calm)
    monkeypatch.setattr(stages, "start", Ended(times))
    ran: list[Path] = []
    monkeypatch.setattr(stages, "to_the_end", lambda folder, _: ran.append(folder))
    monkeypatch.setattr(stages, "_check", lambda *_: None)
    t = Try(np.random.default_rng(1), tmp_path, tmp_path)
    counts = stages.kill_in(t, stages.PROMOTION)
    assert (counts["kills"], counts["missed"]) == (1, times)
    assert ran == [tmp_path / str(times)]
    monkeypatch.setattr(stages, "start", Ended(stages.PATIENCE))
    with pytest.raises(AssertionError, match="ended 30 times before it was killed"):
        stages.kill_in(t, stages.PROMOTION)


def test_quick_drills_hold(tmp_path: Path) -> None:
    said: list[str] = []
    assert Series(tmp_path, 3, said.append).run(chosen(",".join(QUICK), 1)), "\n".join(said)
    assert {name: found.held for name, found in read_tallies(tmp_path).items()} == dict.fromkeys(QUICK, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [f.name for f in MATRIX if f.name not in QUICK and f.form in ("part", "job")])
def test_every_other_drill_of_a_part_or_a_job_holds_once(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert Series(tmp_path, 3, said.append).run(chosen(name, 1)), "\n".join(said)


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", [f.name for f in MATRIX if f.form in ("command", "stack")])
def test_every_drill_of_the_command_and_of_a_server_holds_once(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert Series(tmp_path, 3, said.append).run(chosen(name, 1)), "\n".join(said)


def test_the_page_tells_what_was_kept() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, load_kept()) == text
    assert {tally.fault for tally in load_kept().tallies} <= {fault.name for fault in MATRIX}
