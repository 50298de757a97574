"""The curriculum as a library: what goes in, what comes out, bad input, order of telling, deferring, and its state."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cures_core.config.data import PromptFile
from cures_core.curriculum import (
    Ask,
    CuresConfig,
    Curriculum,
    CurriculumConfig,
    DapoConfig,
    Posterior,
    ScreenAllocation,
    UniformConfig,
    load_posterior,
    make_curriculum,
    save_posterior,
)
from cures_core.errors import ConfigError, CorruptArtifact, CurriculumMisuse, MissingInput
from cures_core.prompts import PromptSet, content_id, load_prompts
from cures_core.prompts.chats import read_chat, written
from cures_core.terms import Group, Outcome, Verdict
from cures_core.testing.curriculum import prompt_set

IDS = [f"p{i:03d}" for i in range(48)]
SOURCES = ["ab"[i % 2] for i in range(48)]
SMALL = CuresConfig(prompts_per_step=6, rollouts_per_step=24)


def made(config: CurriculumConfig = SMALL, seed: int = 0, **options: Any) -> Curriculum:
    return Curriculum.from_ids(IDS, SOURCES, config=config, seed=seed, **options)


def rate(name: str) -> float:
    """True pass rate of a prompt."""
    return int(name[1:]) / 48


def play(curriculum: Curriculum, steps: int, shuffle: np.random.Generator | None = None) -> list[tuple[str, ...]]:
    """Steps with rewards that follow from prompt, request and rollout; the ids of each step."""
    played = []
    for _ in range(steps):
        while (step := curriculum.ready()) is None:
            asks = curriculum.ask()
            for i in range(len(asks)) if shuffle is None else shuffle.permutation(len(asks)):
                curriculum.tell(asks[i].request_id, rewards(asks[i]))
        played.append(step.ids)
    return played


def rewards(ask: Ask) -> list[float]:
    rng = np.random.default_rng([ask.seed, ask.row])
    return (rng.random(ask.n) < rate(ask.id)).astype(float).tolist()


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_it_moves_to_prompts_that_teach() -> None:
    curriculum = made()
    play(curriculum, 30)
    drawn = [abs(rate(x) - 0.5) for ids in play(curriculum, 30) for x in ids]
    assert np.mean(drawn) < 0.8 * np.mean([abs(rate(x) - 0.5) for x in IDS])
    assert curriculum.counts["asked"] == curriculum.counts["correct"] + curriculum.counts["wrong"] == 60 * 24


def test_it_is_the_same_strategy_as_the_pipelines() -> None:
    prompts = prompt_set(40)
    library = Curriculum.from_table(
        {name: prompts.column(name) for name in ("problem", "answer", "source", "level")}, SMALL, seed=4
    )
    pipeline = make_curriculum(SMALL, prompts, Posterior.fresh(prompts, SMALL.posterior), 4)
    for _ in range(5):
        asks, requests = library.ask(), pipeline.ask(24)
        assert [(a.request_id, a.id, a.n, a.seed) for a in asks] == [(q.id, q.prompt.id, q.n, q.seed) for q in requests]
        for ask in asks:
            library.tell(ask.request_id, correct=ask.n - 1, wrong=1)
        pair = Verdict(Outcome.CORRECT), Verdict(Outcome.WRONG)
        pipeline.tell([Group(q, (), [pair[0]] * (q.n - 1) + [pair[1]]) for q in requests])
        step, batch = library.ready(), pipeline.ready()
        assert step is not None
        assert batch is not None
        assert step.figures == batch.figures
    assert plain(library.state_dict()["strategy"]) == plain(pipeline.state_dict())


def tells_in_any_order_and_goes_on(config: CurriculumConfig, folder: Path) -> None:
    """Told in another order it draws the same, and so it does from a file that it has written."""
    first, second = made(config), made(config)
    assert play(first, 6) == play(second, 6, np.random.default_rng(1))
    assert plain(first.state_dict()) == plain(second.state_dict())
    first.save(folder / "state")
    third = made(config, seed=77)
    third.load(folder / "state")
    assert play(first, 6) == play(third, 6)
    assert first.counts == third.counts
    third.save(folder / "again")
    first.save(folder / "state")
    assert (folder / "state").read_bytes() == (folder / "again").read_bytes()


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        UniformConfig(prompts_per_step=6, rollouts_per_step=24),
        CuresConfig(prompts_per_step=6, rollouts_per_step=24, allocation=ScreenAllocation()),
        DapoConfig(prompts_per_step=2, rollouts_per_step=24, group_size=4),
    ],
    ids=lambda c: f"{c.type}-{getattr(getattr(c, 'allocation', None), 'type', '')}",
)
def test_the_order_of_telling_does_not_matter_and_a_saved_state_goes_on(
    config: CurriculumConfig, tmp_path: Path
) -> None:
    tells_in_any_order_and_goes_on(config, tmp_path)


def test_rows_are_those_of_the_callers_table() -> None:
    order = np.random.default_rng(3).permutation(48)
    ids = [IDS[i] for i in order]
    curriculum = Curriculum.from_ids(np.array(ids), config=SMALL)
    for ask in curriculum.ask():
        assert ids[ask.row] == ask.id
        curriculum.tell(ask.request_id, correct=1)
    step = curriculum.ready()
    assert step is not None
    assert [ids[row] for row in step.rows] == list(step.ids)


class Frame:
    """What a data frame looks like from outside."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns, self._values = list(columns), columns

    def __getitem__(self, name: str) -> np.ndarray:
        column = np.empty(len(self._values[name]), dtype=object)
        column[:] = self._values[name]
        return column


