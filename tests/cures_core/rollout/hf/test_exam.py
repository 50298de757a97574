"""The embedded engine sits the exam, with few and with many rows at once."""

from __future__ import annotations

from functools import cache
from typing import Any

from cures_core.config.rollout import HfRolloutConfig
from cures_core.rollout import RolloutEngine, build_engine
from cures_core.testing.rollout_engine import RolloutEngineExam
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama


@cache
def _policy() -> tuple[Any, Any]:
    return tiny_llama(), character_tokenizer()


class TestHfEngine(RolloutEngineExam):
    batch_rows = 256

    def policy(self) -> tuple[Any, Any]:
        return _policy()

    def make(self, model: Any, tokenizer: Any, **options: Any) -> RolloutEngine:
        return build_engine(HfRolloutConfig(batch_rows=self.batch_rows, **options), model, tokenizer)


class TestHfEngineWithFewRows(TestHfEngine):
    """Groups are split over admissions, slots are reused, the cache is rebuilt."""

    batch_rows = 7


class TestHfEngineInFixedShapes(TestHfEngine):
    """What CUDA captures, run as it is."""

    def make(self, model: Any, tokenizer: Any, **options: Any) -> RolloutEngine:
        cfg = HfRolloutConfig(batch_rows=self.batch_rows, decoding="static", **options)
        return build_engine(cfg, model, tokenizer)


class TestHfEngineInFixedShapesWithFewRows(TestHfEngineInFixedShapes):
    batch_rows = 7
