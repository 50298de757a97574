"""Job: score the base policy or a checkpoint on every suite.

Every completion's random numbers follow from (evaluation seed, suite, mode, prompt, index), so that two checkpoints
answer the same items with the same luck and their comparison is paired.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, JsonValue

from cures_core.checkpoints.checkpoint import load_checkpoint
from cures_core.config.evaluation import EvaluatedSuite, SuiteSampling
from cures_core.config.marks import is_within, results
from cures_core.config.policy import dtype_of
from cures_core.config.rewards import RewardConfig
from cures_core.config.run import RunConfig
from cures_core.epoch import roll_out
from cures_core.errors import ConfigError
from cures_core.evaluation.items import ItemResult, score, write_items
from cures_core.evaluation.scores import Setting, SuiteScore
from cures_core.evaluation.voting import majority
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.assemble import assemble_engine, assemble_policy, evaluation_rollout, versions
from cures_core.jobs.chunks import cost_of, in_chunks, made_on, noted
from cures_core.jobs.kept import keep, kept
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.kept_rollouts.redaction import Redactor
from cures_core.machine import joined_machines, machine_of
from cures_core.own_code import keyed
from cures_core.policy.loading import Policy
from cures_core.prompts import PromptSet
from cures_core.prompts.chats import transcript
from cures_core.rewards import make_verifier
from cures_core.rewards.verifier import Verifier
from cures_core.rollout.engine import RolloutEngine
from cures_core.tally import Tally
from cures_core.terms import FinishReason, Group, Request
from cures_core.thinking import Tags

EXAMPLES = 64
"""Items of a suite whose completion is kept: enough for a report to find failures among them."""
EXAMPLE_CHARS = 2000

Mode = Literal["sampled", "greedy"]
Row = dict[str, Any]


def run(job: Job, parent: Parent) -> None:
    """Write `items-<suite>.parquet`, `scores.json`, `examples.jsonl` and `figures.json` to `job.out`.

    A shard writes the rows of its items, for `joined`, and nothing else. Figures: rollouts, tokens and completions
    without a verdict (greedy ones included), what judging has cost, if anything, and avg@k by suite.
    """
    if job.suites is None:
        raise ConfigError("an evaluation needs the folder of the suites")
    # All suites are read before the policy is loaded: a missing one is told at once.
    suites = [
        (suite, chosen(PromptSet.read_parquet(job.suites / f"{suite.name}.parquet"), suite.limit))
        for suite in job.config.evaluation.suites
    ]
    with ExitStack() as stack:
        evaluator = _Evaluator(job, parent, stack)
        if job.shard is not None:
            first, step = job.shard
            for suite, prompts in suites:
                evaluator.rows(suite, prompts.take(range(first, len(prompts), step)))
            return
        results = [evaluator.evaluate(suite, prompts) for suite, prompts in suites]
    for result in results:
        write_items(result.items, job.out / f"items-{result.score.suite}.parquet")
    write_atomic(job.out / "scores.json", canonical_json([r.score.model_dump(mode="json") for r in results]))
    lines = [canonical_json(example) + b"\n" for result in results for example in result.examples]
    write_atomic(job.out / "examples.jsonl", b"".join(lines))
    write_atomic(job.out / "figures.json", canonical_json(_figures(results)))


def chosen(prompts: PromptSet, limit: int | None) -> PromptSet:
    """The first `limit` prompts of `spread`: neither row order nor a neighbour's edit changes which; a smaller limit
    takes a subset of a larger one's."""
    return prompts if limit is None else prompts.take(sorted(spread(prompts.ids)[:limit]))


def spread(ids: Sequence[str]) -> list[int]:
    """Indices of `ids` in the order of a hash of the id."""
    keys = [hashlib.sha256(b"cures-suite-item\n" + name.encode()).digest() for name in ids]
    return sorted(range(len(ids)), key=keys.__getitem__)


