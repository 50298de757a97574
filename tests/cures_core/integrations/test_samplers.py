"""Draws for trainers whose rollouts overlap: torch's and torchdata's loaders, and verl's and prime-rl's contracts."""

from __future__ import annotations

import importlib
import pickle  # noqa: TID251 (what verl and prime-rl do with a state)
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from cures_core.curriculum import CuresConfig, Curriculum, DapoConfig, NeymanAllocation, UniformConfig
from cures_core.errors import ConfigError, CurriculumMisuse, MissingExtra
from cures_core.integrations.overlapping import Draws
from cures_core.integrations.torch_sampler import CurriculumSampler
from tests.cures_core.integrations import contracts

NUM = 30
CONFIG = CuresConfig(prompts_per_step=4, rollouts_per_step=16)


def curriculum(seed: int = 0, config: Any = CONFIG) -> Curriculum:
    return Curriculum.from_ids(
        [f"p{i:02d}" for i in range(NUM)], ["ab"[i % 2] for i in range(NUM)], config=config, seed=seed
    )


def rewards(row: int, visit: int) -> list[float]:
    rng = np.random.default_rng([row, visit])
    return (rng.random(4) < row / NUM).astype(float).tolist()


def through_disk(state: dict[str, Any]) -> dict[str, Any]:
    return pickle.loads(pickle.dumps(state))  # noqa: S301


def test_draws_overlap_and_answers_come_in_any_order() -> None:
    draws = Draws(curriculum())
    asks = [draws.next() for _ in range(10)]
    assert draws.in_flight == asks
    for ask in reversed(asks):
        draws.tell(ask.row, rewards(ask.row, 0))
    assert draws.in_flight == []
    counts = draws.curriculum.counts
    assert counts["correct"] + counts["wrong"] == 40
    assert counts["asked"] == 48  # three steps were asked for, ten prompts handed out


def test_an_answer_that_was_not_asked_for_is_refused() -> None:
    draws = Draws(curriculum())
    ask = draws.next()
    with pytest.raises(CurriculumMisuse, match="was not drawn"):
        draws.tell((ask.row + 1) % NUM, [1.0])
    with pytest.raises(CurriculumMisuse, match="is not a finite number"):
        draws.tell(ask.row, ["right"])  # type: ignore[list-item]
    draws.tell(ask.row, [1.0, None])
    with pytest.raises(CurriculumMisuse, match="told before"):
        draws.tell(ask.row, [1.0])
    assert draws.curriculum.counts == {"asked": 16, "correct": 1, "wrong": 0, "unknown": 3}


def test_a_dropped_prompt_is_counted_and_leaves_nothing_open() -> None:
    sampler = CurriculumSampler(curriculum())
    draws = sampler.draws
    row = draws.next().row
    sampler.drop(row)
    assert draws.in_flight == []
    assert draws.curriculum.counts == {"asked": 16, "correct": 0, "wrong": 0, "unknown": 4}
    with pytest.raises(CurriculumMisuse, match="told before"):
        sampler.drop(row)


def test_what_nobody_tells_is_given_up_after_some_steps_and_may_still_come() -> None:
    waiting, giving_up = Draws(curriculum()), Draws(curriculum(), lost_after=3)
    for draws in (waiting, giving_up):
        lost = draws.next().row
        for _ in range(100):
            ask = draws.next()
            if ask.row != lost:
                draws.tell(ask.row, rewards(ask.row, 0))
    assert len(waiting.in_flight) > 1  # every draw of the row is open, and in every checkpoint
    draws = giving_up
    assert len(draws.in_flight) <= 3
    given_up = draws.curriculum.counts["unknown"] // 4
    assert given_up >= 1
    before = draws.curriculum.counts
    while draws.in_flight:  # late rewards go to what is open first
        draws.tell(lost, rewards(lost, 0))
        before = draws.curriculum.counts
    for _ in range(given_up):  # then to what was given up: it has been counted
        draws.tell(lost, rewards(lost, 0))
    assert draws.curriculum.counts == before
    with pytest.raises(CurriculumMisuse, match="told before"):
        draws.tell(lost, rewards(lost, 0))
    with pytest.raises(ConfigError, match="lost_after: 0 is below 1"):
        CurriculumSampler(curriculum(), lost_after=0)


@pytest.mark.parametrize("again", [True, False])
def test_a_state_saved_at_any_moment_goes_on(again: bool) -> None:
    one = Draws(curriculum())
    asks = [one.next() for _ in range(6)]
    one.tell(asks[0].row, rewards(asks[0].row, 0))
    two = Draws(curriculum(seed=9))
    two.load_state_dict(through_disk(one.state_dict()), again=again)
    if again:  # what was in flight comes first, then everything as it would have come
        assert [two.next() for _ in asks[1:]] == asks[1:]
    else:
        assert two.curriculum.counts["unknown"] == 20
        for ask in asks[1:]:
            one.tell(ask.row, [None])
    for _ in range(20):
        a, b = one.next(), two.next()
        assert a == b
        for draws in (one, two):
            draws.tell(a.row, rewards(a.row, 1))
    assert one.curriculum.posterior.mean().tolist() == two.curriculum.posterior.mean().tolist()


