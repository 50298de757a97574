"""Items of reasoning-gym are scored by their own scorers, which evaluate answers: in confined processes."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cures_core.config.data import PromptFile
from cures_core.config.rewards import ReasoningGymConfig
from cures_core.curriculum import CuresConfig, Posterior, load_posterior, migrate, save_posterior
from cures_core.errors import ConfigError, MissingExtra
from cures_core.prompts import PromptSet, load_prompts
from cures_core.rewards import gym_items, make_verifier
from cures_core.rewards.gym import read_answer
from cures_core.rewards.gym_items import generate
from cures_core.rewards.sandbox.confinement import why_not
from cures_core.terms import Outcome
from flows.cli.main import app
from tests.cures_core.rewards.processes import everything

pytestmark = pytest.mark.skipif(why_not() != "", reason=why_not())
_REAL = importlib.util.find_spec("reasoning_gym") is not None
STAND_IN = {
    "__init__.py": "from . import factory\n",
    "factory.py": """
from dataclasses import dataclass

@dataclass
class Config:
    least: int = 1
    seed: int = 0
    size: int = 1
    def validate(self):
        assert self.least > 0, "least must be positive"

class Dataset:
    def __init__(self, config): self.config = config
    def __getitem__(self, i):
        n = self.config.least + self.config.seed + i
        return {"question": f"A list of {n}?", "answer": str([n]), "metadata": {(1, 2): n}}
    def score_answer(self, answer, entry):
        value = eval(answer)
        return 1.0 if value == eval(entry["answer"]) else 0.25 if isinstance(value, list) else 0.01

class Attribute:
    levels = [1, 10, 100]

class Curriculum:
    attributes = {"least": Attribute}
    def set_global_level(self, level): self.level = level
    def generate_configuration(self, given): return Config(**{"least": Attribute.levels[self.level], **given})

DATASETS, CURRICULA = {"lists": (Dataset, Config), "flat": (Dataset, Config)}, {"lists": Curriculum}
def create_curriculum(name): return CURRICULA[name]()
def create_dataset(name, **kw): return DATASETS[name][0](Config(**kw))
""",
}
"""A package with the same interface, whose scorer evaluates answers as some of the real one's do."""


