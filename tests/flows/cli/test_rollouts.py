"""`cures rollouts show`: what a run has kept, found by prompt, step and verdict, and safe to look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cures_core.checkpoints.checkpoint import Checkpoint, save_checkpoint
from cures_core.config.loading import load_config
from cures_core.errors import ConfigError
from cures_core.jobs.spec import Job
from cures_core.kept_rollouts.table import KeptRollout, to_line, write_rollouts
from flows.cli.main import app
from flows.cli.rollouts import in_full, listing
from tasks.runs.figures import EpochFigures, EvaluateFigures
from tasks.runs.opening import open_run, scratch_root
from tasks.stages.stage import Made, Work, run_stage
from tests.cures_core.kept_rollouts.hooks import CANARY
from tests.cures_core.kept_rollouts.rollouts import row
from tests.end_to_end.pipeline import write_profile
from tests.tasks.stages.figures import made as made_by

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202eeslaf\r\nstep 9 (epoch 9): \x9b31m\x7f"
ONE, TWO, NEAR = "0f" * 16, "ab" * 16, "ab" * 15 + "cd"
Show = Callable[..., Any]


def epoch_of(rows: Sequence[KeptRollout] | None, redaction: str = "") -> Work[Any]:
    def work(space: Any) -> Made[Any]:
        (space.out / "posterior.parquet").write_text("p")
        if rows is not None:
            write_rollouts(rows, space.out / "rollouts.parquet", redaction)
        return made_by("train_epoch", step=max((one.step for one in rows or ()), default=0))

    return work


def scored(space: Any) -> Made[Any]:
    example = {"suite": "heldout", "id": ONE, "problem": "1+1=", "gold": "2", "completion": HOSTILE, "outcome": "wrong"}
    lines = [example, {**example, "id": TWO, "outcome": "correct", "completion": "2"}]
    (space.out / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return made_by("evaluate_checkpoint")


ROWS = [
    row(step=1, prompt=ONE, outcome="wrong", reward=0.0, completion=HOSTILE, request="a"),
    row(step=1, prompt=TWO, outcome="unknown", reward=None, advantage=None, request="b"),
    row(step=2, epoch=2, prompt=TWO, finish_reason="length", completion="so " * 99 + "the answer is 7", request="c"),
    row(step=3, epoch=2, prompt=NEAR, withheld=True, problem="", answer="", completion="", request="d"),
]


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Show:
    """Commits epochs and an evaluation as a run, and calls the command on it."""
    monkeypatch.chdir(tmp_path)

    def call(
        *options: str, epochs: Sequence[Work[Any]] = (epoch_of(ROWS[:2]), epoch_of(ROWS[2:])), more: str = ""
    ) -> Any:
        config = load_config(write_profile(tmp_path, more=more))
        with open_run(config) as run:
            for k, work in enumerate(epochs, 1):
                run_stage(run, EpochFigures, 2, {"epoch": k}, [], work, label=str(k))
            run_stage(run, EvaluateFigures, 2, {"scored": "base"}, [], scored, label="0")
        return CliRunner().invoke(app, ["rollouts", "show", "--run", "tiny", *options])

    return call


def test_a_line_for_each_rollout(show: Show) -> None:
    header, *lines = show().stdout.splitlines()
    assert header.split() == ["step", "prompt", "of", "verdict", "reward", "advantage", "tokens", "completion"]
    assert [line.split()[:4] for line in lines] == [
        ["1", ONE[:12], "a#0", "wrong"],
        ["1", TWO[:12], "b#0", "unknown"],
        ["2", TWO[:12], "c#0", "correct"],
        ["3", NEAR[:12], "d#0", "correct"],
    ]
    assert lines[1].split()[4:6] == ["-", "-"]
    assert "  cut  ..." in lines[2]
    assert lines[2].endswith("the answer is 7")
    assert lines[3].endswith("[withheld]")


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (("--prompt", ONE[:4]), [1]),
        (("--prompt", TWO), [1, 2]),
        (("--step", "1"), [1, 1]),
        (("--verdict", "unknown"), [1]),
        (("--verdict", "correct", "--prompt", TWO), [2]),
        (("--limit", "2"), [2, 3]),
        ((), [1, 1, 2, 3]),
    ],
)
def test_they_are_found_by_prompt_step_and_verdict(show: Show, options: tuple[str, ...], steps: list[int]) -> None:
    found = json.loads(show("--json", *options).stdout)
    assert [one["step"] for one in found] == steps
    assert set(found[0]) == set(KeptRollout.__dataclass_fields__)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prompt", "ab"), f"'ab' is the beginning of 2 prompts; say which: {TWO}, {NEAR}"),
        (("--prompt", "77"), f"'77' was kept; kept are {ONE}, {TWO}, {NEAR}. To keep all of a prompt"),
        (("--step", "9"), "no rollout of step 9 was kept; kept are 1, 2, 3"),
        (("--step", "3", "--verdict", "unknown"), "no rollout judged unknown was kept; kept are correct"),
        (("--suite", "none"), "no completion of a suite none; suites with some: heldout"),
        (("--suite", "heldout", "--step", "1"), "leave out --step or --suite"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(show: Show, options: tuple[str, ...], words: str) -> None:
    error = show(*options).exception
    assert isinstance(error, ConfigError)
    assert words in str(error)


@pytest.mark.parametrize(
    ("epochs", "more", "words"),
    [
        ([], "", "no epoch of it is trained"),
        ([epoch_of(None)], "", "a version that kept none has trained it.* --from 'train_epoch 1'"),
        ([epoch_of([])], "[kept_rollouts]\nper_step = 0\n", "per_step was 0"),
        ([epoch_of([])], "", "with kept_rollouts.share = 0.05 there were none"),
    ],
)
def test_a_run_that_has_kept_none_says_why(show: Show, epochs: list[Any], more: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"tiny-[0-9a-f]+ has kept no rollouts: .*{words}"):
        raise show(epochs=epochs, more=more).exception


def test_one_alone_and_full_show_all_that_is_known_and_texts_below_their_names(show: Show) -> None:
    text = show("--prompt", ONE).stdout
    assert text.splitlines()[:4] == [
        f"step 1 (epoch 1), prompt {ONE} (source sums, level 2)",
        "rollout 0 of request a, kept for: share",
        "wrong by box: reward 0, advantage +0.500",
        "3 tokens, ended by itself, log-probability gap 1e-06",
    ]
    assert "problem:\n  3+4=\n" in text
    assert "gold answer:\n  7\n" in text
    assert show("--full").stdout.count("rollout 0 of request") == 4
    assert "texts are withheld" in show("--full").stdout


def test_nothing_that_a_completion_holds_reaches_the_terminal_as_more_than_text(show: Show) -> None:
    for options in ((), ("--full",), ("--prompt", ONE), ("--suite", "heldout"), ("--suite", "heldout", "--full")):
        text = show(*options).stdout
        assert all(c == "\n" or c.isprintable() for c in text), options
        assert not any(line.startswith("step 9") for line in text.splitlines())
    assert "<U+202E>eslaf" in "\n".join(listing(ROWS))
    assert "<U+001B>[2J" in in_full(ROWS[0])
    assert "\n  step 9 (epoch 9)" in in_full(ROWS[0])


def test_completions_of_evaluations_are_shown(show: Show) -> None:
    lines = show("--suite", "heldout").stdout.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["before", "training", ONE[:12], "wrong"],
        ["before", "training", TWO[:12], "correct"],
    ]
    (found,) = json.loads(show("--suite", "heldout", "--verdict", "correct", "--json").stdout)
    assert (found["epoch"], found["prompt"], found["completion"]) == (0, TWO, "2")
    assert show("--suite", "heldout", "--prompt", TWO[:4]).stdout.startswith(f"before training, item {TWO}: correct")


def test_an_epoch_from_before_the_redaction_is_shown_without_texts(show: Show) -> None:
    hook = "tests.cures_core.kept_rollouts.hooks:without_canary"
    secret = [row(completion=CANARY, problem=CANARY, answer=CANARY, extracted=CANARY, reason=CANARY)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CURES_FAULTS", "")
        fine = epoch_of([row(step=4, completion="redacted before")], f"{hook} 0123")
        text = show("--json", epochs=[epoch_of(secret), fine], more="").stdout
    assert CANARY in text  # a run that redacts nothing shows what it has kept
    profile_start = f'redact = "{hook}"\n'
    Path("tiny.toml").write_text(profile_start + Path("tiny.toml").read_text())
    config = load_config(Path("tiny.toml")).model_copy(update={"name": "later"})
    with open_run(config) as run:
        for k, work in enumerate([epoch_of(secret), fine], 1):
            run_stage(run, EpochFigures, 2, {"epoch": k}, [], work, label=str(k))
        run_stage(run, EvaluateFigures, 2, {"scored": "base"}, [], scored, label="0")
    result = CliRunner().invoke(app, ["rollouts", "show", "--run", "later", "--json"])
    first, second = json.loads(result.stdout)
    assert CANARY not in result.stdout
    assert (first["withheld"], second["completion"]) == (True, "redacted before")
    error = CliRunner().invoke(app, ["rollouts", "show", "--run", "later", "--suite", "heldout"]).exception
    assert "suites with some: none" in str(error)


def test_steps_of_an_epoch_that_goes_on_are_shown_as_they_were_saved(show: Show, tmp_path: Path) -> None:
    show(epochs=[])
    with open_run(load_config(write_profile(tmp_path))) as run:
        pass
    folder = scratch_root(run) / "train_epoch" / "key" / f"000001-{run.name}" / "scratch"
    for step in (1, 2):
        lines = [to_line(row(step=i, request=f"r{i}")) for i in range(1, step + 1)]
        state = {"step": step, "trainer": {}}
        save_checkpoint(Checkpoint({}, {}, {}, state, [], lines), folder / f"step-{step:06d}")
    job = Job(name="epoch", config=run.config, scratch=folder, out=folder)
    (folder / "job.json").write_text(job.model_dump_json())
    result = CliRunner().invoke(app, ["rollouts", "show", "--run", "tiny", "--json"])
    assert [one["step"] for one in json.loads(result.stdout)] == [1, 2]
