"""Groups without a verdict, batches without a group, suites without an answer: every mean, share and weight from the
rollouts to the report either has a value that is finite or is left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cures_core.config.curriculum import (
    CuresConfig,
    DapoConfig,
    NeymanAllocation,
    PaperConfig,
    ScreenAllocation,
    UniformConfig,
)
from cures_core.config.evaluation import EvaluatedSuite, EvaluationConfig, PromotionConfig
from cures_core.config.policy import WarmStartPolicy
from cures_core.config.training import TorchrunTrainerConfig, TorchTrainerConfig
from cures_core.curriculum import Posterior, Strategy, make_curriculum
from cures_core.curriculum.ask_tell import Batch
from cures_core.curriculum.explain import explain_prompt, hopeless
from cures_core.distributed import World, serve
from cures_core.epoch import Progress, advance, step_metrics
from cures_core.evaluation.items import ItemResult, score
from cures_core.evaluation.lm_eval import lm_eval_results
from cures_core.evaluation.paired import Evaluated, compare
from cures_core.evaluation.promotion import decide
from cures_core.events import StepDone
from cures_core.policy.characters import character_model, character_tokenizer
from cures_core.policy.loading import Policy
from cures_core.report import ReportData, render
from cures_core.tally import Tally
from cures_core.terms import FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict
from cures_core.testing.curriculum import answered, prompt_set
from cures_core.training.advantages import AdvantageName, WeightName, batch_samples
from cures_core.training.torch_trainer import TorchTrainer
from flows.cli.console import step_line
from tests.cures_core.ranks import in_ranks

C, W, U = Outcome.CORRECT, Outcome.WRONG, Outcome.UNKNOWN


def many(*outcomes: Outcome) -> st.SearchStrategy[list[Outcome]]:
    return st.lists(st.sampled_from(outcomes), min_size=1, max_size=4)


OUTCOMES = st.one_of(st.just([]), many(U), many(C), many(W), st.sampled_from([[C], [W], [U]]), many(C, W, U))
"""Of one group: none, all unknown, all right, all wrong, a single rollout, a mixture."""


@st.composite
def groups(draw: st.DrawFn) -> list[Group]:
    """Of a batch, which may be empty. Completions may be empty as well; rewards may differ within right and wrong."""
    batch = []
    for i, outcomes in enumerate(draw(st.lists(OUTCOMES, max_size=4))):
        lengths = draw(st.lists(st.integers(0, 3), min_size=len(outcomes), max_size=len(outcomes)))
        paid = draw(st.sampled_from([None, 0.0, 0.25]))
        rollouts = [
            Rollout(str(i), j, (5, 6), (7,) * n, (-1.0,) * n, "", FinishReason.STOP) for j, n in enumerate(lengths)
        ]
        verdicts = [Verdict(o, reward=paid if j % 2 else None) for j, o in enumerate(outcomes)]
        request = Request(str(i), Prompt(f"p{i}", "", ""), len(outcomes), 0, draw(st.floats(0, 1)))
        batch.append(Group(request, rollouts, verdicts))
    return batch


def known(batch: Iterable[Group]) -> int:
    return sum(g.successes + g.failures for g in batch)


def assert_finite(value: Any) -> None:
    """All numbers below `value`."""
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str):
        for one in value:
            assert_finite(one)
    elif isinstance(value, float | int | np.number):
        assert math.isfinite(value)


@given(groups(), st.sampled_from(get_args(AdvantageName)), st.sampled_from(get_args(WeightName)), st.booleans())
def test_weights_of_the_known_rollouts_sum_to_one(batch: list[Group], advantage: Any, weight: Any, held: bool) -> None:
    solved = 1.0 if held and advantage not in ("reinforce++", "posterior") else 0.0
    for keep_all in (False, True):
        samples = batch_samples(batch, advantage, weight, solved, keep_all=keep_all)
        assert_finite([(s.advantage, s.weight) for s in samples])
        assert all(s.rollout.token_ids and s.weight >= 0 for s in samples)
        assert sum(s.weight for s in samples) <= 1 + 1e-9
        assert known(batch) or not samples
    told = [v.outcome for g in batch for v in g.verdicts]
    if samples and not solved and len(samples) == len(told) - told.count(U):  # with `keep_all`, and none is empty
        assert sum(s.weight for s in samples) == pytest.approx(1.0)


@given(groups(), st.dictionaries(st.sampled_from(["groups", "x"]), st.just(1.0)))
def test_metrics_leave_out_what_is_no_mean(batch: list[Group], figures: dict[str, float]) -> None:
    row = step_metrics(advance(Progress(), batch), Batch(batch, "complete", figures), batch, {})
    assert_finite(row)
    assert ("reward_mean" in row) == (known(batch) > 0)
    assert ("completion_tokens_mean" in row) == ("truncated_share" in row) == any(g.rollouts for g in batch)
    Tally().observe(batch)


def tiny_policy() -> Policy:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    model = character_model(WarmStartPolicy(hidden_size=16, layers=1, heads=1), tokenizer)
    return Policy(model.eval(), tokenizer, torch.device("cpu"))


RECIPES: list[dict[str, Any]] = [
    {},
    {"solved_advantage": 1.0},
    {"loss": "dapo"},
    {"loss": "rloo"},
    {"loss": "reinforce++"},
    {"loss": "reinforce++-baseline", "solved_advantage": 0.5},
]


@settings(max_examples=60)
@given(st.lists(groups(), min_size=1, max_size=2), st.sampled_from(RECIPES))
def test_every_batch_is_an_update_or_says_that_it_is_none(batches: list[list[Group]], recipe: dict[str, Any]) -> None:
    trainer = TorchTrainer(tiny_policy(), TorchTrainerConfig(learning_rate=1e-4, **recipe), 1.0)
    for batch in batches:
        figures = trainer.update(batch)
        assert_finite(figures)
        assert figures["updated"] in (0.0, 1.0)
        assert known(batch) or not figures["updated"]
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_without_a_finite_loss_leaves_out_what_is_no_figure(value: float) -> None:
    """A 0 would tell of an entropy that has collapsed, and of a policy that is the engine's."""
    trainer = TorchTrainer(tiny_policy(), TorchTrainerConfig(learning_rate=1e-4, kl_coef=0.1), 1.0, tiny_policy().model)
    group = answered(Request("r", Prompt("p", "", ""), 2, 0), [C, W])
    whole = trainer.update([group])
    with torch.no_grad():
        next(iter(trainer.model.parameters())).fill_(value)
    broken = trainer.update([group])
    assert_finite(broken)
    assert (whole["non_finite"], broken["non_finite"]) == (0.0, 1.0)
    assert set(whole) - set(broken) == {"loss", "grad_norm", "entropy", "logprob_gap_mean", "logprob_gap_max", "kl"}
    told = StepDone(epoch=1, seconds=1.0, last_step=1, metrics={"step": 1, **broken})
    assert "entropy" not in step_line(told, 1.0, 0.05)