@pytest.fixture
def gym(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "path" / "reasoning_gym"
    folder.mkdir(parents=True)
    for name, text in STAND_IN.items():
        (folder / name).write_text(text)
    info = folder.with_name("reasoning_gym-9.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reasoning_gym\nVersion: 9\n")
    monkeypatch.syspath_prepend(folder.parent)
    forget()
    yield
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        del sys.modules[name]
    gym_items._dataset.cache_clear()


def golds(task: str = "lists", level: int | None = 1, size: int = 2, seed: int = 0, **options: Any) -> list[str]:
    return [row["answer"] for row in generate(task, level, size, seed, options)]


def test_items_are_made_again_from_their_golds_and_scored(gym: None) -> None:
    first, second = golds()
    assert json.loads(first)["config"] == {"least": 10}
    with make_verifier(ReasoningGymConfig(threshold=0.5)) as verifier:
        assert [verifier.check_gold(gold) for gold in (first, second)] == [None, None]
        texts = ["<answer>[10]</answer>", "[11]", "<answer>7", r"\boxed{[10]}"]
        verdicts = verifier.judge_pairs([(text, first) for text in texts])
    assert [v.outcome.value for v in verdicts] == ["correct", "wrong", "unknown", "correct"]
    assert [v.reward for v in verdicts] == [1.0, 0.25, None, 1.0]
    assert everything() == []


def test_an_answer_that_is_evaluated_reaches_nothing(gym: None, tmp_path: Path) -> None:
    [gold, _] = golds()
    canary = tmp_path / "canary"
    hostile = [
        f"open({str(canary)!r}, 'w')",
        f"__import__('os').system('touch {canary}')",
        f"__import__('os').mkdir({str(canary)!r})",
        "__import__('os').kill(__import__('os').getppid(), 9)",
        "__import__('os').fork()",
        "__import__('socket').socket()",
        "open('/etc/passwd').read() and [10]",
        "__import__('os')._exit(0)",
        "bytearray(10 << 30)",
        "9 ** 9 ** 9 ** 9",
    ]
    with make_verifier(ReasoningGymConfig(timeout_s=1.0)) as verifier:
        verdicts = verifier.judge_pairs([("[10]", gold), *[(text, gold) for text in hostile], ("[10]", gold)])
    assert {v.outcome for v in verdicts[1:-1]} <= {Outcome.UNKNOWN, Outcome.WRONG}
    assert [verdicts[0].outcome, verdicts[-1].outcome] == [Outcome.CORRECT] * 2
    assert not canary.exists()
    assert everything() == []


def test_a_scorer_that_needs_more_memory_than_it_may_have_says_nothing(gym: None) -> None:
    [gold, _] = golds()
    dear = "bytearray(400 << 20) and [10]"
    for memory_mb, outcome in ((2048, Outcome.CORRECT), (400, Outcome.UNKNOWN)):
        with make_verifier(ReasoningGymConfig(memory_mb=memory_mb)) as verifier:
            verdicts = verifier.judge_pairs([("[10]", gold), (dear, gold), ("[10]", gold)])
        assert [v.outcome for v in verdicts] == [Outcome.CORRECT, outcome, Outcome.CORRECT]


def test_golds_that_name_no_item_are_refused(gym: None) -> None:
    gold = json.loads(golds()[0])
    with make_verifier(ReasoningGymConfig()) as verifier:
        assert verifier.check_gold("") == "empty"
        assert "names no item" in (verifier.check_gold("7") or "")
        assert "names no item" in (verifier.check_gold(json.dumps({**gold, "task": "no"})) or "")
        other = json.dumps({**gold, "seed": 5})
        assert verifier.check_gold(other) == "reasoning-gym 9 makes another item than 9"
        assert verifier.judge_pairs([("[10]", other)])[0].outcome is Outcome.UNKNOWN


def test_one_problem_asked_twice_has_one_answer(gym: None) -> None:
    [_, eleven], [again, _] = golds(), golds(seed=1)
    assert eleven != again
    with make_verifier(ReasoningGymConfig()) as verifier:
        assert verifier.same_answer(eleven, again)
        assert not verifier.same_answer(golds()[0], again)
        assert not verifier.same_answer(again, "7")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("none", None, {}), "no task 'none'; it has flat, lists"),
        (("lists", 3, {}), "lists has levels 0 to 2, not 3"),
        (("flat", 0, {}), "flat has no levels"),
        (("lists", None, {"most": 1}), "no option most; it has least"),
        (("lists", None, {"least": 0}), "lists: least must be positive"),
    ],
)
def test_what_cannot_be_made_is_told_with_what_can(
    gym: None, arguments: tuple[str, int | None, dict[str, Any]], complaint: str
) -> None:
    task, level, options = arguments
    with pytest.raises(ConfigError, match=complaint):
        list(generate(task, level, 1, 0, options))


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<answer> 7 </answer>", "7"),
        ("<answer>7</answer> <answer>8</answer>", "8"),
        ("<answer>7</answer> <answer>8", ""),
        (r"so \boxed{7}", "7"),
        (r"<answer>7</answer> \boxed{8}", "7"),
        (" 7\n", "7"),
    ],
)
def test_where_the_answer_is_read(completion: str, answer: str) -> None:
    assert read_answer(completion) == answer


def test_the_command_writes_the_same_set_for_the_same_arguments(gym: None, tmp_path: Path) -> None:
    run: Callable[..., Any] = CliRunner().invoke
    command = ["data", "generate", "--task", "lists", "--levels", "0,2", "--size", "3", "--seed", "4"]
    for name in ("a.jsonl", "b.jsonl"):
        assert run(app, [*command, str(tmp_path / name)]).exit_code == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["level"] for row in rows] == ["0"] * 3 + ["2"] * 3
    assert len({row["problem"] for row in rows}) == 6
    assert {row["source"] for row in rows} == {"reasoning_gym/lists"}


