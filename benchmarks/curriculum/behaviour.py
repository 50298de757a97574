"""How a policy behaves in a world before any RL: what makes a small world like a pretrained model, or unlike it.

Sampled at the world's own temperature and token limit from held-out, rightly labelled problems of every kind: pass
rates, lengths, truncated completions, the entropy of a token, how many right forms there are, and m+ / m-, the mean
squared norm of the score (the gradient of a completion's log-probability) of right over that of wrong completions. The
last decides what baseline a prompt's gradient wants (docs/curriculum.md, "In the loss").
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.curriculum import rivals
from benchmarks.curriculum.exams import PASS_AT
from benchmarks.curriculum.kept import ROOT
from benchmarks.curriculum.worlds import world_of
from benchmarks.curriculum.worlds.world import World
from cures_core.config.device import DeviceConfig
from cures_core.epoch import roll_out
from cures_core.files import write_atomic
from cures_core.policy.loading import Policy, load_policy, setup_torch
from cures_core.rewards import make_verifier
from cures_core.rollout import build_engine
from cures_core.terms import FinishReason, Group, Outcome, Request

Floats = npt.NDArray[np.float64]
BEHAVIOUR = ROOT / "benchmarks" / "results" / "behaviour"
REFERENCE = "smollm2-worked-0"
BANDS: dict[str, tuple[float, float]] = {"low": (0.1, 0.35), "middle": (0.35, 0.65), "high": (0.65, 0.95)}
"""Pass rates, as estimated from the samples, within which norms are compared: the ratio falls with the rate."""
_FEWEST = 2  # right and wrong completions of a prompt, for a ratio of its own
RATIOS = tuple(f"ratio_{part}_{band}" for part in ("output", "whole") for band in BANDS)
FACTORS = ("pass_rate", f"pass_at_{PASS_AT}", "tokens", "entropy", "truncated_share", *RATIOS)
"""What should lie within a factor of two of the pretrained model."""


@dataclass(frozen=True)
class _Scored:
    """One completion: entropy of each token's distribution (T,) and squared norms of its score."""

    entropies: Floats
    output: float
    """Of the output layer's weights alone."""
    whole: float
    """Of all weights; NaN where it was not taken."""


def measure(world: World, policy: Policy, prompts: int, samples: int, seed: int = 5, norms: int = 12) -> dict[str, Any]:
    """`prompts` of every kind with `samples` completions each; whole-weight norms of `norms` prompts a band.

    JSON values: `kinds`, `bands`, and the figures of all completions together in `summary`.
    """
    started = time.monotonic()
    items = list(world.examples(prompts, seed))
    requests = [Request(f"look-{i}", prompt, samples, seed) for i, prompt in enumerate(items)]
    engine = build_engine(world.rollout, policy.model, policy.tokenizer, policy.device)
    with make_verifier(world.reward) as verifier:
        groups = roll_out(requests, engine, verifier)
    engine.close()
    rates = np.array([_rate(group) for group in groups])
    picked = {name: _within(rates, band)[:norms] for name, band in BANDS.items()}
    whole = {i for rows in picked.values() for i in rows}
    scored = [[_score(policy, r, whole=i in whole) for r in group.rollouts] for i, group in enumerate(groups)]
    kinds = {
        level: _figures([groups[i] for i in rows], [scored[i] for i in rows])
        for level in sorted({p.level for p in items})
        if (rows := [i for i, p in enumerate(items) if p.level == level])
    }
    bands = {
        name: _ratios([groups[i] for i in _within(rates, band)], [scored[i] for i in _within(rates, band)])
        for name, band in BANDS.items()
    }
    summary = _figures(groups, scored)
    summary |= {f"ratio_{p}_{name}": band[f"{p}_median"] for p in ("output", "whole") for name, band in bands.items()}
    return {
        "world": world.name,
        "prompts": len(items),
        "samples": samples,
        "max_new_tokens": world.rollout.max_new_tokens,
        "summary": summary,
        "kinds": kinds,
        "bands": bands,
        "seconds": round(time.monotonic() - started, 1),
    }


def look(
    name: str, base: int | None, prompts: int, samples: int, norms: int, made: Mapping[str, Any] | None
) -> dict[str, Any]:
    """`measure` of a world's base policy on CPU, with `factors` to the pretrained model's figures where they are kept.
    Kept as `NAME-BASE.json` with what it was `made` by, where that is given."""
    world = world_of(name)
    rivals.allow()
    base = world.tuning_base if base is None else base
    policy = load_policy(world.base_policy(base), setup_torch(DeviceConfig(type="cpu"), 0))
    result = {**measure(world, policy, prompts, samples, norms=norms), "base": base}
    if made is not None:
        write_atomic(
            BEHAVIOUR / f"{name}-{base}.json", (json.dumps({**result, "made": made}, indent=1) + "\n").encode()
        )
    reference = BEHAVIOUR / f"{REFERENCE}.json"
    if reference.exists():
        result["factors"] = factors(result, json.loads(reference.read_bytes()))
    return result