@pytest.mark.parametrize("outcomes", [[U, U], [C, W, U]])
def test_a_rank_without_a_sample_takes_part(outcomes: list[Outcome]) -> None:
    """Three ranks, at most two samples."""
    group = answered(Request("r", Prompt("p", "", ""), len(outcomes), 0), outcomes)
    policies, cfg = [tiny_policy() for _ in range(3)], TorchrunTrainerConfig(learning_rate=1e-3)

    def work(world: World) -> Any:
        trainer = TorchTrainer(policies[world.rank], cfg, 1.0, world=world)
        if world.rank:
            return serve(world, trainer.handlers)
        with world.leading():
            return trainer.update([group]), trainer.state_dict()

    figures, (weights, _, _) = in_ranks(3, work)[0]
    assert_finite(figures)
    assert figures["updated"] == float(group.informative)
    assert all(torch.isfinite(v).all() for v in weights.values())


SIZE: dict[str, Any] = {"prompts_per_step": 4, "rollouts_per_step": 16}
STRATEGIES = [
    UniformConfig(**SIZE),
    CuresConfig(**SIZE),
    CuresConfig(**SIZE, allocation=ScreenAllocation()),
    CuresConfig(**SIZE, allocation=NeymanAllocation(max_rollouts=8)),
    DapoConfig(**SIZE, group_size=2),
    PaperConfig(**SIZE, subsets=3, steps_per_subset=1, probe=2),
]


def fresh(cfg: Any) -> Strategy:
    prompts = prompt_set(12)
    return make_curriculum(cfg, prompts, Posterior.fresh(prompts, cfg.posterior), 0)


def bears_every_outcome(cfg: Any, data: st.DataObject) -> None:
    """Steps of groups without a verdict, all right, all wrong and mixed."""
    curriculum = fresh(cfg)
    kinds = st.lists(st.sampled_from([(U,), (C,), (W,), (C, W), (C, W, U)]), min_size=1, max_size=4)
    for _ in range(3):
        told: list[Group] = []
        budget, pattern = curriculum.rollouts_per_step, data.draw(kinds)
        while (batch := curriculum.ready()) is None:
            requests = curriculum.ask(budget)
            asked = [(q, pattern[i % len(pattern)]) for i, q in enumerate(requests)]
            groups = [answered(q, [kind[j % len(kind)] for j in range(q.n)]) for q, kind in asked]
            curriculum.tell(groups)
            told += groups
            budget -= sum(q.n for q in requests)
        assert_finite(batch.figures)
        assert ("calibration_mae" in batch.figures) <= (known(told) > 0)
        assert_finite([(s.advantage, s.weight) for s in batch_samples(batch.groups, "grpo", "prompt", 1.0)])
    assert_finite([curriculum.calibration.figures(), curriculum.calibration.reliability()])
    assert_finite([curriculum.posterior.mean().tolist(), curriculum.posterior.summary()])


@settings(max_examples=60)
@given(st.sampled_from(STRATEGIES), st.data())
def test_every_strategy_bears_every_outcome(cfg: Any, data: st.DataObject) -> None:
    bears_every_outcome(cfg, data)


