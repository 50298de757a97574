"""Tasks of environments for `verifiers` become prompts, and their rewards verdicts; with the real package where it is
installed, else with a stand-in."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from cures_core.config.data import DataConfig
from cures_core.config.rewards import EnvironmentConfig
from cures_core.errors import ConfigError, MissingExtra
from cures_core.prompts.loading import load_prompts
from cures_core.rewards import make_verifier
from cures_core.rewards.environment_tasks import rows
from cures_core.terms import Outcome, Verdict
from flows.cli.main import app
from tests.cures_core.rewards.processes import everything

_STAND_IN = Path(__file__).with_name("verifiers_stand_in.py")
SUMS = """
import verifiers.v1 as vf

__all__ = ["Sums"]

class Sum(vf.TaskData):
    answer: int
    prompt: str | list = ""

class SumTask(vf.Task[Sum]):
    @vf.stop
    async def single_turn(self, trace: vf.Trace) -> bool:
        return trace.num_turns >= 1

    @vf.reward(weight=1.0)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.endswith(str(self.data.answer)))

    @vf.reward(weight=0.2)
    async def brief(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply) < 5)

class Config(vf.TasksetConfig):
    first: int = 1

class Sums(vf.Taskset[SumTask, Config]):
    def load(self):
        for a in (self.config.first, 7):
            yield SumTask(Sum(prompt=f"{a} + 1 =", system_prompt="Add.", answer=a + 1), self.config.task)
"""
ONE = """
import verifiers.v1 as vf

__all__ = ["Ones"]

class One(vf.TaskData):
    answer: str = "1"

class OneTask(vf.Task[One]):
    @vf.reward
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply == self.data.answer)

class Ones(vf.Taskset[OneTask, vf.TasksetConfig]):
    def load(self):
        return [OneTask(One(prompt="0 + 1 ="), self.config.task)]
