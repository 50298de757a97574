"""All shipped verifiers sit the exam; what is special about each; configurations that are refused."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import TypeAdapter, ValidationError

from cures_core.config.rewards import (
    BoxRule,
    ChoiceConfig,
    CustomConfig,
    ExactConfig,
    MathConfig,
    NumericConfig,
    RegexConfig,
    RewardConfig,
    WeightedConfig,
)
from cures_core.errors import ConfigError
from cures_core.prompts import make_prompt
from cures_core.rewards import make_verifier
from cures_core.rewards.child import takes_prompt
from cures_core.rewards.verifier import Verifier
from cures_core.terms import Outcome, Prompt
from cures_core.testing.verifier import VerifierExam
from tests.cures_core.rewards.processes import everything


def outcome(cfg: Any, completion: str, gold: str) -> str:
    with make_verifier(cfg) as verifier:
        return str(verifier.judge_pairs([(completion, gold)])[0].outcome)


def ends_with(completion: str, gold: str) -> bool | None:
    """The custom verifier of these tests."""
    if not gold:
        return None
    if "raise" in completion:
        raise RuntimeError(completion)
    return completion.endswith(" " + gold)


def misbehaves(completion: str, gold: str) -> bool:
    """A verifier that does what a user's may, by the first word of the completion."""
    what = completion.partition(" ")[0]
    if what == "loops":
        while True:
            pass
    if what == "powers":
        return bool(9**9**9**9)
    if what == "exits":
        sys.exit(0)
    if what == "ends":
        os._exit(0)
    if what == "crashes":
        ctypes.string_at(0)
    if what == "fills":
        return bool(bytearray(1 << 36))
    if what == "leaves":
        Path(gold).write_text(str(subprocess.Popen(["sleep", "600"]).pid))
        time.sleep(600)
    if what == "commands":
        return subprocess.run(["false"], check=False).returncode == 1
    if what == "closes":
        os.closerange(0, 1 << 10)
    return completion.endswith(" " + gold)


def of_the_prompt(completion: str, gold: str, about: Prompt) -> bool:
    """Right for one prompt alone, if all of it has come through."""
    turns = (("system", "Be brief."), ("user", "Hi"))
    told = about.problem, about.answer, about.source, about.level, about.subject, about.turns
    return told == ("Caf\u00e9 \U0001f600?", gold, "sums", "2", "art", turns) and completion.endswith(gold)


def with_a_setting(completion: str, gold: str, share: float = 0.25) -> float:
    return share


def says_two(completion: str, gold: str) -> Any:
    return 2


class TestExact(VerifierExam):
    right = ((" 7 ", "7"), ("a b", " a b"))
    wrong = (("8", "7"), ("ab", "a b"))

    def make(self) -> Verifier:
        return make_verifier(ExactConfig())


class TestNumeric(VerifierExam):
    right = ((r"\boxed{1,234}", "1234"), ("The answer is 3/4 cup.", "0.75"))
    wrong = ((r"\boxed{12}", "1234"), ("no", "7"), (r"7 \boxed{", "7"))

    def make(self) -> Verifier:
        return make_verifier(NumericConfig())


class TestMath(VerifierExam):
    right = ((r"\boxed{(x+1)^2}", "x^2+2x+1"), ("#### 5", "5"))
    wrong = ((r"\boxed{x}", "x^2"), (r"\boxed{5} \boxed{", "5"))

    def make(self) -> Verifier:
        return make_verifier(MathConfig(timeout_s=1.0, workers=1))

    @pytest.mark.slow  # a part of test_hostile's corpus, of which a sample always runs
    def test_hostile_completions_neither_raise_nor_win_nor_hang(self) -> None:
        super().test_hostile_completions_neither_raise_nor_win_nor_hang()


class TestChoice(VerifierExam):
    right = (("so (C).", "C"), (r"\boxed{\text{(B)}}", "(B)"), ("The answer is **D**.", "D"), ("Thus\nA", "A"))
    wrong = (("so (C).", "D"), ("A fine mess", "A"), ("none", "A"), (r"(A) \boxed{", "A"))

    def make(self) -> Verifier:
        return make_verifier(ChoiceConfig())


class TestRegex(VerifierExam):
    right = (("final: 7", "7"), ("final: x final: y", "y"))
    wrong = (("final: 8", "7"), ("7", "7"))

    def make(self) -> Verifier:
        return make_verifier(RegexConfig(pattern=r"final: (\S+)"))


class TestCustom(VerifierExam):
    right = (("it is 7", "7"), ("it is x", "x"))
    wrong = (("it is 8", "7"), ("7", "7"))

    def make(self) -> Verifier:
        return make_verifier(CustomConfig(function=f"{__name__}:ends_with"))


