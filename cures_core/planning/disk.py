"""Bytes of disk that a run fills: its checkpoints. Prompts, completions and reports are small beside them."""

from __future__ import annotations

from cures_core.config.policy import WarmStartPolicy, dtype_of
from cures_core.config.run import RunConfig
from cures_core.config.training import DeepSpeedTrainerConfig

_FLOAT32 = 4


def disk_bytes(cfg: RunConfig, parameters: int, trained: int, done: int = 0) -> int:
    """At most, for a policy of so many parameters, `trained` of which the optimizer changes.

    Each epoch leaves its weights in the store, the last one the optimizer's state too; in an epoch lie `keep_last`
    checkpoints and the one that is being written. A warm start leaves the base policy. `done`: epochs that lie there.
    """
    training = cfg.training
    size = 2 if dtype_of(cfg.policy) == "bfloat16" else _FLOAT32
    masters = size < _FLOAT32 and (isinstance(training, DeepSpeedTrainerConfig) or training.master_weights)
    weights = trained * size
    state = weights + 2 * trained * (_FLOAT32 if masters else size) + trained * _FLOAT32 * masters
    base = parameters * _FLOAT32 if isinstance(cfg.policy, WarmStartPolicy) and not done else 0
    published = 0 if "://" in cfg.store.url else base + max(0, cfg.epochs - done) * weights + state
    return published + (cfg.checkpoint.keep_last + 1) * state