def test_tables_of_all_kinds_name_prompts_by_content() -> None:
    import datasets

    columns = {
        "problem": [f"{i}+1=" for i in range(20)],
        "answer": [str(i + 1) for i in range(20)],
        "level": ["x"] * 20,
    }
    expected = [content_id(p, a) for p, a in zip(columns["problem"], columns["answer"], strict=True)]
    for table in (columns, Frame(**columns), pa.table(columns), datasets.Dataset.from_dict(columns)):
        curriculum = Curriculum.from_table(table, SMALL)
        assert sorted(expected) == curriculum.prompts.ids
        assert all(expected[ask.row] == ask.id for ask in curriculum.ask())
        assert curriculum.prompts[0].level == "x"


def chat(text: str, *before: str) -> list[dict[str, str]]:
    """A chat with what was said before, by the system and then in turn."""
    roles = ("system", "user", "assistant")
    said = [{"role": roles[i], "content": t} for i, t in enumerate(before)]
    return [*said, {"role": "user", "content": text}]


def test_what_was_said_before_the_last_user_message_is_part_of_the_name() -> None:
    chats = [chat("And now?", "Think.", f"{i}+1=", str(i + 1)) for i in range(8)]
    table = {"prompt": chats, "answer": ["7"] * 8}
    expected = [content_id("And now?", "7", written(read_chat(messages).turns)) for messages in chats]
    for one in (table, Frame(prompt=[np.array(c) for c in chats], answer=["7"] * 8), pa.table(table)):
        curriculum = Curriculum.from_table(one, SMALL, problem="prompt")
        assert curriculum.prompts.ids == sorted(expected)
        assert all(expected[ask.row] == ask.id for ask in curriculum.ask())
    assert curriculum.prompts[0].turns[0] == ("system", "Think.")
    turns = {"problem": ["And now?"] * 8, "answer": ["7"] * 8, "turns": [written(read_chat(c).turns) for c in chats]}
    assert Curriculum.from_table(turns, SMALL).prompts.ids == sorted(expected)
    with pytest.raises(ConfigError, match=r"have the same id .* their content is the same: drop one of the two"):
        Curriculum.from_table(table, SMALL, problem="prompt", problem_rule="last_user")
    last = Curriculum.from_table(
        {"prompt": chats, "answer": [str(i) for i in range(8)]}, SMALL, problem="prompt", problem_rule="last_user"
    )
    assert last.prompts.ids == sorted(content_id("And now?", str(i)) for i in range(8))
    with pytest.raises(ConfigError, match="row 0: column 'prompt' holds no problem"):
        Curriculum.from_table(table, SMALL, problem="prompt", problem_rule="text")


