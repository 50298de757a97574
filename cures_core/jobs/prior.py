"""Job: the first posterior, from a budgeted sample of rollouts, from all prompts, or from none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np

from cures_core.config.policy import dtype_of
from cures_core.config.prior import NoPrior, SamplePrior
from cures_core.curriculum import Posterior, load_posterior, migrate, save_posterior
from cures_core.curriculum.predictor import predict
from cures_core.epoch import roll_out
from cures_core.errors import ConfigError
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.assemble import assemble_engine, assemble_policy, assemble_verifier
from cures_core.jobs.chunks import cost_of, in_chunks, made_on, noted
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.machine import machine_of
from cures_core.prompts import PromptSet
from cures_core.rewards.length import LengthRule
from cures_core.terms import Prompt, Request


def run(job: Job, parent: Parent) -> None:
    """Write `posterior.parquet` and `figures.json` to `job.out`.

    Figures: prompts rolled out, rollouts, tokens, unknown; judging: what verdicts have cost, if anything; what an
    earlier posterior (`job.posterior`) brought: prompts kept, restored from its archive, new, archived; prediction: in
    words, how unseen prompts are predicted.
    """
    if job.prompts is None:
        raise ConfigError("a prior needs prompts")
    cfg = job.config
    prompts = PromptSet.read_parquet(job.prompts)
    settings = cfg.curriculum.posterior
    known: frozenset[str] = frozenset()
    if job.posterior is None:
        moved = {"kept": 0, "restored": 0, "new": len(prompts), "archived": 0}
        posterior = Posterior.fresh(prompts, settings)
    else:
        earlier = load_posterior(job.posterior)
        known = known_ids(earlier)
        posterior, moved = migrate(earlier, prompts, settings)
    rows: list[dict[str, Any]] = []
    machine: dict[str, str] = {}
    if not isinstance(cfg.prior, NoPrior) and (requests := plan(job, prompts, posterior, known)):
        policy = assemble_policy(job, None)
        here = machine_of(policy.device, dtype_of(cfg.policy))
        with assemble_verifier(cfg) as verifier, closing(assemble_engine(policy, cfg.rollout)) as engine:

            def work(chunk: Sequence[Request]) -> list[dict[str, Any]]:
                found = [
                    {
                        "id": g.request.prompt.id,
                        "successes": g.successes,
                        "failures": g.failures,
                        "unknown": g.unknown,
                        "tokens": sum(len(r.token_ids) for r in g.rollouts),
                    }
                    for g in roll_out(chunk, engine, verifier, LengthRule.of(cfg))
                ]
                return noted(found, verifier, here)

            rows = in_chunks(requests, cfg.prior.chunk_prompts, job.scratch, work, parent, "prior")
        machine = made_on(rows, here)
    if rows:
        successes = np.array([row["successes"] for row in rows], dtype=np.float64)
        failures = np.array([row["failures"] for row in rows], dtype=np.float64)
        posterior.update([row["id"] for row in rows], successes, failures, step=0)
    prediction = None
    if not isinstance(cfg.prior, NoPrior) and cfg.prior.features:
        prediction = predict(prompts, posterior, cfg.seed)
        if prediction is not None and prediction.used:
            posterior.set_prior(prediction.rates, prediction.strength)
    save_posterior(posterior, job.out / "posterior.parquet")
    figures = {
        "prompts": len(rows),
        "rollouts": sum(row["successes"] + row["failures"] + row["unknown"] for row in rows),
        "tokens": sum(row["tokens"] for row in rows),
        "unknown": sum(row["unknown"] for row in rows),
        **({"judging": cost} if (cost := cost_of(rows)) else {}),
        **moved,
        "prediction": "" if prediction is None else prediction.words(),
        "machine": machine,
    }
    write_atomic(job.out / "figures.json", canonical_json(figures))


def known_ids(earlier: Posterior) -> frozenset[str]:
    """Prompts an earlier posterior speaks of, its archive included."""
    archived = [] if earlier.archive is None else earlier.archive.column("id").to_pylist()
    return frozenset([*(x.decode() for x in earlier.ids.tolist()), *archived])


def plan(job: Job, prompts: PromptSet, posterior: Posterior, known: frozenset[str] = frozenset()) -> list[Request]:
    """Requests for the prompts that lack evidence: all of them, or a sample stratified by group within the budget.

    `known` prompts are left out: an earlier run has spent its budget on them, and their groups' counts are here.
    """
    cfg = job.config
    if isinstance(cfg.prior, NoPrior):
        return []
    lacking = set(posterior.without_evidence()) - known
    candidates = [p for p in prompts if p.id in lacking]
    if isinstance(cfg.prior, SamplePrior):
        candidates = stratified(candidates, cfg.prior.budget // cfg.prior.rollouts_per_prompt, cfg.seed)
    # The seed differs from that of every training step: those are derived from (seed, step >= 1, round).
    seed = int(np.random.SeedSequence([cfg.seed, 0x5052494F52]).generate_state(1, np.uint64)[0] >> 1)
    return [Request(f"prior-{i}", p, cfg.prior.rollouts_per_prompt, seed) for i, p in enumerate(candidates)]


def stratified(prompts: Sequence[Prompt], num: int, seed: int) -> list[Prompt]:
    """`num` prompts, as equally many from every group (source x level) as their sizes allow; in order of id."""
    groups: dict[tuple[str, str], list[Prompt]] = defaultdict(list)
    for prompt in sorted(prompts, key=lambda p: p.id):
        groups[prompt.source, prompt.level].append(prompt)
    rng = np.random.default_rng([seed, 0x5354524154])
    shuffled = [[group[i] for i in rng.permutation(len(group))] for _, group in sorted(groups.items())]
    taken: list[Prompt] = []
    depth = 0
    while len(taken) < min(num, len(prompts)):
        layer = [group[depth] for group in shuffled if depth < len(group)]
        room = num - len(taken)
        if len(layer) > room:
            layer = [layer[i] for i in sorted(rng.permutation(len(layer))[:room])]
        taken += layer
        depth += 1
    return sorted(taken, key=lambda p: p.id)
