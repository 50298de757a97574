"""Stage: the gate. Pointer `models/<name>` moves to a better checkpoint by compare-and-swap, or a reason is given."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from pydantic import JsonValue

from cures_core.config.evaluation import EvaluationConfig, PromotionConfig
from cures_core.errors import ConfigError, CorruptArtifact, StoreUnavailable
from cures_core.evaluation.paired import Evaluated
from cures_core.evaluation.promotion import Decision, decide
from cures_core.faults import fault_point
from cures_core.own_code import keyed
from tasks.registry.history import Entry, Swap, move, pointer_key, read_pointer, this_user
from tasks.runs.figures import (
    EvaluateFigures,
    PolicyFigures,
    PromoteFigures,
    StateFigures,
    ValidateFigures,
)
from tasks.runs.records import Record, RunRef, committed, read_record
from tasks.runs.scores import paired, read_evaluation
from tasks.stages.stage import Made, as_stage, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import Store
from tasks.storage.fencing import commit

BASE = "the base policy"
"""What is compared with where a model has no version yet."""


@as_stage()
def promote(
    run: RunRef,
    policy: Record[PolicyFigures],
    state: Record[StateFigures],
    before: Record[EvaluateFigures],
    after: Record[EvaluateFigures],
) -> Record[PromoteFigures] | None:
    """Compare the run's last checkpoint with the incumbent, or with the base policy where there is none.

    None where the configuration asks for no promotion.
    """
    gate = run.config.promotion
    if gate is None:
        return None
    inputs = {"gate": gate_key(gate), "before": before.id, "after": after.id, "state": state.id}

    def work(space: Workspace) -> Made[PromoteFigures]:
        note = {"who": this_user(), "why": "the run's gate"}
        swap = functools.partial(commit, space.store, run.name, run.token)
        candidate = {**candidate_of(run.name, state, policy, after), **note}
        return Made(decide_and_move(space.store, swap, gate, run.config.evaluation, candidate, before, after))

    return run_stage(run, PromoteFigures, 1, inputs, [policy, state, before, after], work)


def gate_key(gate: PromotionConfig) -> dict[str, JsonValue]:
    """What the key of a promotion holds of its gate: what decides, and the pointer's name, which is where it goes."""
    return {"model": gate.model, **keyed(gate)}


def candidate_of(
    run: str, state: Record[StateFigures], policy: Record[PolicyFigures], evaluation: Record[EvaluateFigures]
) -> dict[str, str]:
    """What the registry says of a run's checkpoint: fields of an `Entry`."""
    return {
        "run": run,
        "state": state.id,
        "weights": state.figures.weights_digest,
        "policy": policy.id,
        "evaluation": evaluation.id,
    }


def decide_and_move(
    store: Store,
    swap: Swap,
    gate: PromotionConfig,
    cfg: EvaluationConfig,
    candidate: dict[str, str],
    before: Record[EvaluateFigures],
    after: Record[EvaluateFigures],
    *,
    override: bool = False,
) -> PromoteFigures:
    """Ask the gate about `candidate` (fields of an `Entry`) and move the pointer; `override` moves it in any case.

    Moves by `swap`, so that who has lost the right to moves nothing. The decision is made again whenever someone else
    moved the pointer first. Raises `StoreUnavailable` if that goes on.
    """
    for _ in range(20):
        raw, pointer = read_pointer(store, gate.model)
        incumbent = None if pointer is None else pointer.current
        if incumbent is not None and incumbent.evaluation == candidate["evaluation"]:  # an earlier try got this far
            assert pointer is not None
            rival = _name(pointer.history[-2] if len(pointer.history) > 1 else None)
            return PromoteFigures(promoted=True, reasons=incumbent.reasons, model=gate.model, incumbent=rival)
        decision = _compare(store, cfg, gate, before, after, incumbent)
        figures = PromoteFigures(
            promoted=decision.promoted or override,
            reasons=decision.reasons,
            model=gate.model,
            incumbent=_name(incumbent),
        )
        if not figures.promoted:
            return figures
        fault_point("promote.before_pointer")
        action = "promoted" if decision.promoted else "override"
        if move(swap, gate.model, raw, {**candidate, "action": action, "reasons": decision.reasons}) is not None:
            fault_point("promote.after_pointer")
            return figures
    raise StoreUnavailable(f"{pointer_key(gate.model)}: moved by others again and again; resume to try once more")


def _name(incumbent: Entry | None) -> str:
    """What a candidate was compared with."""
    return BASE if incumbent is None else incumbent.run


def _in_words(model: str, incumbent: Entry | None) -> str:
    """The same for a sentence: a run alone does not say which of the model's versions it made."""
    return BASE if incumbent is None else f"version {incumbent.version} of {model} (run {incumbent.run})"


def _compare(
    store: Store,
    cfg: EvaluationConfig,
    gate: PromotionConfig,
    before: Record[EvaluateFigures],
    after: Record[EvaluateFigures],
    incumbent: Entry | None,
) -> Decision:
    candidate, rival = read_evaluation(store, after), _in_words(gate.model, incumbent)
    try:
        theirs = read_evaluation(store, before) if incumbent is None else _scored(store, incumbent)
        return decide(gate, paired(candidate, theirs, cfg), _trained_on(store, after), rival)
    except ConfigError as error:
        return Decision(promoted=False, reasons=(f"against {rival}: {error}",))


def _scored(store: Store, incumbent: Entry) -> dict[str, Evaluated]:
    """What the incumbent was scored. Raises `ConfigError` where that cannot be told any more: a reason, no failure."""
    key = incumbent.evaluation.partition("/")[2]
    try:
        if (found := committed(store, EvaluateFigures, key)) is not None:
            return read_evaluation(store, found)
        fault = "are not in this store"
    except CorruptArtifact as error:
        fault = f"cannot be read: {error}"
    raise ConfigError(f"its scores {fault}")


def _trained_on(store: Store, evaluation: Record[EvaluateFigures]) -> Mapping[str, float]:
    """Of each suite the share of items that the training set of this evaluation's run holds too."""
    stages = dict(parent.split("/") for parent in evaluation.parents)
    key = stages.get(ValidateFigures.stage)
    found = None if key is None else read_record(store, ValidateFigures, key)
    if found is None:
        raise CorruptArtifact(f"{evaluation.id}: the record of its suites is gone; resume the run to make it again")
    return found.figures.trained_on
