"""Runs in short, and their names in short."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from flows.cli.main import app
from flows.cli.runs import Order, in_order
from tasks.runs.listing import Listed, list_runs
from tasks.runs.notes import Purpose, Status, find_run, note_stage, started_place, status_place
from tasks.runs.opening import open_run
from tasks.runs.records import Record, record_bytes, record_place
from tasks.storage import open_store
from tasks.storage.values import encode_value
from tests.tasks.stages.figures import figures_of
from tests.tasks.stages.starts import config_in

LONG_AGO, LATER = "2020-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"
_KEYS = itertools.count()


def score(value: float) -> dict[str, Any]:
    return {"value": value, "low": 0.0, "high": 1.0}


class Play:
    """Runs that have done what they are told."""

    def __init__(self, folder: Path) -> None:
        self.config = config_in(folder, 1e-4)
        self.store = open_store(self.config.store)

    def run(
        self, name: str, *stages: tuple[str, str, dict[str, Any]], purpose: Purpose = "training", **more: Any
    ) -> str:
        """Each stage: name, label, and fields of its record, `figures` among them."""
        config = RunConfig.model_validate({**self.config.model_dump(), "name": name, **more})
        with open_run(config, purpose) as ref:
            for stage, label, fields in stages:
                figures = figures_of(stage, **fields.pop("figures", {}))
                record = Record(stage=stage, key=f"k{next(_KEYS)}", inputs={}, figures=figures, **fields)
                self.store.put(record_place(stage, record.key), record_bytes(record))
                note_stage(self.store, ref, label, record, cached=True)  # as every stage of a resumed run is
        return ref.name

    def listed(self, run: str) -> Listed:
        return next(row for row in list_runs(self.store) if row.run == run)


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


def evaluation(epoch: int, **scores: float) -> tuple[str, str, dict[str, Any]]:
    shown = {suite: score(value) for suite, value in scores.items()}
    return "evaluate_checkpoint", str(epoch), {"figures": {"scores": shown}, "created_at": LATER, "seconds": 2.0}


def test_a_row_says_what_a_run_came_to_and_what_it_cost(play: Play) -> None:
    prior = ("estimate_prior", "", {"created_at": LONG_AGO, "seconds": 100.0})
    epoch = ("train_epoch", "2", {"created_at": LATER, "seconds": 30.0})
    name = play.run("one", prior, epoch, evaluation(0, easy=0.5, hard=0.1), evaluation(2, easy=0.75, hard=0.4))
    row = play.listed(name)
    assert (row.status, row.purpose) == ("completed", "training")
    assert (row.suite, row.score, row.gain) == ("easy", 0.75, 0.25)
    assert (row.seconds, row.cached, row.stages) == (34.0, 1, 4), "taken over is what was there before the run"
    assert row.started


def test_the_suite_is_the_one_that_the_gate_asks_a_gain_of(play: Play) -> None:
    evaluated = {"suites": [{"name": name, "path": play.config.data.path} for name in ("easy", "hard")]}
    scored = (evaluation(0, easy=0.5, hard=0.1), evaluation(1, easy=0.6, hard=0.3))
    name = play.run("gated", *scored, evaluation=evaluated, promotion={"model": "m", "suites": ["hard"]})
    row = play.listed(name)
    assert (row.suite, row.score) == ("hard", 0.3)
    assert row.gain == pytest.approx(0.2)


def test_a_run_that_was_resumed_shows_its_own_stages_as_its_own(play: Play) -> None:
    prior = ("estimate_prior", "", {"created_at": LONG_AGO, "seconds": 100.0})
    name = play.run("one", prior, ("train_epoch", "2", {"created_at": LATER, "seconds": 30.0}))
    place = ("--store", play.config.store.url)
    shown = {
        stage["stage"]: stage for stage in json.loads(cures("runs", "show", name, "--json", *place).stdout)["stages"]
    }
    assert {stage: one["cached"] for stage, one in shown.items()} == {"estimate_prior": True, "train_epoch": False}
    assert shown["train_epoch"]["figures"]["posterior_digest"] == "m"
    lines = cures("runs", "show", name, *place).stdout
    assert "estimate_prior: cached, made before this run (" in lines
    assert "train_epoch 2: 30.0 s (" in lines


def test_before_the_last_score_there_is_no_gain(play: Play) -> None:
    assert play.listed(play.run("a")).score is None
    row = play.listed(play.run("b", evaluation(0, easy=0.5)))
    assert (row.score, row.gain) == (0.5, None)


def test_a_stage_of_the_second_in_which_its_run_was_started_is_its_own(play: Play) -> None:
    name = play.run("quick")
    started = play.listed(name).started
    play.run("quick", ("estimate_prior", "", {"created_at": started[:19] + "+00:00", "seconds": 0.5}))
    assert (play.listed(name).cached, play.listed(name).seconds) == (0, 0.5)


def test_a_damaged_run_is_a_row_beside_the_others(play: Play) -> None:
    good, bad = play.run("good"), play.run("bad")
    play.store.put(started_place(bad), b'{"config": {}, "seal": "0"}')
    rows = {row.run: row for row in list_runs(play.store)}
    assert rows[good].status == "completed"
    assert rows[bad].status == "damaged"
    assert started_place(bad) in rows[bad].error


def test_a_run_whose_start_is_lost_and_a_stray_file_end_no_list(play: Play) -> None:
    good, bad, running = play.run("good"), play.run("bad"), play.run("running")
    status = Status(status="running", at=LATER, token=1)
    play.store.put(status_place(running), encode_value(status))
    for name in (bad, running):
        play.store.delete(started_place(name))
    play.store.put("runs/stray", b"")
    rows = {row.run: row for row in list_runs(play.store)}
    assert sorted(rows) == sorted([good, bad, running])
    assert rows[good].status == "completed"
    for name in (bad, running):
        assert rows[name].status == "damaged"
        assert f"{started_place(name)}: is gone. To write it again" in rows[name].error


def cures(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_the_list_is_a_table_with_a_header_of_trainings_alone(play: Play) -> None:
    long = play.run("a-long-name", evaluation(0, easy=0.5), evaluation(1, easy=0.75))
    other = play.run("b")
    bench = play.run("c", purpose="benchmark")
    place = ("--store", play.config.store.url)
    header, *rows = cures("runs", "list", "--sort", "run", *place).stdout.splitlines()
    assert header.split()[:4] == ["run", "status", "score", "gain"]
    assert [row.split()[0] for row in rows] == [long, other]
    assert rows[0][header.index("score") :].split()[:3] == ["easy", "0.750", "+0.250"]
    assert rows[0][header.index("cached") :] == "0 of 2"
    assert "1 evaluations and benchmarks not shown: --all" in cures("runs", "list", *place).output
    every = cures("runs", "list", "--all", *place).stdout
    assert bench in every
    assert "benchmark" in every


def test_keys_of_the_json_stay(play: Play) -> None:
    play.run("one")
    (row,) = json.loads(cures("runs", "list", "--json", "--store", play.config.store.url).stdout)
    kept = {"run", "status", "at", "error", "stages"}  # of earlier versions
    assert row.keys() == kept | {"purpose", "suite", "score", "gain", "started", "seconds", "cached"}


@given(st.lists(st.tuples(st.none() | st.floats(-1, 1), st.floats(0, 9)), max_size=6), st.sampled_from(Order))
def test_what_has_no_figure_comes_last(figures: list[tuple[float | None, float]], order: Order) -> None:
    rows = [
        Listed(run=f"r{i}", status="s", at="", error="", stages=0, score=value, gain=value, seconds=seconds)
        for i, (value, seconds) in enumerate(figures)
    ]
    found = in_order(rows, order)
    assert sorted(row.run for row in found) == [row.run for row in rows]
    if order in (Order.SCORE, Order.GAIN):
        values = [row.score for row in found]
        known = [value for value in values if value is not None]
        assert values == sorted(known, reverse=True) + [None] * (len(values) - len(known))


def test_a_name_is_known_by_a_beginning_that_only_it_has(play: Play) -> None:
    one, two, three = play.run("alpha"), play.run("alps"), play.run("beta")
    assert find_run(play.store, "b") == three
    assert find_run(play.store, "alpha-") == one
    assert find_run(play.store, two) == two
    with pytest.raises(ConfigError, match=f"2 runs; say which: {one}, {two}"):
        find_run(play.store, "al")
    for unknown in ("x", "", f"{three}0"):
        with pytest.raises(ConfigError, match=f"no run {unknown} in this store"):
            find_run(play.store, unknown)


def test_a_whole_name_is_meant_even_where_others_begin_with_it(play: Play) -> None:
    name = play.run("one")
    assert find_run(play.store, name, [f"{name}-more"]) == name
    assert find_run(play.store, f"{name}-", [f"{name}-more"]) == f"{name}-more"


@pytest.mark.parametrize(
    "command",
    [
        ["runs", "show", "al"],
        ["runs", "compare", "beta", "al"],
        ["runs", "scores", "al"],
        ["runs", "prune", "al"],
        ["runs", "verify", "al"],
        ["posterior", "show", "--run", "al"],
        ["posterior", "export", "posterior/al/1", "out.csv"],
        ["posterior", "diff", "posterior/beta/1", "posterior/al/1"],
        ["posterior", "restore", "posterior/al/1"],
        ["curriculum", "explain", "--run", "al"],
        ["curriculum", "hopeless", "--run", "al"],
        ["report", "al"],
        ["watch", "al"],
        ["promote", "al"],
        ["run", "--resume", "al"],
    ],
)
def test_every_command_that_takes_a_run_asks_which_is_meant(command: list[str], play: Play) -> None:
    names = play.run("alpha"), play.run("alps")
    play.run("beta")
    outcome = cures(*command, "--store", play.config.store.url)
    assert isinstance(outcome.exception, ConfigError)
    assert ", ".join(names) in str(outcome.exception)


def test_a_shortened_name_is_shown_whole(play: Play) -> None:
    name = play.run("alpha")
    assert cures("runs", "show", "al", "--store", play.config.store.url).stdout.startswith(f"{name}: completed")