def completion_seed(seed: int, suite: str, mode: Mode) -> int:
    """Seed in 0..2^63 - 1 of all completions of a suite in one mode; the same for every checkpoint."""
    digest = hashlib.sha256(f"cures-evaluation\n{seed}\n{suite}\n{mode}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class _Result:
    score: SuiteScore
    items: list[ItemResult]
    examples: list[Row]
    rollouts: int
    tokens: int
    unknown: int
    judging: dict[str, float]
    machine: dict[str, str]


def rows_file(scratch: Path, suite: str) -> Path:
    """Where the job finds the rows of a suite that need no generation, and leaves those it has generated."""
    return scratch / "rows" / f"{suite}.json"


def joined(parts: Sequence[Row]) -> Row:
    """The rows of a suite from those of its shards, in order of their number. Raises `ConfigError` where they were made
    on devices of different kinds: a score names one."""
    if len(devices := {part["machine"]["device"] for part in parts}) > 1:
        raise ConfigError(f"shards of one evaluation ran on {' and '.join(sorted(devices))}; set device.type")
    machine = joined_machines([part["machine"] for part in parts])
    return {"machine": machine, **{mode: _dealt([p[mode] for p in parts]) for mode in ("sampled", "greedy")}}


def _dealt(parts: Sequence[list[Row]]) -> list[Row]:
    rows = [Row()] * sum(map(len, parts))
    for i, part in enumerate(parts):
        rows[i :: len(parts)] = part
    return rows


class _Evaluator:
    """One policy and engine for all suites, made only if there is something to generate; all ends with `stack`."""

    def __init__(self, job: Job, parent: Parent, stack: ExitStack) -> None:
        self._job, self._parent, self._stack = job, parent, stack
        self._redactor = Redactor.of(job.config)
        self._verifiers: dict[bytes, Verifier] = {}

    @cached_property
    def _policy(self) -> Policy:
        return assemble_policy(self._job, load_checkpoint(self._job.checkpoint) if self._job.checkpoint else None)

    @cached_property
    def _engine(self) -> RolloutEngine:
        """One engine for all suites and modes: to start one may take minutes."""
        return self._stack.enter_context(closing(assemble_engine(self._policy, self._job.config.rollout)))

    @cached_property
    def _machine(self) -> dict[str, str]:
        return machine_of(self._policy.device, dtype_of(self._job.config.policy))

    def rows(self, suite: EvaluatedSuite, prompts: PromptSet) -> Row:
        """Counts of each prompt by mode, in order, and the machine they were made on; found or generated."""
        path = rows_file(self._job.scratch, suite.name)
        found: Row | None = kept(path)
        if found is None:
            sampled = self._complete(suite, prompts, "sampled", suite.samples, suite.temperature)
            greedy = self._complete(suite, prompts, "greedy", 1, 0.0) if suite.greedy else []
            found = {"machine": made_on([*sampled, *greedy], self._machine), "sampled": sampled, "greedy": greedy}
            keep(path, found)
        return found

    def evaluate(self, suite: EvaluatedSuite, prompts: PromptSet) -> _Result:
        cfg = self._job.config
        rows = self.rows(suite, prompts)
        sampled, greedy = rows["sampled"], rows["greedy"]
        items = _items(prompts, sampled, greedy)
        scored = score(items, suite, cfg.evaluation, comparison_settings(cfg, suite, prompts))
        # The base policy's score too names the package of the adapters that are trained: before and after are alike.
        made_with = {**versions(*judged_by(cfg, suite), cfg.training.lora), **rows["machine"]}
        return _Result(
            score=scored.model_copy(
                update={
                    "policy": self._job.policy_digest,
                    "made_with": made_with,
                    "thinking_tokens_mean": _thinking_mean(sampled),
                }
            ),
            items=items,
            examples=_examples(suite, prompts, sampled, self._redactor),
            rollouts=len(prompts) * (suite.samples + suite.greedy),
            tokens=sum(row["tokens"] for row in [*sampled, *greedy]),
            unknown=sum(row["unknown"] for row in [*sampled, *greedy]),
            judging=cost_of([*sampled, *greedy]),
            machine=rows["machine"],
        )

    def _complete(
        self, suite: EvaluatedSuite, prompts: PromptSet, mode: Mode, num: int, temperature: float
    ) -> list[Row]:
        """One row of counts for each prompt, in order, generated in saved chunks."""
        cfg = self._job.config
        seed = completion_seed(cfg.evaluation.seed, suite.name, mode)
        requests = [Request(f"{suite.name}-{mode}-{i}", prompt, num, seed) for i, prompt in enumerate(prompts)]
        size = cfg.evaluation.chunk_prompts
        # The size is in the name: chunks of an earlier attempt with another size hold other prompts.
        folder = self._job.scratch / f"{suite.name}-{mode}-{size}"
        rollout = evaluation_rollout(cfg, suite, temperature)
        verifier = self._verifier(suite.reward or cfg.reward, rollout.prompt_format.thinking)
        self._engine.retune(rollout)

        def work(chunk: Sequence[Request]) -> list[Row]:
            rows = [_row(group, self._redactor) for group in roll_out(chunk, self._engine, verifier)]
            return noted(rows, verifier, self._machine)

        return in_chunks(requests, size, folder, work, self._parent, "eval")

    def _verifier(self, cfg: RewardConfig, thinking: Tags) -> Verifier:
        """One verifier for each configuration, started when it is first needed."""
        name = canonical_json([cfg.model_dump(mode="json"), thinking])
        if name not in self._verifiers:
            self._verifiers[name] = self._stack.enter_context(make_verifier(cfg, thinking))
        return self._verifiers[name]


def _row(group: Group, redactor: Redactor) -> Row:
    tally = Tally(readable=redactor.short)
    tally.observe([group])
    rival, votes = tally.prompts[group.request.prompt.id].rival()
    return {
        "correct": group.successes,
        "unknown": group.unknown,
        "samples": len(group.rollouts),
        "truncated": sum(r.finish_reason is FinishReason.LENGTH for r in group.rollouts),
        "tokens": sum(len(r.token_ids) for r in group.rollouts),
        "thinking": sum(r.thinking_tokens for r in group.rollouts),
        "majority": majority(group.verdicts),
        "rival": rival,
        "rival_votes": votes,
        "completion": redactor.text(group.rollouts[0].text)[:EXAMPLE_CHARS],
        "outcome": group.verdicts[0].outcome.value,
    }


def _thinking_mean(rows: Sequence[Row]) -> float | None:
    """Tokens of thinking in a completion; None for a policy that does not think. Earlier versions kept none."""
    thinking = sum(row.get("thinking", 0) for row in rows)
    return thinking / sum(row["samples"] for row in rows) if thinking else None


_KEPT = ("correct", "unknown", "samples", "truncated", "tokens", "majority", "rival", "rival_votes")


def _items(prompts: PromptSet, sampled: Sequence[Row], greedy: Sequence[Row]) -> list[ItemResult]:
    verdicts = [row["correct"] for row in greedy] or [None] * len(prompts)
    return [
        ItemResult(
            id=prompt.id,
            level=prompt.level,
            source=prompt.source,
            **{name: row[name] for name in _KEPT},
            greedy=verdict,
            subject=prompt.subject,
        )
        for prompt, row, verdict in zip(prompts, sampled, verdicts, strict=True)
    ]


def _examples(suite: EvaluatedSuite, prompts: PromptSet, sampled: Sequence[Row], redactor: Redactor) -> list[Row]:
    """The first sampled completion of a few items, the same items for every checkpoint."""
    return [
        {
            "suite": suite.name,
            "id": prompts[i].id,
            "problem": redactor.text(transcript(prompts[i])),
            "gold": redactor.text(prompts[i].answer),
            "completion": sampled[i]["completion"],
            "outcome": sampled[i]["outcome"],
        }
        for i in spread(prompts.ids)[:EXAMPLES]
    ]


def answering(cfg: RunConfig, suite: EvaluatedSuite) -> dict[str, JsonValue]:
    """How a suite's items are answered and judged, by dotted key: its own settings, with what it takes over from
    training filled in, and the rest of the rollout's."""
    rollout = evaluation_rollout(cfg, suite, suite.temperature)
    whole = suite.model_copy(
        update={
            "prompt_format": rollout.prompt_format,
            "max_new_tokens": rollout.max_new_tokens,
            "reward": suite.reward or cfg.reward,
        }
    )
    own = keyed(whole, of=SuiteSampling)
    engine = {f"rollout.{key}": value for key, value in keyed(rollout).items() if key not in own}
    # Name and seed are what the completions' seeds are made of.
    return {"name": suite.name, "seed": cfg.evaluation.seed, **own, **engine}


def judged_by(cfg: RunConfig, suite: EvaluatedSuite) -> tuple[BaseModel, ...]:
    """The settings of what answers a suite's items, and of what judges them."""
    return cfg.rollout, suite.reward or cfg.reward


def comparison_settings(cfg: RunConfig, suite: EvaluatedSuite, prompts: PromptSet) -> dict[str, Setting]:
    """What was asked, how it was answered and judged, and what intervals say: two scores compare only where all of it
    agrees. A score keeps the version of math-verify only where that judges."""
    intervals = {key: value for key, value in results(cfg.evaluation).items() if not is_within(key, ("suites",))}
    asked = {key: value for key, value in answering(cfg, suite).items() if key != "limit"}  # the items say it
    settings = {
        key: value if isinstance(value, str | int | float) else canonical_json(value).decode()
        for key, value in {**asked, **intervals}.items()
    }
    return {"suite_digest": prompts.digest, **settings, "math-verify": versions()["math-verify"]}


def _figures(results: Sequence[_Result]) -> dict[str, object]:
    scores = {r.score.suite: {**r.score.avg.model_dump(), "n": r.score.n, "k": r.score.k} for r in results}
    judging = sum((Counter(r.judging) for r in results), Counter[str]())
    return {
        "rollouts": sum(r.rollouts for r in results),
        "tokens": sum(r.tokens for r in results),
        "unknown": sum(r.unknown for r in results),
        **({"judging": dict(judging)} if judging else {}),
        "scores": scores,
        "machine": joined_machines([r.machine for r in results]),
    }