DIRTY: list[tuple[object, object]] = [
    (" What is 1 + 1?", 2),
    ("What is\u200b 2 + 2?\r\nSay it. ", " 4"),
    ("Cafe\u0301: 1 + 2?", "3.0"),
    ("Three and four?", 7.0),
    ("A half of three?", "\\boxed{3/2}"),
    ("Half a million?", 0.5e6),
    ([{"role": "system", "content": " Base 7. "}, {"role": "user", "content": " Six and one?\n"}], "10"),
    ([{"role": "user", "content": [{"type": "text", "text": "Nothing before\u00ad?"}]}], "yes"),
]


@pytest.mark.parametrize("rule", ["text", "chat", "last_user"])
def test_names_are_those_of_the_pipeline_for_rows_as_people_have_them(tmp_path: Path, rule: Any) -> None:
    rows = [{"problem": p, "answer": a} for p, a in DIRTY if isinstance(p, str) == (rule == "text")]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_prompts(PromptFile(path=str(path), problem_rule=rule))
    assert len(loaded.prompts) == len(rows) > 1
    table = {name: [row[name] for row in rows] for name in ("problem", "answer")}
    assert Curriculum.from_table(table, SMALL, problem_rule=rule).prompts.ids == loaded.prompts.ids
    if rule != "last_user":  # what is taken without a rule
        assert Curriculum.from_table(table, SMALL).prompts.ids == loaded.prompts.ids


@pytest.mark.parametrize(("rule", "answer"), [("gsm8k", "1 + 1 is 2\n#### 1,002"), ("boxed", "So \\boxed{1002}.")])
def test_answers_are_taken_by_the_pipelines_rules(rule: Any, answer: str) -> None:
    table = {"question": ["What?"], "answer": [answer]}
    curriculum = Curriculum.from_table(table, SMALL, problem="question", answer_rule=rule)
    assert curriculum.prompts.ids == [content_id("What?", "1002")]


def test_how_much_of_an_earlier_posterior_is_known_is_told() -> None:
    first = Curriculum.from_ids(IDS[:40], config=SMALL)
    play(first, 3)
    later = Curriculum.from_ids([*IDS[8:], "another"], config=SMALL, posterior=first.posterior)
    assert later.matched == {"kept": 32, "restored": 0, "new": 9, "archived": 8}
    back = Curriculum.from_ids(IDS[:9], config=SMALL, posterior=later.posterior)
    assert back.matched == {"kept": 1, "restored": 8, "new": 0, "archived": 40}
    assert made().matched == {"kept": 0, "restored": 0, "new": 48, "archived": 0}


def test_the_pipelines_prompt_set_and_posterior_are_read(tmp_path: Path) -> None:
    prompts = prompt_set(40)
    prompts.write_parquet(tmp_path / "prompts.parquet")
    first = Curriculum.from_parquet(tmp_path / "prompts.parquet", SMALL)
    for ask in first.ask():
        first.tell(ask.request_id, correct=1, wrong=3)
    save_posterior(first.posterior, tmp_path / "posterior.parquet")
    later = Curriculum.from_parquet(
        tmp_path / "prompts.parquet", SMALL, posterior=load_posterior(tmp_path / "posterior.parquet")
    )
    assert later.posterior.evidence().sum() == pytest.approx(24)
    assert PromptSet.read_parquet(tmp_path / "prompts.parquet").ids == later.prompts.ids