"""
"""One task; tests replace a part of it."""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Install an environment of a text, and give its name."""
    path = tmp_path / "path"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    if importlib.util.find_spec("verifiers") is None:
        (path / "verifiers" / "v1").mkdir(parents=True)
        (path / "verifiers" / "__init__.py").write_text('__version__ = "0.4.0"\n')
        (path / "verifiers" / "v1" / "__init__.py").write_text(_STAND_IN.read_text())
    made: list[str] = []

    def installed(text: str, name: str = f"of_{tmp_path.name}") -> str:
        name = "".join(c if c.isalnum() else "_" for c in name).lower()
        made.append(name)
        monkeypatch.setenv("CURES_PLUGINS", ",".join(made))
        (path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return name

    yield installed
    gone = [*made, *(["verifiers"] if (path / "verifiers").exists() else [])]
    for name in [name for name in sys.modules if name.partition(".")[0] in gone]:
        del sys.modules[name]


def one(**parts: str) -> str:
    """The text of `ONE` with parts of it replaced by others, which are named by their first words."""
    text = ONE
    for old, new in parts.items():
        assert _PARTS[old] in text
        text = text.replace(_PARTS[old], new)
    return text


_PARTS = {
    "score": "return float(trace.last_reply == self.data.answer)",
    "rewards": "async def right(self, trace: vf.Trace)",
    "mark": "@vf.reward",
    "task": "class OneTask(vf.Task[One]):",
    "data": 'One(prompt="0 + 1 =")',
    "config": "self.config.task",
    "tasks": '[OneTask(One(prompt="0 + 1 ="), self.config.task)]',
    "taskset": "class Ones(vf.Taskset[OneTask, vf.TasksetConfig]):",
    "exported": '["Ones"]',
}


def judged(environment: str, gold: str, *completions: str, **settings: Any) -> list[Verdict]:
    with make_verifier(EnvironmentConfig(environment=environment, **settings)) as verifier:
        verdicts = verifier.judge_pairs([(text, gold) for text in completions])
    assert everything() == []
    return verdicts


def test_tasks_become_prompts_and_their_rewards_verdicts(install: Callable[..., str]) -> None:
    name = install(SUMS)
    (first, second), bounds = rows(name, None, {"first": 3})
    assert bounds == [0.0, 1.2]
    assert (first["problem"], first["source"]) == ("3 + 1 =", f"verifiers/{name}")
    assert json.loads(first["turns"]) == [["system", "Add."]]
    assert second["problem"] == "7 + 1 ="
    assert len(rows(name, 1, {})[0]) == 1
    verdicts = judged(name, first["answer"], "4", "that makes 4", "5", "that makes 5", bounds=(0, 1.2))
    assert [v.outcome.value for v in verdicts] == ["correct", "correct", "wrong", "wrong"]
    assert [v.reward for v in verdicts] == pytest.approx([1, 1 / 1.2, 0.2 / 1.2, 0])


def test_a_new_task_in_front_leaves_the_others_what_they_are(install: Callable[..., str]) -> None:
    name = install(SUMS)
    later = rows(name, None, {})[0][1]
    install(SUMS.replace("(self.config.first, 7)", "(5, self.config.first, 7)"), name)
    assert rows(name, None, {})[0][2] == later


def test_earlier_turns_are_kept(install: Callable[..., str]) -> None:
    said = '[dict(role="user", content="Hi"), dict(role="assistant", content="Yes?"), dict(role="user", content="1?")]'
    name = install(
        one(data=f"One(prompt={said})", score="return float([m.role for m in trace.messages][-2] == 'user')")
    )
    [row], _ = rows(name, None, {})
    assert (row["problem"], json.loads(row["turns"])) == ("1?", [["user", "Hi"], ["assistant", "Yes?"]])
    assert judged(name, row["answer"], "1")[0].outcome is Outcome.CORRECT


MISDEEDS = {
    "hang": "import time; time.sleep(60)",
    "wait": "import asyncio; await asyncio.sleep(60)",
    "leave": "import os; os._exit(0)",
    "exit": "raise SystemExit",
    "raise": "raise KeyError('secret')",
    "fill": "return float(len(bytearray(16 << 30)))",
    "say": "return 'much'",
    "more": "return 1.5",
    "less": "return -0.5",
    "nan": "return float('nan')",
}


def test_what_a_reward_does_wrong_is_unknown_and_harms_nobody(install: Callable[..., str]) -> None:
    cases = "".join(f"\n        if trace.last_reply == {word!r}: {deed}" for word, deed in MISDEEDS.items())
    name = install(one(score=f"if True: pass{cases}\n        return 1.0"))
    [row], _ = rows(name, None, {})
    fine, *verdicts, again = judged(name, row["answer"], "1", *MISDEEDS, "1", timeout_s=2)
    assert {v.outcome for v in verdicts} == {Outcome.UNKNOWN}
    assert [fine.outcome, again.outcome] == [Outcome.CORRECT] * 2
    reasons = dict(zip(MISDEEDS, [v.reason for v in verdicts], strict=True))
    assert {reasons[word] for word in ("hang", "wait")} == {"timeout"}
    assert reasons["raise"] == "KeyError"
    assert reasons["fill"] == "memory limit"
    assert reasons["more"] == "the reward 1.5 is not within reward.bounds, 0 to 1"


def test_weights_that_sum_to_one_reach_it(install: Callable[..., str]) -> None:
    """0.6 + 0.3 + 0.1 is less than 1 in binary fractions."""
    first, second = (
        f"@vf.reward(weight={weight})\n    async def {word}(self, trace): return 1.0\n    "
        for word, weight in (("always", 0.6), ("ever", 0.3))
    )
    name = install(one(mark=f"{first}{second}@vf.reward(weight=0.1)"))
    [row], bounds = rows(name, None, {})
    assert bounds == [0.0, 1.0]
    [verdict] = judged(name, row["answer"], "1")
    assert (verdict.outcome, verdict.reward) == (Outcome.CORRECT, 1.0)


TOOLS = "@classmethod\n    def toolsets(cls, config): return ['a tool']\n    "
REFUSED = {
    "an Env of its own": {
        "exported": '["Ones", "Both"]',
        "task": "class Both(vf.Env): pass\n\nclass OneTask(vf.Task[One]):",
    },
    "a harness of its own": {
        "exported": '["Ones", "Own"]',
        "task": "class Own(vf.Harness): pass\n\nclass OneTask(vf.Task[One]):",
    },
    r"tools \(toolsets\)": {"mark": f"{TOOLS}@vf.reward"},
    r"gives the policy tools": {"taskset": f"class Ones(vf.Taskset[OneTask, vf.TasksetConfig]):\n    {TOOLS}"},
    r"a container \(NEEDS_CONTAINER\)": {"mark": "NEEDS_CONTAINER = True\n    @vf.reward"},
    r"a machine that it prepares \(image, workdir\)": {"data": 'One(prompt="1?", image="python:3", workdir="/work")'},
    r"needs a runtime \(setup\)": {"mark": "async def setup(self, runtime): pass\n    @vf.reward"},
    r"needs a runtime \(finalize\)": {"mark": "async def finalize(self, trace, runtime): pass\n    @vf.reward"},
    r"scored in a runtime \(right\)": {"rewards": "async def right(self, trace: vf.Trace, runtime)"},
    "asks a judge: reward.type = 'judge'": {"config": "vf.TaskConfig.model_construct(judges=[vf.JudgeConfig()])"},
    r"plugs functions by its configuration \(rewards\)": {
        "config": "vf.TaskConfig(rewards={'none': vf.RewardFunctionConfig(fn='no.such:function')})"
    },
    r"rewrites requests or responses": {"mark": "@vf.intercept\n    async def change(self, r): pass\n    @vf.reward"},
    "has no rewards": {"mark": "@vf.metric"},
    "no prompt: the user would speak first": {"data": "One()"},
    "not text alone": {
        "data": 'One(prompt=[dict(role="user", content=[dict(type="image_url", image_url=dict(url="http://a"))])])'
    },
    "does not end with a user's message": {
        "data": 'One(prompt=[dict(role="user", content="1?"), dict(role="assistant", content="It")])'
    },
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_single_turn_is_refused_with_its_reason(install: Callable[..., str], reason: str) -> None:
    name = install(one(**REFUSED[reason]))
    with pytest.raises(ConfigError, match=rf"^environment {name}: task 0 .*{reason}.*one prompt and one completion"):
        rows(name, None, {})


def test_tasks_without_end_are_taken_as_many_as_one_says(install: Callable[..., str]) -> None:
    endless = "INFINITE = True\n    def load(self):\n        while True: yield from self.some()\n    def some(self):"
    name = install(one().replace("def load(self):", endless))
    with pytest.raises(ConfigError, match="no end: say how many tasks to take, with --size"):
        rows(name, None, {})
    assert len(rows(name, 3, {})[0]) == 3


@pytest.mark.parametrize(
    ("parts", "options", "complaint"),
    [
        ({}, {"frist": 1}, "frist"),
        ({"data": 'One(prompt="1?").other'}, {}, "AttributeError"),
        ({"tasks": "[]"}, {}, "has no tasks"),
        ({"taskset": "class Ones(vf.Taskset):"}, {}, "becomes another when it is made again from JSON"),
        ({"exported": "[]"}, {}, "must export a Taskset of verifiers 0.4; load_environment is of versions before it"),
        ({"exported": "vf.Environment"}, {}, "AttributeError: .* must export a Taskset of verifiers 0.4"),
    ],
)
def test_what_cannot_be_made_is_told(
    install: Callable[..., str], parts: dict[str, str], options: dict[str, Any], complaint: str
) -> None:
    name = install(one(**parts))
    with pytest.raises(ConfigError, match=rf"(?s)^environment {name}.*{complaint}"):
        rows(name, None, options)


def test_golds_that_make_no_task_are_refused(install: Callable[..., str], tmp_path: Path) -> None:
    name, ran = install(one()), tmp_path / "ran"
    [row], _ = rows(name, None, {})
    gold = json.loads(row["answer"])
    (tmp_path / "path" / "evil.py").write_text(f"open({str(ran)!r}, 'w')\ndef reward(): return 1.0\n")
    plugs = {**gold, "config": {"rewards": {"right": {"fn": "evil:reward"}}, "judges": [{"id": "evil"}]}}
    with make_verifier(EnvironmentConfig(environment=name)) as verifier:
        assert verifier.check_gold(row["answer"]) is None
        assert verifier.check_gold(" ") == "empty"
        for other in ("1", "[]", json.dumps({**gold, "data": {"answer": []}}), json.dumps(plugs)):
            assert "makes no task" in (verifier.check_gold(other) or "")
            assert verifier.judge_pairs([("1", other)])[0].outcome is Outcome.UNKNOWN
        assert f"of environment 'b', not of {name}" in (
            verifier.check_gold(json.dumps({**gold, "environment": "b"})) or ""
        )
    assert not ran.exists()


def test_rewards_that_cannot_score_are_known_before_any_work(install: Callable[..., str]) -> None:
    name = install(one(score="return float(trace.calls[-1].usage.total_tokens)"))
    [row], _ = rows(name, None, {})
    with make_verifier(EnvironmentConfig(environment=name)) as verifier:
        assert verifier.check_gold(row["answer"]) == "scoring an empty completion: AttributeError"


def test_labels_make_no_other_task(install: Callable[..., str]) -> None:
    name = install(one())
    [row], _ = rows(name, None, {})
    gold = json.loads(row["answer"])
    labelled, other = ({**gold, "data": {**gold["data"], **more}} for more in ({"id": "a"}, {"answer": "2"}))
    with make_verifier(EnvironmentConfig(environment=name)) as verifier:
        assert verifier.same_answer(row["answer"], json.dumps(labelled))
        assert not verifier.same_answer(row["answer"], json.dumps(other))
        assert not verifier.same_answer("1", "2")


def test_what_is_not_allowed_is_not_even_imported(
    install: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    name = install(f"open({str(ran)!r}, 'w')\n{ONE}")
    monkeypatch.setenv("CURES_PLUGINS", "another")
    for refused in (
        lambda: rows(name, None, {}),
        lambda: make_verifier(EnvironmentConfig(environment=name)),
    ):
        with pytest.raises(ConfigError, match=rf"{name} is code of yours.* export CURES_PLUGINS=another,{name}$"):
            refused()
    assert not ran.exists()


def test_without_the_package_the_extra_is_named(install: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = install(ONE)
    monkeypatch.setitem(sys.modules, "verifiers.v1.utils", None)
    with pytest.raises(MissingExtra, match=r"--environment .*cures\[verifiers\]"):
        rows(name, None, {})


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"threshold": 1.1}, "at most 1, the bounds"),
        ({"threshold": 0}, "above 0"),
        ({"bounds": (0, 0.5)}, "at most 0.5"),
        ({"bounds": (1, 1)}, "above 1"),
        ({"environment": "a.b"}, "name of an installed package"),
        ({"environment": 1}, "string"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        EnvironmentConfig.model_validate({"environment": "a", **settings})


def test_an_environment_may_be_named_as_hubs_do() -> None:
    assert EnvironmentConfig(environment="owner/my-Sums@1.0").environment == "my_sums"


def test_the_command_writes_the_same_set_and_says_what_to_set(install: Callable[..., str], tmp_path: Path) -> None:
    name = install(SUMS)
    command = ["data", "generate", "--environment", name.replace("_", "-"), "--option", "first=3"]
    told = [CliRunner().invoke(app, [*command, str(tmp_path / one)]).output for one in ("a.jsonl", "b.jsonl")]
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    for words in (f'environment = "{name}"', "reward.bounds = [0.0, 1.2]", "rollout.prompt_format.chat = true"):
        assert words in told[0]
    config = EnvironmentConfig(environment=name, bounds=(0, 1.2))
    with make_verifier(config) as verifier:
        found = load_prompts(DataConfig(path=str(tmp_path / "a.jsonl")), judge=verifier)
    said = (("system", "Add."),)
    assert sorted((p.problem, p.turns) for p in found.prompts) == [("3 + 1 =", said), ("7 + 1 =", said)]


def test_the_example_of_the_docs_does_what_they_say(install: Callable[..., str]) -> None:
    blocks = Path("docs/verifiers.md").read_text(encoding="utf-8").split("```python\n")[1:]
    [example] = [block.partition("```")[0] for block in blocks if "import verifiers.v1" in block]
    name = install(example)
    made, bounds = rows(name, None, {"highest": 50})
    assert (len(made), bounds) == (51 * 51, [0.0, 1.2])
    assert made[52]["problem"] == "What is 1 + 1? End with the number."
    verdicts = judged(name, made[52]["answer"], "It is 2", "It is 12", bounds=bounds)
    assert [v.outcome for v in verdicts] == [Outcome.CORRECT, Outcome.WRONG]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "name a reasoning-gym task with --task, or an environment"),
        (["--environment", "a", "--seed", "1"], "--seed and --part are for reasoning-gym"),
        (["--environment", "a", "--task", "b"], "are for reasoning-gym"),
    ],
)
def test_the_command_takes_one_or_the_other(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["data", "generate", str(tmp_path / "a.jsonl"), *arguments])
    assert isinstance(result.exception, ConfigError)
    assert complaint in str(result.exception)