def test_numeric_reads_the_right_hand_side_and_units() -> None:
    assert outcome(NumericConfig(), r"\boxed{x = 5 \text{ cm}}", "5") == "correct"
    assert outcome(NumericConfig(), "#### 12 eggs", "12") == "correct"
    assert outcome(NumericConfig(), r"\boxed{5}", "x") == "unknown"
    assert outcome(NumericConfig(), r"\boxed{x}", "5") == "wrong"
    assert outcome(NumericConfig(rules=("hashes",)), "The answer is 5", "5") == "wrong"


def test_numeric_and_exact_check_gold() -> None:
    with make_verifier(NumericConfig()) as verifier:
        assert verifier.check_gold("x") == "not a number"
        assert verifier.check_gold("1,234") is None


def test_choice_letters_decide_what_may_be_chosen() -> None:
    assert outcome(ChoiceConfig(), "so (F)", "F") == "unknown"
    assert outcome(ChoiceConfig(letters="EF"), "so (F)", "F") == "correct"
    assert outcome(ChoiceConfig(), r"\boxed{C) 12 apples}", "C") == "correct"
    assert outcome(ChoiceConfig(), r"\boxed{Apples}", "A") == "wrong"
    assert outcome(ChoiceConfig(), "(A) or (B)? (b)", "B") == "correct"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (r"\boxed{A, C}", "wrong"),
        (r"\boxed{A,C}", "wrong"),
        (r"\boxed{a, c}", "wrong"),
        (r"\boxed{A and C}", "wrong"),
        (r"\boxed{\text{(A) or (C)}}", "wrong"),
        (r"\boxed{(A)(C)}", "wrong"),
        (r"\boxed{A/C}", "wrong"),
        (r"\boxed{A: 3, B: 4}", "wrong"),
        ("The answer is A, C", "wrong"),
        ("The answer is A or C.", "wrong"),
        ("(C), (A)", "wrong"),
        (r"\boxed{A, because C is impossible}", "correct"),
        (r"\boxed{A. A cat}", "correct"),
        ("The answer is A, because C is wrong.", "correct"),
        ("The answer is (A). Not (C).", "correct"),
        ("(C)? No: (A)", "correct"),
    ],
)
def test_choice_takes_one_letter_or_none(completion: str, expected: str) -> None:
    assert outcome(ChoiceConfig(), completion, "A") == expected


@pytest.mark.parametrize(
    ("cfg", "first", "second", "same"),
    [
        (ExactConfig(), " 7", "7", True),
        (ExactConfig(), "7", "7.0", False),
        (NumericConfig(), "1,234", "1234.0", True),
        (NumericConfig(), "x", "x", False),
        (ChoiceConfig(), "(B)", "B. 42", True),
        (ChoiceConfig(), "A, B", "A, B", False),
        (RegexConfig(pattern="x"), "7 ", "7", True),
        (CustomConfig(function=f"{__name__}:ends_with"), "it is 7", "7", True),
        (CustomConfig(function=f"{__name__}:ends_with"), "7", "it is 7", True),
        (CustomConfig(function=f"{__name__}:ends_with"), "7", "8", False),
        (MathConfig(workers=1), r"\frac{\pi}{2}", r"\pi/2", True),
        (MathConfig(workers=1), "5", "2+3=5", True),
        (MathConfig(workers=1), "2+3=5", "5", True),
        (MathConfig(workers=1), r"\frac{\pi}{2}", r"\pi", False),
        (WeightedConfig(answer=MathConfig(workers=1), format=(BoxRule(weight=0.1),)), "0.5", r"\frac12", True),
    ],
)
def test_golds_are_the_same_as_their_verifier_judges(cfg: Any, first: str, second: str, same: bool) -> None:
    with make_verifier(cfg) as verifier:
        assert verifier.same_answer(first, second) is same


def test_regex_options() -> None:
    assert outcome(RegexConfig(pattern="[0-9]+"), "1 then 22", "22") == "correct"
    assert outcome(RegexConfig(pattern="(a+)+$", timeout_s=0.3), "a" * 40 + "b", "a") == "unknown"


def test_custom_function_that_raises_or_answers_nonsense_is_unknown() -> None:
    assert outcome(CustomConfig(function=f"{__name__}:ends_with"), "raise 7", "7") == "unknown"
    assert outcome(CustomConfig(function=f"{__name__}:says_two"), "7", "7") == "unknown"


