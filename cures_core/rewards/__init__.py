"""Verifiers: from a completion and a gold answer to correct, wrong or unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cures_core.config.rewards import RewardConfig
    from cures_core.rewards.verifier import Verifier
    from cures_core.thinking import Tags

__all__ = ["make_verifier"]


def make_verifier(cfg: RewardConfig, thinking: Tags = ()) -> Verifier:
    """The configured verifier; use it as `with make_verifier(cfg) as verifier`, which ends its processes.

    `thinking`: tags of what is no part of the answer (`PromptFormat.thinking`); rules of format see it. Raises
    `ConfigError` where a custom function cannot be imported.
    """
    from cures_core.config import rewards as config  # not at the top: child processes start faster without pydantic

    if isinstance(cfg, config.WeightedConfig):
        from cures_core.rewards.weighted import WeightedVerifier

        return WeightedVerifier(cfg, make_verifier(cfg.answer, thinking))
    if isinstance(cfg, config.BySourceConfig):
        from cures_core.rewards.by_source import BySourceVerifier

        return BySourceVerifier(cfg, lambda one: make_verifier(one, thinking))
    if thinking:
        from cures_core.rewards.thinking import AfterThinking

        return AfterThinking(make_verifier(cfg), thinking)
    match cfg:
        case config.ExactConfig():
            from cures_core.rewards.exact import ExactVerifier

            return ExactVerifier()
        case config.NumericConfig():
            from cures_core.rewards.numeric import NumericVerifier

            return NumericVerifier(cfg)
        case config.MathConfig():
            from cures_core.rewards.math import MathVerifier

            return MathVerifier(cfg)
        case config.ChoiceConfig():
            from cures_core.rewards.choice import ChoiceVerifier

            return ChoiceVerifier(cfg)
        case config.RegexConfig():
            from cures_core.rewards.regex import RegexVerifier

            return RegexVerifier(cfg)
        case config.CodeConfig():
            from cures_core.rewards.code import CodeVerifier

            return CodeVerifier(cfg)
        case config.JudgeConfig():
            from cures_core.rewards.judge import JudgeVerifier

            return JudgeVerifier(cfg)
        case config.ReasoningGymConfig():
            from cures_core.rewards.gym import ReasoningGymVerifier

            return ReasoningGymVerifier(cfg)
        case config.EnvironmentConfig():
            from cures_core.rewards.environment import EnvironmentVerifier

            return EnvironmentVerifier(cfg)
        case config.CustomConfig():
            from cures_core.rewards.custom import CustomVerifier

            return CustomVerifier(cfg)
