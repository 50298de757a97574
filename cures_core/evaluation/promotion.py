"""Knows when a candidate takes the incumbent's place: on gains beyond chance, and no loss that counts."""

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
    """One sentence a condition, in the order of the configuration."""


def decide(
    cfg: PromotionConfig,
    pairs: Mapping[str, Paired],
    trained_on: Mapping[str, float] | None = None,
    rival: str = "the incumbent",
) -> Decision:
    """Promote if all conditions of `cfg` hold. By suite name: `pairs`, and `trained_on`, the share of the items that
    the candidate was trained on. `rival` is what the reasons call the policy that it was compared with.

    In each of `cfg.suites` the lower end of the paired gain's interval must be above `min_effect`: with an interval of
    95 % and no true gain, one suite alone is passed by chance in 2.5 % of all comparisons. In each of `cfg.margins` it
    must be above minus the margin. A suite fails where the share of unknown verdicts of either policy exceeds
    `max_unknown_share` or is all there is, or where the share of items that were trained on exceeds
    `max_contaminated_share`. Raises `ConfigError` where one of the suites was not compared.
    """
    for name in cfg.compared:
        if name not in pairs:
            key = "suites" if name in cfg.suites else "margins"
            raise ConfigError(f"promotion.{key} names {name}, but only {sorted(pairs)} were compared; evaluate it too")
    answers = [_gained(pairs[name], rival, cfg.min_effect) for name in cfg.suites]
    answers += [_not_worse(pairs[name], rival, margin) for name, margin in cfg.margins.items()]
    for name in cfg.compared:
        unknown = pairs[name].unknown_share
        if unknown == 1:  # whatever the limit: neither a gain nor the absence of a loss can be read off nothing
            answers.append((False, f"{name}: no completion of one of the policies got a verdict."))
        elif unknown > cfg.max_unknown_share:
            limit = f"the limit is {100 * cfg.max_unknown_share:g} %"
            answers.append(
                (False, f"{name}: {100 * unknown:.2g} % of one policy's completions got no verdict, {limit}.")
            )
        seen = 0.0 if trained_on is None else trained_on.get(name, 0.0)
        if seen > cfg.max_contaminated_share:
            limit = f"the limit is {100 * cfg.max_contaminated_share:g} %"
            answers.append((False, f"{name}: {100 * seen:.2g} % of its items are in the training set, {limit}."))
        if pairs[name].unlike:  # no reason to refuse: the difference is in the last digits
            answers.append((True, f"{name}: the two were scored unlike ({'; '.join(pairs[name].unlike)})."))
    return Decision(promoted=all(held for held, _ in answers), reasons=tuple(reason for _, reason in answers))


def _gained(pair: Paired, rival: str, min_effect: float) -> tuple[bool, str]:
    held = pair.low > min_effect
    return held, _reason(pair, rival, held, f"the smallest effect that counts, {min_effect:g}")


def _not_worse(pair: Paired, rival: str, margin: float) -> tuple[bool, str]:
    held = pair.low > -margin
    return held, _reason(pair, rival, held, f"the largest loss that is tolerated, {-margin:g}")


def _reason(pair: Paired, rival: str, held: bool, bound: str) -> str:
    return (
        f"{pair.suite}: gain {pair.gain:+.4f} over {rival}, {100 * pair.confidence:g} % interval {pair.low:+.4f} "
        f"to {pair.high:+.4f}; its lower end {'is above' if held else 'is not above'} {bound} ({pair.n} items x "
        f"{pair.k} samples, {pair.better} better, {pair.worse} worse, sign test p = {pair.p_value:.2g})."
    )
