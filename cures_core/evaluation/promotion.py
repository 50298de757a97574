"""Knows when a candidate takes the incumbent's place: on a gain in every suite that chance does not explain."""

from __future__ import annotations

from collections.abc import Mapping

from cures_core.config.base import Strict
from cures_core.config.evaluation import PromotionConfig
from cures_core.errors import ConfigError
from cures_core.evaluation.paired import Paired


class Decision(Strict):
    """The gate's answer."""

    promoted: bool
    """Does the candidate become the current policy?"""
    reasons: tuple[str, ...]
    """One sentence a suite, in the order of the configuration."""


def decide(cfg: PromotionConfig, pairs: Mapping[str, Paired]) -> Decision:
    """Promote if in every suite of `cfg` the lower end of the paired gain's interval is above `min_effect`.

    With an interval of 95 % and no true gain, one suite alone is passed by chance in 2.5 % of all comparisons.
    `pairs` is by suite name. Raises `ConfigError` where one of the suites was not compared.
    """
    if missing := [name for name in cfg.suites if name not in pairs]:
        raise ConfigError(
            f"promotion.suites names {missing[0]}, but only {sorted(pairs)} were compared; evaluate it too"
        )
    gained = {name: pairs[name].low > cfg.min_effect for name in cfg.suites}
    reasons = tuple(_reason(pairs[name], gained[name], cfg.min_effect) for name in cfg.suites)
    return Decision(promoted=all(gained.values()), reasons=reasons)


def _reason(pair: Paired, gained: bool, min_effect: float) -> str:
    relation = "is above" if gained else "is not above"
    return (
        f"{pair.suite}: gain {pair.gain:+.4f}, {100 * pair.confidence:g} % interval {pair.low:+.4f} to "
        f"{pair.high:+.4f}; its lower end {relation} the smallest effect that counts, {min_effect:g} ({pair.n} items x "
        f"{pair.k} samples, {pair.better} better, {pair.worse} worse, sign test p = {pair.p_value:.2g})."
    )