@pytest.mark.parametrize(
    "config",
    [
        DapoConfig(prompts_per_step=2, rollouts_per_step=40),
        CuresConfig(prompts_per_step=4, rollouts_per_step=16, allocation=NeymanAllocation()),
        UniformConfig(prompts_per_step=3, rollouts_per_step=16),
    ],
)
def test_strategies_that_need_rewards_within_a_step_are_refused(config: Any) -> None:
    with pytest.raises(ConfigError):
        Draws(curriculum(config=config))


def test_a_foreign_state_is_refused() -> None:
    draws = Draws(curriculum())
    for state in ({}, {"draws": 1}, {"queue": [], "curriculum": {}}):
        with pytest.raises(ConfigError):
            draws.load_state_dict(state, again=False)
        with pytest.raises(ConfigError):
            CurriculumSampler(curriculum()).load_state_dict(state)
    with pytest.raises(ConfigError, match="num_samples"):
        CurriculumSampler(curriculum(), 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_torch_draws_an_epoch_and_then_another(workers: int) -> None:
    sampler = CurriculumSampler(curriculum(), num_samples=12)
    # Not forked from this process: it may have threads of other tests.
    context = "forkserver" if workers else None
    loader: DataLoader[int] = DataLoader(
        range(NUM),  # type: ignore[arg-type]
        batch_size=4,
        sampler=sampler,
        num_workers=workers,
        multiprocessing_context=context,
    )
    assert len(loader) == 3
    for _ in range(2):
        batches = [batch.tolist() for batch in loader]
        assert [len(batch) for batch in batches] == [4, 4, 4]
        for row in (row for batch in batches for row in batch):
            sampler.tell(row, rewards(row, 0))
    assert sampler.draws.curriculum.counts["asked"] == 96


def test_a_stateful_loader_goes_on_where_it_was_saved() -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def made(seed: int = 0) -> tuple[CurriculumSampler, Any]:
        sampler = CurriculumSampler(curriculum(seed), num_samples=16)
        return sampler, StatefulDataLoader(range(NUM), batch_size=4, sampler=sampler, num_workers=0)

    def stream(sampler: CurriculumSampler, loader: Any) -> Iterator[list[int]]:
        while True:
            for batch in loader:
                rows = batch.tolist()
                for row in rows:
                    sampler.tell(row, rewards(row, 0))
                yield rows

    for done in (2, 4, 5):  # within an epoch, at its end, and within the next
        sampler, loader = made()
        one = stream(sampler, loader)
        for _ in range(done):
            next(one)
        saved = through_disk(loader.state_dict())
        resumed, fresh = made(seed=7)
        fresh.load_state_dict(saved)
        two = stream(resumed, fresh)
        assert [next(one) for _ in range(7)] == [next(two) for _ in range(7)], done
        assert sampler.draws.curriculum.counts == resumed.draws.curriculum.counts


# ---- verl 0.7.1


class RLHFDataset:
    """verl's dataset as far as a sampler sees it: rows in `dataframe`, a datasets table."""

    def __init__(self, num: int = NUM, numbered: bool = True) -> None:
        self.dataframe = Dataset.from_list(
            [
                {
                    "data_source": "ab"[i % 2],
                    "prompt": [{"role": "user", "content": f"{i}+1="}],
                    "reward_model": {"style": "rule", "ground_truth": str(i + 1)},
                    "extra_info": {"index": 100 + i if numbered else 0, "split": "train"},
                }
                for i in range(num)
            ]
        )

    def __len__(self) -> int:
        return len(self.dataframe)

    def __getitem__(self, row: int) -> Any:
        return self.dataframe[row]


@pytest.fixture
def verl(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    contracts.install(
        monkeypatch,
        "verl.experimental.dataset.sampler",
        AbstractSampler=contracts.AbstractSampler,
        AbstractCurriculumSampler=contracts.AbstractCurriculumSampler,
    )
    monkeypatch.delitem(sys.modules, "cures_core.integrations.verl", raising=False)
    return importlib.import_module("cures_core.integrations.verl")


def data_config(**sampler: Any) -> dict[str, Any]:
    return {"train_batch_size": 4, "seed": 3, "sampler": {"num_generations": 4, **sampler}}


def rows_of(examples: list[Any]) -> list[int]:
    return [example["extra_info"]["index"] - 100 for example in examples]


def batch_of(rows: list[int], rng: np.random.Generator) -> contracts.DataProto:
    """A batch as verl makes it: every row four times, in an order of its own, the score at the last token."""
    order = rng.permutation(np.repeat(rows, 4))
    scores = torch.zeros(len(order), 6)
    visits = {row: iter(rewards(row, 0)) for row in rows}
    scores[:, -1] = torch.tensor([next(visits[int(row)]) for row in order])
    extra = np.array([{"index": 100 + int(row)} for row in order], dtype=object)
    return contracts.DataProto({"token_level_scores": scores}, {"extra_info": extra})


def test_verl_draws_updates_and_resumes_as_its_trainer_does(verl: ModuleType) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def made() -> tuple[Any, Any]:
        sampler = verl.CuresSampler(data_source=RLHFDataset(), data_config=data_config())
        assert isinstance(sampler, contracts.AbstractSampler)
        collate = {"collate_fn": lambda rows: [row["extra_info"]["index"] - 100 for row in rows]}
        return sampler, StatefulDataLoader(
            RLHFDataset(), batch_size=4, sampler=sampler, num_workers=0, drop_last=True, **collate
        )

    def fit(sampler: Any, loader: Any, steps: int, save_at: int = 0) -> tuple[list[list[int]], Any]:
        seen, saved = [], None
        while len(seen) < steps:
            for rows in loader:
                seen.append(rows)
                if len(seen) == save_at:  # verl saves before it updates the sampler
                    saved = through_disk(loader.state_dict())
                sampler.update(batch=batch_of(rows, np.random.default_rng(len(seen))))
                if len(seen) == steps:
                    break
        return seen, saved

    one, loader = made()
    seen, saved = fit(one, loader, 5, save_at=3)
    assert one.curriculum.counts["unknown"] == 0
    two, fresh = made()
    fresh.load_state_dict(saved)
    again, _ = fit(two, fresh, 2)
    assert two.curriculum.counts["unknown"] == 16  # the rewards of the step that was saved
    assert again[0] != seen[2]
    assert two.curriculum.counts["asked"] == one.curriculum.counts["asked"] == 80


def test_verl_names_prompts_as_the_pipeline_does_and_counts_dropped_rollouts(verl: ModuleType) -> None:
    from cures_core.prompts import content_id

    sampler = verl.CuresSampler(RLHFDataset(), data_config(threshold=0.9, curriculum={"type": "uniform"}))
    assert sampler.curriculum.prompts.ids == sorted(content_id(f"{i}+1=", str(i + 1)) for i in range(NUM))
    assert sampler.curriculum.config == UniformConfig(prompts_per_step=4, rollouts_per_step=16)
    rows = [row for _, row in zip(range(4), sampler, strict=False)]
    batch = batch_of(rows, np.random.default_rng(0))
    kept = [i for i, extra in enumerate(batch.non_tensor_batch["extra_info"]) if extra["index"] != 100 + rows[0]][:-1]
    sampler.update(contracts.DataProto({"token_level_scores": batch.batch["token_level_scores"][kept]},
                                       {"extra_info": batch.non_tensor_batch["extra_info"][kept]}))  # fmt: skip
    assert sampler.curriculum.counts["unknown"] == 1
    assert [ask.row for ask in sampler.curriculum.open] == [rows[0]]  # dropped as a whole: open for four steps
    for unknown in (1, 1, 1, 1, 1 + 4):
        others = [row for _, row in zip(range(4), sampler, strict=False) if row != rows[0]]
        assert sampler.curriculum.counts["unknown"] == unknown
        sampler.update(batch_of(others, np.random.default_rng(0)))


def test_verl_draws_as_many_prompts_as_are_generated_at_once(verl: ModuleType) -> None:
    config = {**data_config(), "gen_batch_size": 6}
    sizes = verl.CuresSampler(RLHFDataset(), config).curriculum.config
    assert (sizes.prompts_per_step, sizes.rollouts_per_step) == (6, 24)


@pytest.mark.parametrize(
    ("dataset", "config", "words"),
    [
        (RLHFDataset(numbered=False), data_config(), "rows 0 and 1 have the same extra_info.index 0: number the rows"),
        (RLHFDataset(), {"train_batch_size": 4, "sampler": {}}, r"\+data.sampler.num_generations is needed"),
        (RLHFDataset(), data_config(curriculum={"signal": "loud"}), "data.sampler.curriculum: cures.signal"),
        (RLHFDataset(), data_config(curriculum={"type": "dapo", "group_size": 2}), "which dapo does not ask for"),
    ],
)
def test_verl_settings_that_do_not_fit_are_refused(
    verl: ModuleType, dataset: RLHFDataset, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        verl.CuresSampler(dataset, config)


def test_verl_rows_of_another_dataset_are_refused(verl: ModuleType) -> None:
    sampler = verl.CuresSampler(RLHFDataset(), data_config())
    with pytest.raises(CurriculumMisuse, match="index 130 is in no row"):
        sampler.update(batch_of([30], np.random.default_rng(0)))


# ---- prime-rl v0.8.1.dev52


@pytest.fixture
def prime_rl(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    contracts.install(monkeypatch, "prime_rl.orchestrator.curriculum", TaskSampler=contracts.TaskSampler)
    monkeypatch.delitem(sys.modules, "cures_core.integrations.prime_rl", raising=False)
    return importlib.import_module("cures_core.integrations.prime_rl")


TASKS = [contracts.Task(f"t{i}", str(i % 3)) for i in range(NUM)]


def group_of(task: contracts.Task, failed: int = 0) -> list[contracts.Episode]:
    values = rewards(int(task.key[1:]), 0)
    return [contracts.Episode(task, [contracts.Trace(v, has_error=i < failed)]) for i, v in enumerate(values)]


def test_prime_rl_hands_out_tasks_observes_groups_and_loses_none_in_a_restart(prime_rl: ModuleType) -> None:
    one = prime_rl.CuresTaskSampler(TASKS, group_size=4, level=lambda task: task.level, seed=1)
    flight = [next(one) for _ in range(40)]
    for task in flight[:25]:
        one.observe(group_of(task))
    assert one.metrics()["in_flight"] == 15
    state = through_disk(one.state_dict())
    two = prime_rl.CuresTaskSampler(TASKS, group_size=4, level=lambda task: task.level, seed=1)
    two.load_state_dict(state)
    assert [next(two) for _ in range(15)] == flight[25:]
    for task in flight[25:]:
        one.observe(group_of(task))
        two.observe(group_of(task))
    assert [next(one) for _ in range(60)] == [next(two) for _ in range(60)]
    assert one.metrics() == two.metrics()


def test_prime_rl_errors_are_unknown_and_helpers_are_not_counted(prime_rl: ModuleType) -> None:
    sampler = prime_rl.CuresTaskSampler(TASKS, group_size=4)
    task = next(sampler)
    group = group_of(task, failed=1)
    group[2].traces.append(contracts.Trace(1.0, agent=contracts.Agent(trainable=False)))
    sampler.observe(group[:3])  # and one rollout was dropped
    metrics = sampler.metrics()
    assert metrics["rollouts/unknown"] == 2
    assert metrics["rollouts/correct"] + metrics["rollouts/wrong"] == 2
    with pytest.raises(CurriculumMisuse, match="'t99' is not in this task set"):
        sampler.observe([contracts.Episode(contracts.Task("t99"), [])])


def test_prime_rl_labels_threshold_and_posterior_are_the_curriculums(prime_rl: ModuleType) -> None:
    options: dict[str, Any] = {"group_size": 4, "source": lambda task: "abc"[int(task.level)], "threshold": 0.9}
    one = prime_rl.CuresTaskSampler(TASKS, level=lambda task: task.key[1:], **options)
    curriculum = one.draws.curriculum
    assert {(p.id, p.source, p.level) for p in curriculum.prompts} == {
        (t.key, "abc"[int(t.level)], t.key[1:]) for t in TASKS
    }
    one.observe([contracts.Episode(next(one), [contracts.Trace(0.8), contracts.Trace(0.9)])])
    assert (curriculum.counts["correct"], curriculum.counts["wrong"]) == (1, 1)
    two = prime_rl.CuresTaskSampler(TASKS[:20], posterior=curriculum.posterior, **options)
    assert two.draws.curriculum.matched == {"kept": 20, "restored": 0, "new": 0, "archived": NUM - 20}


def test_prime_rl_task_sets_that_do_not_fit_are_refused(prime_rl: ModuleType) -> None:
    with pytest.raises(ConfigError, match="finite"):
        prime_rl.CuresTaskSampler(iter(TASKS), group_size=4)
    with pytest.raises(ConfigError, match="have the same id 't0'"):
        prime_rl.CuresTaskSampler([*TASKS, TASKS[0]], group_size=4)
    with pytest.raises(ConfigError, match="groups of 4, group_size is 8"):
        prime_rl.CuresTaskSampler(TASKS, 8, CONFIG)
    with pytest.raises(ConfigError, match="empty"):
        prime_rl.CuresTaskSampler([], group_size=4)


@pytest.mark.parametrize(("module", "words"), [("verl", "verl==0.7.1"), ("prime_rl", "prime-rl v0.8.1.dev52")])
def test_without_the_trainer_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"cures_core.integrations.{module}", raising=False)
    with pytest.raises(MissingExtra, match=words):
        importlib.import_module(f"cures_core.integrations.{module}")
