"""Bytes of disk that a run fills: its checkpoints. Prompts, completions and reports are small beside them."""

from __future__ import annotations

from cures_core.config.policy import PretrainedPolicy, WarmStartPolicy, dtype_of
from cures_core.config.run import RunConfig
from cures_core.config.training import DeepSpeedTrainerConfig
from cures_core.policy.adapters import holds_adapters

_FLOAT32 = 4


def _is_made(policy: WarmStartPolicy | PretrainedPolicy) -> bool:
    """Does a stage make the base policy?"""
    if isinstance(policy, WarmStartPolicy) or policy.warm_start is not None:
        return True
    return policy.adapters == "merge" and holds_adapters(policy.path)


def disk_bytes(cfg: RunConfig, parameters: int, trained: int, done: int = 0) -> int:
    """At most, for a policy of so many parameters, `trained` of which the optimizer changes.

    Each epoch leaves its weights in the store, the last one the optimizer's state too; in an epoch lie `keep_last`
    checkpoints and the one that is being written. A warm start, and merging, leave the base policy. `done`: epochs that
    lie there.
    """
    training = cfg.training
    size = 2 if dtype_of(cfg.policy) == "bfloat16" else _FLOAT32
    masters = size < _FLOAT32 and (isinstance(training, DeepSpeedTrainerConfig) or training.master_weights)
    weights = trained * size
    state = weights + 2 * trained * (_FLOAT32 if masters else size) + trained * _FLOAT32 * masters
    base = parameters * size if _is_made(cfg.policy) and not done else 0
    published = 0 if "://" in cfg.store.url else base + max(0, cfg.epochs - done) * weights + state
    return published + (cfg.checkpoint.keep_last + 1) * state