def made(path: Path, part: int) -> PromptSet:
    """The prompts of a part of a series: levels 0 and 2, as validation takes them."""
    command = ["data", "generate", str(path), "--task", "lists", "--levels", "0,2", "--size", "20", "--part", str(part)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return load_prompts(PromptFile(path=str(path), max_answer_chars=4096)).prompts


def test_parts_of_a_series_share_no_item_and_begin_at_the_rates_of_the_levels(gym: None, tmp_path: Path) -> None:
    """What a night's run with new items has from the night before by `prior.start_from`."""
    nights = [made(tmp_path / f"{part}.jsonl", part) for part in range(4)]
    assert [len(prompts) for prompts in nights] == [40] * 4
    assert len({(p.level, p.problem) for prompts in nights for p in prompts}) == 160
    again = made(tmp_path / "again.jsonl", 2)
    assert (again.digest, (tmp_path / "again.jsonl").read_bytes()) == (
        nights[2].digest,
        (tmp_path / "2.jsonl").read_bytes(),
    )
    settings = CuresConfig(prompts_per_step=8, rollouts_per_step=32).posterior
    posterior = Posterior.fresh(nights[0], settings)
    rates = np.array([{"0": 0.75, "2": 0.125}[level] for level in nights[0].column("level")])
    posterior.update(nights[0].ids, 32 * rates, 32 * (1 - rates), step=1)
    for number, prompts in enumerate(nights[1:], 1):
        save_posterior(posterior, tmp_path / "snapshot.parquet")
        posterior, moved = migrate(load_posterior(tmp_path / "snapshot.parquet"), prompts, settings)
        assert (moved["kept"], moved["restored"], moved["new"]) == (0, 0, 40)
        assert posterior.archive is not None
        assert posterior.archive.num_rows == 40 * number  # it grows by a set a night
        level = np.array(prompts.column("level"))
        assert posterior.mean()[level == "0"] == pytest.approx(0.75, abs=0.1)
        assert posterior.mean()[level == "2"] == pytest.approx(0.125, abs=0.1)


def test_a_part_beyond_the_last_seed_is_refused(gym: None, tmp_path: Path) -> None:
    command = ["data", "generate", str(tmp_path / "a.jsonl"), "--task", "lists", "--size", "3", "--seed", "2147483645"]
    assert CliRunner().invoke(app, command).exit_code == 0
    refused = CliRunner().invoke(app, [*command, "--part", "1"])
    assert isinstance(refused.exception, ConfigError)
    assert "part 1 lies beyond the last seed" in str(refused.exception)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingExtra, match=r"cures\[reasoning-gym\]"):
        list(generate("lists", None, 1, 0, {}))


@pytest.mark.skipif(not _REAL, reason="reasoning-gym is not installed")
def test_the_real_package_makes_and_scores_items() -> None:
    """One task with one answer, one with many, and two whose scorers evaluate the answer."""
    tasks = ("leg_counting", "countdown", "spiral_matrix", "n_queens")
    rows = [row for task in tasks for row in generate(task, 0, 2, 3, {})]
    with make_verifier(ReasoningGymConfig(timeout_s=30)) as verifier:
        assert [verifier.check_gold(row["answer"]) for row in rows] == [None] * len(rows)
        items = [(f"<answer>{json.loads(row['answer'])['answer']}</answer>", row["answer"]) for row in rows]
        assert {v.outcome for v in verifier.judge_pairs(items)} == {Outcome.CORRECT}
        bad = [("<answer>__import__('os')._exit(0)</answer>", row["answer"]) for row in rows]
        assert Outcome.CORRECT not in {v.outcome for v in verifier.judge_pairs(bad)}