@pytest.mark.parametrize("cfg", STRATEGIES, ids=lambda cfg: cfg.type)
def test_a_budget_that_feeds_no_group_asks_for_nothing_or_fits(cfg: Any) -> None:
    for budget in range(1, cfg.rollouts_per_step + 1):
        assert sum(q.n for q in fresh(cfg).ask(budget)) <= budget


def test_prompts_without_a_verdict_can_be_explained() -> None:
    cfg = CuresConfig(**SIZE, allocation=ScreenAllocation())
    curriculum = fresh(cfg)
    while curriculum.ready() is None:
        curriculum.tell([answered(q, [U] * q.n) for q in curriculum.ask(16)])
    for name in curriculum.prompts.ids:
        assert_finite(explain_prompt(cfg, curriculum.prompts, curriculum.posterior, name))
    assert hopeless(curriculum.prompts, curriculum.posterior, 0.5) == []


CFG = EvaluationConfig(resamples=100)


def evaluated(counts: Sequence[tuple[int, int]], k: int) -> Evaluated:
    """A suite of items with (correct, unknown) of k completions."""
    items = [
        ItemResult(f"{i:03d}", "", "ab"[i % 2], correct, unknown, k, 0, 0, int(correct > 0), float(correct == k))
        for i, (correct, unknown) in enumerate(counts)
    ]
    return Evaluated(score(items, EvaluatedSuite(name="exam", path="unused", samples=k, greedy=True), CFG, {}), items)


@st.composite
def two_evaluations(draw: st.DrawFn) -> tuple[Evaluated, Evaluated]:
    k, n = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    kinds = st.sampled_from([(0, k), (k, 0), (0, 0), (k // 2, k - k // 2)])
    rows = st.one_of(kinds.map(lambda one: [one] * n), st.lists(kinds, min_size=n, max_size=n))
    return evaluated(draw(rows), k), evaluated(draw(rows), k)


@settings(max_examples=40)
@given(two_evaluations())
def test_suites_without_verdicts_are_scored_and_promote_nothing(pair: tuple[Evaluated, Evaluated]) -> None:
    candidate, incumbent = pair
    for one in pair:
        assert_finite(one.score.model_dump())
        for estimate in (one.score.avg, *one.score.pass_at.values()):
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert_finite(lm_eval_results({"exam": candidate}, "m", 0.0, 0.0, {}))
    compared = {"exam": compare(candidate, incumbent, CFG)}
    assert_finite(compared["exam"].model_dump())
    blind = 1.0 in (candidate.score.unknown_share, incumbent.score.unknown_share)
    gains = PromotionConfig(model="m", suites=("exam",))
    for gate in (gains, gains.model_copy(update={"suites": (), "margins": {"exam": 0.99}})):
        assert not (decide(gate, compared).promoted and blind)


@settings(max_examples=25)
@given(st.lists(groups(), max_size=3), st.lists(two_evaluations(), max_size=1))
def test_a_report_of_any_steps_can_be_rendered(
    steps: list[list[Group]], pairs: list[tuple[Evaluated, Evaluated]]
) -> None:
    rows, progress = [], Progress()
    for told in steps:
        progress = advance(progress, told)
        rows.append(step_metrics(progress, Batch(told, "complete", {}), told, {}))
    scores = [{"label": str(i), "suites": [one.score]} for pair in pairs for i, one in enumerate(pair)]
    gains = {}
    for old, new in pairs:
        gains["exam"] = {"value": 0.0, **compare(new, old, CFG).model_dump(include={"low", "high", "p_value"})}
    nothing = {"label": "prior", "histogram": [0, 0], "prompts": 0, "evidence": 0, "dead_share": 0, "frontier_share": 0}
    data = {"run": "r", "steps": rows, "scores": scores, "gains": gains, "posteriors": [nothing]}
    named: dict[str, Any] = {"allocation": {"prompts": [], "rollouts": []}}
    silent = {"predicted": 0.5, "observed": 0.5, "rollouts": 0.0}
    html = render(ReportData.model_validate({**data, "named": named, "reliability": [silent]}))
    assert not {"nan", "inf"} & set(html.lower().replace("<", " ").replace(">", " ").replace('"', " ").split())


def test_a_mean_over_nothing_is_no_point_of_a_curve() -> None:
    """Not a zero: the curve of rewards would dip where only the verifier failed."""
    blind = [answered(Request("a", Prompt("p", "", ""), 2, 0), [U, U])]
    seen = [answered(Request("b", Prompt("p", "", ""), 2, 0), [C, C])]
    told = [seen, blind, seen]
    rows = [step_metrics(Progress(i, 2 * i, 0), Batch(groups, ""), groups, {}) for i, groups in enumerate(told)]
    html = render(ReportData.model_validate({"run": "r", "steps": rows}))
    (chart,) = (figure for figure in html.split("<figure>") if "Reward during training" in figure)
    assert chart.count('class="dot s0"') == 2
    assert len({dot.split("cy=")[1].split()[0] for dot in chart.split('class="dot s0"')[1:]}) == 1