def test_ids_may_be_any_text_and_numbers() -> None:
    ids = ["é", "日本", "z", "a b", "ß"]
    curriculum = Curriculum.from_ids(ids, config=CuresConfig(prompts_per_step=5, rollouts_per_step=10))
    asks = curriculum.ask()
    assert {a.id for a in asks} == set(ids)
    assert all(ids[a.row] == a.id for a in asks)
    assert Curriculum.from_ids(range(9), config=SMALL).prompts.ids == [str(i) for i in range(9)]


@pytest.mark.parametrize(
    ("ids", "labels", "words"),
    [
        (["a", "b", "a"], None, "rows 0 and 2 have the same id 'a'"),
        (["a", ""], None, "row 1: '' is no id"),
        (["a", None], None, "row 1: '' is no id"),
        (["a", "b\0"], None, "row 1"),
        (["a", "\ud800"], None, "lone surrogate"),
        (["a", "b" * 201], None, "200 at most; take a hash"),
        (["a", "b"], ["x"], "1 sources for 2 ids"),
        ([], None, "the prompt set is empty"),
    ],
)
def test_bad_ids_and_labels_are_refused(ids: list[Any], labels: list[str] | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Curriculum.from_ids(ids, labels, config=SMALL)


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        ({"question": ["1"], "answer": ["1"]}, {}, "no column 'problem'; its columns are question, answer"),
        ({"problem": ["1", ""], "answer": ["1", "2"]}, {}, "row 1: column 'problem' holds no problem"),
        ({"problem": ["1", "1"], "answer": ["1", "1"]}, {}, "rows 0 and 1 have the same id"),
        ({"problem": ["1"]}, {"id": "name"}, "no column 'name'"),
        (7, {}, "int is no table"),
    ],
)
def test_bad_tables_are_refused(table: Any, options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Curriculum.from_table(table, SMALL, **options)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"request_id": "nobody", "correct": 1}, "request nobody was not asked for"),
        ({"rewards": [1.0] * 5}, "asked for 4 rollouts and was told 5"),
        ({"correct": 3, "wrong": 2}, "asked for 4 rollouts and was told 5"),
        ({"correct": -1}, "negative counts"),
        ({"rewards": [1.0], "correct": 1}, "both by rewards and by counts"),
        ({"rewards": [1.0, "yes"]}, "rollout 1: the reward 'yes' is not a finite number"),
        ({"rewards": [1.0, float("inf")]}, "rollout 1: the reward inf is not a finite number"),
        ({"rewards": [1.0, 1j]}, "rollout 1"),
        ({"rewards": [10**400]}, "rollout 0"),
        ({"rewards": [[1.0]]}, "rollout 0"),
    ],
)
def test_a_bad_tell_is_refused_and_leaves_no_trace(told: dict[str, Any], words: str) -> None:
    curriculum, twin = made(), made()
    asks, _ = curriculum.ask(), twin.ask()
    with pytest.raises(CurriculumMisuse, match=words):
        curriculum.tell(**{"request_id": asks[0].request_id, **told})
    assert curriculum.counts == twin.counts
    assert curriculum.open == twin.open
    for one in (curriculum, twin):
        for ask in asks:
            one.tell(ask.request_id, rewards(ask))
        assert one.ready() is not None
    assert plain(curriculum.state_dict()) == plain(twin.state_dict())


def test_a_repeated_tell_is_refused_before_and_after_it_was_counted() -> None:
    curriculum = made()
    asks = curriculum.ask()
    curriculum.tell(asks[0].request_id, correct=4)
    with pytest.raises(CurriculumMisuse, match="told before"):
        curriculum.tell(asks[0].request_id, correct=4)
    for ask in asks[1:]:
        curriculum.tell(ask.request_id, correct=4)
    assert curriculum.ready() is not None
    with pytest.raises(CurriculumMisuse, match="told before"):
        curriculum.tell(asks[0].request_id, correct=4)
    assert curriculum.counts == {"asked": 24, "correct": 24, "wrong": 0, "unknown": 0}