def lines(result: Mapping[str, Any]) -> list[str]:
    """For a terminal: a row a kind, the norms by pass rate, and the factors to the pretrained model."""
    titles = list(result["summary"])[:9]
    rows = {**result["kinds"], "all": result["summary"]}
    found = [f"{'kind':<12} " + " ".join(f"{title:>15}" for title in titles)]
    found += [f"{kind:<12} " + " ".join(f"{_shown(row[title]):>15}" for title in titles) for kind, row in rows.items()]
    found += [f"m+ / m-, {band} pass rates: {figures}" for band, figures in result["bands"].items()]
    if "factors" in result:
        found.append(f"times the pretrained model's: {result['factors']}")
    return found


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def factors(one: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float | None]:
    """How many times a world's figure is the reference's; None where either has none."""
    found: dict[str, float | None] = {}
    for name in FACTORS:
        a, b = one["summary"].get(name), reference["summary"].get(name)
        found[name] = a / b if a and b else None
    return found


def _rate(group: Group) -> float:
    return group.successes / max(1, group.successes + group.failures)


def _within(rates: Floats, band: tuple[float, float]) -> list[int]:
    return [int(i) for i in np.flatnonzero((rates >= band[0]) & (rates <= band[1]))]


def _score(policy: Policy, rollout: Any, *, whole: bool) -> _Scored:
    """The output layer's gradient is sum_t d_t h_t' (d: one-hot minus softmax, h: what the layer sees), so that its
    squared norm is the sum over pairs of tokens of (d_s . d_t)(h_s . h_t): exact, and no gradient is formed. Rows of
    the arrays are tokens of the completion."""
    import torch

    model = policy.model
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.token_ids]], device=policy.device)
    first = len(rollout.prompt_ids) - 1
    seen: list[Any] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        with torch.set_grad_enabled(whole):
            logits = model(input_ids=ids).logits[0, first:-1].float()
    finally:
        handle.remove()
    logp = torch.log_softmax(logits, dim=-1)
    targets = torch.tensor(rollout.token_ids, device=policy.device)
    norm = float("nan")
    if whole:
        model.zero_grad(set_to_none=True)
        total: Any = logp.gather(1, targets[:, None]).sum()
        total.backward()
        norm = sum(float(p.grad.float().pow(2).sum()) for p in model.parameters() if p.grad is not None)
        model.zero_grad(set_to_none=True)
    with torch.no_grad():
        chance = logp.exp()
        entropies = -(chance * logp).sum(-1)
        residual = torch.nn.functional.one_hot(targets, chance.shape[-1]) - chance
        hidden = seen[0].flatten(0, -2)[first:-1].float()
        output = float(((residual @ residual.T) * (hidden @ hidden.T)).sum())
    return _Scored(entropies.double().cpu().numpy(), output, norm)


def _figures(groups: Sequence[Group], scored: Sequence[Sequence[_Scored]]) -> dict[str, Any]:
    """Of some prompts: pass rate, shares solved (all right) and hopeless (none), completions and their tokens."""
    rates = np.array([_rate(group) for group in groups])
    rollouts = [r for group in groups for r in group.rollouts]
    return {
        "prompts": len(groups),
        "pass_rate": _rounded(rates.mean()),
        f"pass_at_{PASS_AT}": _mean(
            _pass_at(group, PASS_AT) for group in groups if group.successes + group.failures >= PASS_AT
        ),
        "solved_share": _rounded((rates == 1).mean()),
        "hopeless_share": _rounded((rates == 0).mean()),
        "tokens": _rounded(np.mean([len(r.token_ids) for r in rollouts])),
        "truncated_share": _rounded(np.mean([r.finish_reason is FinishReason.LENGTH for r in rollouts])),
        "entropy": _rounded(np.concatenate([s.entropies for row in scored for s in row]).mean()),
        "forms": _mean(_forms(group) for group in groups if group.successes > 3),
    }


def _pass_at(group: Group, k: int) -> float:
    """Chance that one of `k` of a group's judged completions, drawn without replacement, is right."""
    return 1 - comb(group.failures, k) / comb(group.successes + group.failures, k)


def _forms(group: Group) -> float:
    """Share of different texts among the right completions."""
    texts = [r.text for r, v in zip(group.rollouts, group.verdicts, strict=True) if v.outcome is Outcome.CORRECT]
    return len(set(texts)) / len(texts)


def _ratios(groups: Sequence[Group], scored: Sequence[Sequence[_Scored]]) -> dict[str, Any]:
    """m+ / m- over all completions together, and the median of the prompts' own ratios."""
    found: dict[str, Any] = {"prompts": len(groups)}
    parts: dict[str, Callable[[_Scored], float]] = {"output": lambda s: s.output, "whole": lambda s: s.whole}
    for name, part in parts.items():
        right: list[float] = []
        wrong: list[float] = []
        own: list[float] = []
        for group, row in zip(groups, scored, strict=True):
            ok = np.array([v.outcome is Outcome.CORRECT for v in group.verdicts])
            norms = np.array([part(s) for s in row])
            if np.isnan(norms).any():
                continue
            right, wrong = [*right, *norms[ok]], [*wrong, *norms[~ok]]
            if min(ok.sum(), (~ok).sum()) >= _FEWEST:
                own.append(norms[ok].mean() / norms[~ok].mean())
        found[f"{name}_prompts"] = len(own)
        found[name] = _rounded(np.mean(right) / np.mean(wrong)) if right and wrong else None
        found[f"{name}_median"] = _rounded(np.median(own)) if own else None
    return found


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return _rounded(np.mean(found)) if found else None


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)
