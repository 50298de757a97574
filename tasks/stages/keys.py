"""What of the configuration a stage reads, as sections.

Within its sections a stage's key holds every setting that is marked as a result (`cures_core.config.marks`) and no
other. What a stage reads beside the configuration (digests of records and files) it adds itself. So it does what is no
section, from the same marks: how a suite is answered and judged (`cures_core.jobs.evaluate.answering`), how its file is
read (`validate_dataset`), what its prompts have room in (`tasks.validation.tokens.Room`), adapters that are merged
(`prepare_policy`). Two stages are about a place, which their keys hold too: the gate's pointer (`promote.gate_key`) and
where snapshots go (`snapshot_posterior`). `tests/tasks/stages/test_keys.py` says of every setting which stages it
redoes.
"""

from __future__ import annotations

from pydantic import JsonValue

from cures_core.config.run import RunConfig
from cures_core.own_code import keyed

OUTCOMES = ("training.truncated",)
"""What of training decides which rollouts are right, beside the verifier."""

READS: dict[str, tuple[str, ...]] = {
    # Of the suites, how their files are read and which golds are checked: `tasks.stages.validate_dataset`.
    "validate_dataset": ("data", "reward"),
    # A pretrained policy is its files alone, unless it has something to learn first (`WARM_START`).
    "prepare_policy": ("policy", "device"),
    "estimate_prior": ("seed", "prior", "curriculum.posterior", "rollout", "reward", *OUTCOMES, "policy", "device"),
    "train_epoch": (
        *("seed", "steps_per_epoch", "curriculum", "rollout", "reward", "training", "policy", "device"),
        "redact",  # what is kept of rollouts and wrong answers
    ),
    # The suites with what they take over from `rollout` and `reward`: `cures_core.jobs.evaluate.answering`.
    "evaluate_checkpoint": ("evaluation", "policy", "device", "redact"),
}
"""Sections by stage. Snapshot, promotion and report follow from the records that they are made of."""

WARM_START = ("policy", "device", "rollout.prompt_format")
"""What a supervised warm start reads: solutions are taught as rollouts are asked for."""
POLICY = ("policy", "device")
"""What decides a policy's completions beside its weights and what it is asked."""
ADAPTERS = ("training.lora",)
"""The same for trained weights: how adapters are laid over the base policy."""
REDACTION = ("redact",)
"""What of completions may be written down."""
SUITES = ("evaluation.suites",)


def settings(cfg: RunConfig, stage: str) -> dict[str, JsonValue]:
    """What the key of a stage holds of the configuration, by dotted key."""
    return keyed(cfg, READS[stage])
