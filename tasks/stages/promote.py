"""Stage: the gate. Pointer `models/<name>` moves to a better checkpoint by compare-and-swap, or a reason is given."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from cures_core.config.evaluation import EvaluationConfig, PromotionConfig
from cures_core.errors import ConfigError, CorruptArtifact, StoreUnavailable
from cures_core.evaluation.paired import Evaluated
from cures_core.evaluation.promotion import Decision, decide
from cures_core.faults import fault_point
from tasks.registry.history import Entry, Swap, move, pointer_key, read_pointer, this_user
from tasks.runs.records import Record, RunRef, committed, read_record
from tasks.runs.scores import paired, read_evaluation
from tasks.stages.stage import as_stage, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import Store
from tasks.storage.fencing import commit


@as_stage()
def promote(run: RunRef, policy: Record, state: Record, before: Record, after: Record) -> Record | None:
    """Compare the run's last checkpoint with the incumbent, or with the base policy where there is none.

    Figures: promoted, reasons, model, incumbent. None where the configuration asks for no promotion.
    """
    gate = run.config.promotion
    if gate is None:
        return None
    inputs = {"gate": gate.model_dump(mode="json"), "before": before.id, "after": after.id, "state": state.id}

    def work(space: Workspace) -> Mapping[str, Any]:
        note = {"who": this_user(), "why": "the run's gate"}
        swap = functools.partial(commit, space.store, run.name, run.token)
        candidate = {**candidate_of(run.name, state, policy, after), **note}
        return decide_and_move(space.store, swap, gate, run.config.evaluation, candidate, before, after)

    return run_stage(run, "promote", 1, inputs, [policy, state, before, after], work)


def candidate_of(run: str, state: Record, policy: Record, evaluation: Record) -> dict[str, str]:
    """What the registry says of a run's checkpoint: fields of an `Entry`."""
    weights = str(state.figures.get("weights_digest", ""))
    return {"run": run, "state": state.id, "weights": weights, "policy": policy.id, "evaluation": evaluation.id}


def decide_and_move(
    store: Store,
    swap: Swap,
    gate: PromotionConfig,
    cfg: EvaluationConfig,
    candidate: dict[str, str],
    before: Record,
    after: Record,
    *,
    override: bool = False,
) -> Mapping[str, Any]:
    """Ask the gate about `candidate` (fields of an `Entry`) and move the pointer; `override` moves it in any case.

    Moves by `swap`, so that who has lost the right to moves nothing. The decision is made again whenever someone else
    moved the pointer first. Raises `StoreUnavailable` if that goes on.
    """
    for _ in range(20):
        raw, pointer = read_pointer(store, gate.model)
        incumbent = None if pointer is None else pointer.current
        if incumbent is not None and incumbent.evaluation == candidate["evaluation"]:  # an earlier try got this far
            reasons = list(incumbent.reasons)
            return {"promoted": True, "reasons": reasons, "model": gate.model, "incumbent": "itself"}
        decision = _compare(store, cfg, gate, before, after, incumbent)
        figures = {
            "promoted": decision.promoted or override,
            "reasons": list(decision.reasons),
            "model": gate.model,
            "incumbent": "the base policy" if incumbent is None else incumbent.run,
        }
        if not figures["promoted"]:
            return figures
        fault_point("promote.before_pointer")
        action = "promoted" if decision.promoted else "override"
        if move(swap, gate.model, raw, {**candidate, "action": action, "reasons": decision.reasons}) is not None:
            fault_point("promote.after_pointer")
            return figures
    raise StoreUnavailable(f"{pointer_key(gate.model)}: moved by others again and again; resume to try once more")


def _compare(
    store: Store,
    cfg: EvaluationConfig,
    gate: PromotionConfig,
    before: Record,
    after: Record,
    incumbent: Entry | None,
) -> Decision:
    candidate = read_evaluation(store, after)
    try:
        rival = read_evaluation(store, before) if incumbent is None else _scored(store, gate.model, incumbent)
        return decide(gate, paired(candidate, rival, cfg), _trained_on(store, after))
    except ConfigError as error:
        return Decision(promoted=False, reasons=(str(error),))


def _scored(store: Store, model: str, incumbent: Entry) -> dict[str, Evaluated]:
    """What the incumbent was scored. Raises `ConfigError` where that cannot be told any more: a reason, no failure."""
    stage, _, key = incumbent.evaluation.partition("/")
    try:
        if (found := committed(store, stage, key)) is not None:
            return read_evaluation(store, found)
        fault = "are not in this store"
    except CorruptArtifact as error:
        fault = f"cannot be read: {error}"
    raise ConfigError(f"the scores of the incumbent of {model} ({incumbent.run}), to compare with, {fault}")


def _trained_on(store: Store, evaluation: Record) -> Mapping[str, float]:
    """Of each suite the share of items that the training set of this evaluation's run holds too."""
    data = [parent for parent in evaluation.parents if parent.startswith("validate_dataset/")]
    found = read_record(store, *data[0].split("/")) if data else None
    if found is None:
        raise CorruptArtifact(f"{evaluation.id}: the record of its suites is gone; resume the run to make it again")
    shares: Mapping[str, float] = found.figures["trained_on"]
    return shares