def test_dropped_rollouts_and_rollouts_without_a_verdict_are_unknown_and_counted() -> None:
    curriculum = made()
    asks = curriculum.ask()
    curriculum.tell(asks[0].request_id, [1.0, None, float("nan")])  # and one that was dropped
    curriculum.tell(asks[1].request_id)
    curriculum.tell(asks[2].request_id, [np.float32(0.4), np.array(0.5), True, 0])
    for ask in asks[3:]:
        curriculum.tell(ask.request_id, unknown=4)
    assert curriculum.ready() is not None
    assert curriculum.counts == {"asked": 24, "correct": 3, "wrong": 2, "unknown": 19}
    right, wrong = curriculum.posterior.own_counts()
    assert (right.sum(), wrong.sum()) == (3, 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(), st.booleans(), st.integers(), st.text(max_size=2)), max_size=6))
def test_every_tell_is_an_error_or_counted_whole(values: list[Any]) -> None:
    curriculum = made()
    ask = curriculum.ask()[0]
    try:
        curriculum.tell(ask.request_id, values)
    except CurriculumMisuse:
        assert ask in curriculum.open
        assert sum(curriculum.counts.values()) == 24
    else:
        assert ask not in curriculum.open
        assert sum(curriculum.counts.values()) == 24 + ask.n


def test_asking_again_before_telling_is_refused() -> None:
    curriculum = made()
    curriculum.ask()
    assert curriculum.ready() is None
    with pytest.raises(CurriculumMisuse, match="still to be told"):
        curriculum.ask()
    with pytest.raises(CurriculumMisuse, match="a step is going on"):
        curriculum.state_dict()


def test_deferred_asks_count_when_they_are_told_whatever_the_step(tmp_path: Path) -> None:
    curriculum = made()
    with pytest.raises(CurriculumMisuse, match="nothing to defer"):
        curriculum.defer()
    first = curriculum.ask()
    step = curriculum.defer()
    assert step.ids == tuple(a.id for a in first)
    second = curriculum.ask()
    curriculum.defer()
    assert curriculum.open == [*first, *second]
    for ask in [second[0], first[3]]:
        curriculum.tell(ask.request_id, correct=3, wrong=1)
    with pytest.raises(CurriculumMisuse, match="told before"):
        curriculum.tell(first[3].request_id, correct=4)
    assert curriculum.posterior.evidence().sum() == 8
    curriculum.save(tmp_path / "state")
    later = made(seed=5)
    later.load(tmp_path / "state")
    assert later.open == [a for a in [*first, *second] if a not in (second[0], first[3])]
    for one in (curriculum, later):
        for ask in one.open:
            one.tell(ask.request_id, rewards(ask))
    assert play(curriculum, 3) == play(later, 3)
    assert plain(curriculum.state_dict()) == plain(later.state_dict())


def defers_and_is_told_late(config: CurriculumConfig) -> None:
    """Steps that are closed at once; a copy of the state goes on in the same way."""
    one, two = made(config), made(config, seed=8)
    for _ in range(3):
        one.ask()
        assert "requests deferred" in one.defer().reason
    two.load_state_dict(one.state_dict())
    late = one.open
    assert late == two.open
    for curriculum in (one, two):
        for ask in reversed(late):
            curriculum.tell(ask.request_id, rewards(ask))
    assert one.counts["correct"] + one.counts["wrong"] == one.counts["asked"]
    assert play(one, 4) == play(two, 4)
    assert plain(one.state_dict()) == plain(two.state_dict())


@pytest.mark.parametrize(
    "config",
    [
        UniformConfig(prompts_per_step=6, rollouts_per_step=24),
        DapoConfig(prompts_per_step=2, rollouts_per_step=24, group_size=4),
        CuresConfig(prompts_per_step=6, rollouts_per_step=24, allocation=ScreenAllocation()),
    ],
    ids=lambda c: str(c.type),
)
def test_every_strategy_can_defer_and_be_told_late(config: CurriculumConfig) -> None:
    defers_and_is_told_late(config)