def test_a_custom_function_of_three_parameters_is_given_the_prompt() -> None:
    asked = make_prompt(
        "Caf\u00e9 \U0001f600?", "7", "sums", "2", "art", turns=(("system", "Be brief."), ("user", "Hi"))
    )
    other = make_prompt("What?", "7", "other")
    with make_verifier(CustomConfig(function=f"{__name__}:of_the_prompt")) as verifier:
        verdicts = verifier.judge([("it is 7", asked), ("it is 7", other)])
        assert [v.outcome for v in verdicts] == [Outcome.CORRECT, Outcome.WRONG]
        assert verifier.same_answer("it is 7", "7") is False  # of two golds nothing else is known
    with make_verifier(CustomConfig(function=f"{__name__}:with_a_setting")) as verifier:
        assert [v.reward for v in verifier.judge([("7", asked)])] == [0.25]


def test_which_functions_take_the_prompt() -> None:
    def named(completion: str, gold: str, prompt: object = None) -> bool:
        return True

    class Grader:
        def __call__(self, completion: str, gold: str, about: object) -> bool:
            return True

    assert all(takes_prompt(one) for one in (of_the_prompt, named, Grader()))
    assert not any(takes_prompt(one) for one in (ends_with, with_a_setting, lambda c, g, *rest: True, max, print))


def test_a_custom_function_cannot_end_or_hold_up_the_training_process(tmp_path: Path) -> None:
    bad = ["loops", "powers", "exits", "ends", "crashes", "fills", "closes"]
    good = [(f"it is {n}", str(n)) for n in range(20)]
    mixed = [pair for i, what in enumerate(bad) for pair in ((what, "7"), good[i])]
    with make_verifier(CustomConfig(function=f"{__name__}:misbehaves", timeout_s=0.5, workers=2)) as verifier:
        verdicts = verifier.judge_pairs([*mixed, *good])
        assert {v.outcome for v in verdicts[: len(mixed) : 2]} == {Outcome.UNKNOWN}
        assert {v.outcome for v in [*verdicts[1 : len(mixed) : 2], *verdicts[len(mixed) :]]} == {Outcome.CORRECT}
        [commands] = verifier.judge_pairs([("commands", "7")])
        assert commands.outcome is Outcome.CORRECT
        note = tmp_path / "pid"
        [left] = verifier.judge_pairs([("leaves", str(note))])
        assert left.reason == "timeout"
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(note.read_text())).wait(10)
    assert everything() == []


def test_a_long_completion_reaches_a_custom_function_whole() -> None:
    text = "x" * 3_000_000
    assert outcome(CustomConfig(function=f"{__name__}:ends_with"), f"{text} 7", "7") == "correct"


def test_a_custom_function_whose_imports_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large.py").write_text("held = bytearray(300 << 20)\ndef judge(completion, gold): return True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CURES_PLUGINS", "large")
    with pytest.raises(ConfigError, match=r"reward\.memory_mb allows 200: set it to \d+"):
        make_verifier(CustomConfig(function="large:judge", memory_mb=200))


@pytest.mark.parametrize(
    "path", ["no_such_module_here:f", f"{__name__}:nothing", f"{__name__}:Outcome.x", f"{__name__}:__doc__"]
)
def test_custom_path_that_cannot_be_used_is_a_configuration_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURES_PLUGINS", path)
    with pytest.raises((ConfigError, ValidationError)):
        make_verifier(CustomConfig(function=path))


@pytest.mark.parametrize(
    "values",
    [
        {"type": "nonsense"},
        {"type": "exact", "rules": ["box"]},
        {"type": "math", "rules": []},
        {"type": "math", "rules": ["box", "box"]},
        {"type": "math", "rules": ["boxes"]},
        {"type": "math", "timeout_s": 0},
        {"type": "math", "workers": 0},
        {"type": "math", "memory_mb": 10},
        {"type": "regex"},
        {"type": "regex", "pattern": "("},
        {"type": "choice", "letters": "abc"},
        {"type": "custom", "function": "os.system"},
    ],
)
def test_bad_configurations_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(RewardConfig).validate_python(values)


def test_type_chooses_the_verifier() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(RewardConfig)
    assert isinstance(adapter.validate_python({"type": "math"}), MathConfig)
    assert adapter.json_schema()["discriminator"]["propertyName"] == "type"
    for cfg in (ExactConfig(), NumericConfig(), MathConfig(), ChoiceConfig(), RegexConfig(pattern="x")):
        assert adapter.validate_json(cfg.model_dump_json()) == cfg


def test_exact_is_exact() -> None:
    assert outcome(ExactConfig(), "7.0", "7") == str(Outcome.WRONG)
