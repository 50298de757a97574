"""Stage: the gate. Pointer `models/<name>` moves to a better checkpoint by compare-and-swap, or a reason is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cures_core.config.evaluation import PromotionConfig
from cures_core.errors import ConfigError, StoreUnavailable
from cures_core.evaluation.promotion import Decision, decide
from cures_core.faults import fault_point
from cures_core.files import canonical_json
from tasks.comparison import paired, read_evaluation
from tasks.records import Record, RunRef
from tasks.stage import Workspace, as_stage, committed, run_stage
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
        return _decide_and_move(space.store, run, gate, candidate, before, after)

    return run_stage(run, "promote", 1, inputs, [policy, state, before, after], work)


def pointer_key(model: str) -> str:
    """Where the store keeps what a model name points to."""
    return f"models/{model}.json"


def _decide_and_move(
    store: Store, run: RunRef, gate: PromotionConfig, candidate: dict[str, str], before: Record, after: Record
) -> Mapping[str, Any]:
    key = pointer_key(gate.model)
    for _ in range(20):
        raw = store.get(key)
        incumbent = {} if raw is None else json.loads(raw)
        if incumbent.get("evaluation") == candidate["evaluation"]:  # an earlier try of this stage got as far as this
            return {"promoted": True, "reasons": incumbent["reasons"], "model": gate.model, "incumbent": "itself"}
        decision = _compare(store, run, gate, before, after, incumbent)
        figures = {
            "promoted": decision.promoted,
            "reasons": list(decision.reasons),
            "model": gate.model,
            "incumbent": incumbent.get("run", "the base policy"),
        }
        if not decision.promoted:
            return figures
        fault_point("promote.before_pointer")
        moved = canonical_json({**candidate, "reasons": figures["reasons"], "previous": incumbent.get("state")})
        if store.compare_and_swap(key, raw, moved):
            fault_point("promote.after_pointer")
            return figures
    raise StoreUnavailable(f"{key}: moved by others again and again; resume to try once more")


def _compare(
    store: Store, run: RunRef, gate: PromotionConfig, before: Record, after: Record, incumbent: Mapping[str, Any]
) -> Decision:
    rival = before
    if incumbent:
        stage, _, key = incumbent["evaluation"].partition("/")
        found = committed(store, stage, key)
        if found is None:
            reason = f"the incumbent of {gate.model} ({incumbent['run']}) has no scores in this store to compare with"
            return Decision(promoted=False, reasons=(reason,))
        rival = found
    try:
        pairs = paired(read_evaluation(store, after), read_evaluation(store, rival), run.config.evaluation)
        return decide(gate, pairs)
    except ConfigError as error:
        return Decision(promoted=False, reasons=(str(error),))