def test_deferring_is_the_same_as_telling_in_time_but_for_the_step() -> None:
    """An asynchronous trainer whose rewards come before the next ask draws what a synchronous one draws."""
    one, two = made(), made()
    for _ in range(8):
        asks, others = one.ask(), two.ask()
        assert asks == others
        two.defer()
        for ask in asks:
            one.tell(ask.request_id, rewards(ask))
            two.tell(ask.request_id, rewards(ask))
        assert one.ready() is not None
    assert np.array_equal(one.posterior.mean(), two.posterior.mean())


def test_a_foreign_state_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    curriculum, twin = made(), made()
    play(curriculum, 2)
    play(twin, 2)
    others = [
        Curriculum.from_ids([f"q{i}" for i in range(48)], SOURCES, config=SMALL).state_dict(),
        made(UniformConfig(prompts_per_step=6, rollouts_per_step=24)).state_dict(),
        made(
            SMALL.model_copy(update={"posterior": SMALL.posterior.model_copy(update={"fading": "fitted"})})
        ).state_dict(),
        {"format": 2},
        {},
        {"format": 1, "counts": {}, "strategy": {}},
        {"format": 1, "counts": made().counts, "strategy": {"type": "cures"}},
    ]
    for state in others:
        with pytest.raises(ConfigError):
            curriculum.load_state_dict(state)
    assert play(curriculum, 2) == play(twin, 2)
    (tmp_path / "broken").write_bytes(b"no safetensors")
    with pytest.raises(CorruptArtifact, match="take an earlier one"):
        curriculum.load(tmp_path / "broken")
    with pytest.raises(MissingInput):
        curriculum.load(tmp_path / "nothing")


@pytest.mark.parametrize("answered", [False, True])
def test_a_state_that_is_loaded_within_a_step_gives_that_step_up(answered: bool) -> None:
    curriculum, twin = made(), made()
    state = curriculum.state_dict()
    for ask in curriculum.ask():
        if answered:
            curriculum.tell(ask.request_id, rewards(ask))
    assert curriculum.posterior.evidence().any() == answered
    curriculum.load_state_dict(state)
    assert curriculum.ready() is None
    assert plain(curriculum.state_dict()) == plain(state)
    assert play(curriculum, 3) == play(twin, 3)
    assert plain(curriculum.state_dict()) == plain(twin.state_dict())


def test_a_posterior_of_another_set_is_refused() -> None:
    other = Curriculum.from_ids(["x", "y"], config=SMALL).posterior
    with pytest.raises(ConfigError, match="knows none of these 48"):
        made(posterior=other)
    with pytest.raises(ConfigError, match="threshold"):
        made(threshold=float("nan"))


def test_importing_it_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.process_time(); import cures_core.curriculum; "
        "print(time.process_time() - start); print(*sys.modules)"
    )
    seconds, modules = [], set[str]()
    for _ in range(3):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        took, names = out.split("\n", 1)
        seconds.append(float(took))
        modules = {name.split(".")[0] for name in names.split()}
    assert not modules & {
        "torch",
        "transformers",
        "scipy",
        "sklearn",
        "pandas",
        "prefect",
        "datasets",
        "boto3",
        "typer",
    }
    assert min(seconds) < 0.5, f"seconds of processor time: {seconds}"


def test_the_public_names_are_there_and_documented() -> None:
    import cures_core.curriculum as library

    for name in library.__all__:
        assert getattr(library, name).__doc__ or name == "CurriculumConfig", name
    state = json.dumps(plain(made().state_dict()))
    assert "NaN" not in state


def _ids(asks: Iterable[Ask]) -> list[str]:
    return [a.id for a in asks]


def test_seeds_decide() -> None:
    assert _ids(made(seed=1).ask()) == _ids(made(seed=1).ask()) != _ids(made(seed=2).ask())
