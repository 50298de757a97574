"""Stage: the gate. Pointer `models/<name>` moves to a better checkpoint by compare-and-swap, or a reason is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cures_core.config.evaluation import EvaluationConfig, PromotionConfig
from cures_core.errors import ConfigError, CorruptArtifact, StoreUnavailable
from cures_core.evaluation.promotion import Decision, decide
from cures_core.faults import fault_point
from tasks.registry.history import Entry, move, pointer_key, read_pointer, this_user
from tasks.runs.records import Record, RunRef
from tasks.runs.scores import paired, read_evaluation
from tasks.stages.stage import Workspace, as_stage, committed, run_stage
from tasks.storage import Store


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
        candidate = {"run": run.name, "state": state.id, "policy": policy.id, "evaluation": after.id}
        note = {"who": this_user(), "why": "the run's gate"}
        return decide_and_move(space.store, gate, run.config.evaluation, {**candidate, **note}, before, after)

    return run_stage(run, "promote", 1, inputs, [policy, state, before, after], work)


def decide_and_move(
    store: Store,
    gate: PromotionConfig,
    cfg: EvaluationConfig,
    candidate: dict[str, str],
    before: Record,
    after: Record,
    *,
    override: bool = False,
) -> Mapping[str, Any]:
    """Ask the gate about `candidate` (fields of an `Entry`) and move the pointer; `override` moves it in any case.

    The decision is made again whenever someone else moved the pointer first. Raises `StoreUnavailable` if that goes on.
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
        if move(store, gate.model, raw, {**candidate, "action": action, "reasons": decision.reasons}) is not None:
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
    rival = before
    if incumbent is not None:
        stage, _, key = incumbent.evaluation.partition("/")
        found = committed(store, stage, key)
        if found is None:
            reason = f"the incumbent of {gate.model} ({incumbent.run}) has no scores in this store to compare with"
            return Decision(promoted=False, reasons=(reason,))
        rival = found
    try:
        candidate = read_evaluation(store, after)
        pairs = paired(candidate, read_evaluation(store, rival), cfg)
        return decide(gate, pairs, _trained_on(store, after))
    except ConfigError as error:
        return Decision(promoted=False, reasons=(str(error),))


def _trained_on(store: Store, evaluation: Record) -> Mapping[str, float]:
    """Of each suite the share of items that the training set of this evaluation's run holds too."""
    data = [parent for parent in evaluation.parents if parent.startswith("validate_dataset/")]
    found = committed(store, *data[0].split("/")) if data else None
    if found is None:
        raise CorruptArtifact(f"{evaluation.id}: the record of its suites is gone; resume the run to make it again")
    shares: Mapping[str, float] = found.figures["trained_on"]
    return shares
