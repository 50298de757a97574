"""What a run will cost: sizes of its files and policy, and rates from an earlier run or a short measurement."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from pydantic import JsonValue, ValidationError

from cures_core.builtin import chains
from cures_core.config.data import PromptFile
from cures_core.config.marks import Mark, is_within, leaves
from cures_core.config.policy import PretrainedPolicy, WarmStartPolicy
from cures_core.config.prior import NoPrior
from cures_core.config.run import RunConfig
from cures_core.config.training import RanksConfig
from cures_core.errors import ConfigError, CorruptArtifact, MissingInput
from cures_core.events import JobEvent, PartDone
from cures_core.jobs.prior import stratified
from cures_core.jobs.spec import Job
from cures_core.planning.costs import (
    PARTS,
    Part,
    Rates,
    evaluations,
    expected_tokens,
    most_tokens,
    of_suite,
    rollouts,
    seconds,
)
from cures_core.planning.device_memory import memory
from cures_core.planning.disk import disk_bytes
from cures_core.planning.shape import Shape, pretrained_shape, read_architecture, warm_start_shape
from cures_core.prompts import PromptSet, load_prompts
from cures_core.prompts.loading import require_acceptable
from tasks.inputs.pretrained import adapter_base, pretrained_folder
from tasks.inputs.prompt_files import Inputs
from tasks.runs.notes import run_names, run_overview
from tasks.runs.opening import started_config
from tasks.runs.reading import RunRecords, read_run
from tasks.runs.training import spent
from tasks.stages.job_process import run_job
from tasks.storage import Store, open_store

P = TypeVar("P", bound=str)
DATA = "data"
_WARM_STEPS = 40
_TEMPLATE_TOKENS = 64  # what a chat template puts around a problem, at most, in the models that we know
_BATCH = ("curriculum.prompts_per_step", "curriculum.rollouts_per_step")
_OF_SPEED = ("policy", "rollout", "reward", "device", "training", *_BATCH)
_SAMPLE = 1024  # prompts that are measured, at most


def plan(
    cfg: RunConfig, rows: Mapping[str, int], architecture: Path | None = None, *, measured: bool = False
) -> dict[str, Any]:
    """Rollouts, tokens, memory (bytes) and seconds, as JSON values. `rows`: rows of files that need not be there, by
    suite, and `data` for the prompt set.

    Tokens and seconds come from a measurement (`measured`), else from the latest completed run of the store with the
    same policy, rollouts, reward, batch and device. Without both there are no seconds, and tokens are upper bounds.
    Raises `MissingInput` for a file that is not there and of which `rows` says nothing, `DataRejected` for one
    without a prompt.
    """
    known = {DATA, *(suite.name for suite in cfg.evaluation.suites)}
    if odd := sorted(set(rows) - known):
        raise ConfigError(f"--rows {odd[0]}: the profile has {', '.join(sorted(known))}")
    prompts = _read(cfg, DATA, cfg.data, rows, needed=measured)
    sets = {s.name: _read(cfg, s.name, s, rows, needed=False) for s in cfg.evaluation.suites}
    sizes = {name: _size(name, found, rows) for name, found in {DATA: prompts, **sets}.items()}
    shape = policy_shape(cfg, architecture)
    longest = _longest(cfg, shape, [s for s in (prompts, *sets.values()) if s is not None])
    rates = (
        measure(cfg, prompts, sets) if measured and prompts is not None else rates_of_runs(open_store(cfg.store), cfg)
    )
    needs = memory(cfg, shape, longest)
    ranks = _ranks(cfg)
    return {
        "profile": cfg.name,
        "rows": sizes,
        "policy": {k: getattr(shape, k) for k in ("architecture", "parameters", "trained")},
        "longest_sequence": longest,
        **costs(cfg, sizes, rates),
        "disk_bytes": disk_bytes(cfg, shape.parameters, shape.trained),
        "ranks": ranks,
        "measured_bytes": None if rates is None else rates.measured_bytes,
        "memory_per_rank": {
            **asdict(needs),
            "update": needs.update,
            "rollouts": needs.rollouts,
            "peak": needs.peak,
        },
    }


class Costs(TypedDict):
    """What a run costs, by part and in all; `tokens` and `seconds` are None without rates."""

    rollouts: dict[str, float]
    tokens_at_most: dict[str, float]
    tokens: dict[str, float] | None
    seconds: dict[str, float] | None
    source: str | None
    """Where the rates are from."""


def costs(cfg: RunConfig, sizes: Mapping[str, int], rates: Rates | None) -> Costs:
    """What these many prompts cost."""
    counts = rollouts(cfg, sizes[DATA], sizes)
    return {
        "rollouts": _with_total(counts),
        "tokens_at_most": _with_total(most_tokens(cfg, counts, sizes)),
        "tokens": None if rates is None else _with_total(expected_tokens(counts, rates)),
        "seconds": None if rates is None else _with_total(seconds(counts, rates)),
        "source": None if rates is None else rates.source,
    }


def _with_total(parts: Mapping[P, float]) -> dict[str, float]:
    return {**{str(part): value for part, value in parts.items()}, "total": sum(parts.values())}


def policy_shape(cfg: RunConfig, architecture: Path | None = None) -> Shape:
    """Sizes of the profile's policy, from its folder or from the config.json `architecture`. Raises `MissingInput`."""
    lora = cfg.training.lora
    adapters = None if lora is None else (lora.rank, lora.targets)
    if isinstance(cfg.policy, PretrainedPolicy):
        whole = cfg.policy if (base := adapter_base(cfg.policy)) is None else base
        return pretrained_shape(read_architecture(Path(whole.path), architecture), adapters)
    return warm_start_shape(cfg.policy, adapters)


def _read(cfg: RunConfig, name: str, file: PromptFile, rows: Mapping[str, int], *, needed: bool) -> PromptSet | None:
    path = None if name in rows and not needed else Inputs.of(cfg).local(file.path)
    if path is None:
        return None
    if not path.exists():
        raise MissingInput(f"{file.path}: no such file. Put it there, or say how many rows it has: --rows {name}=N")
    # Problems that are too long in tokens are counted too: the tokenizer need not be here.
    loaded = load_prompts(file.model_copy(update={"path": str(path), "max_problem_tokens": None}))
    if not len(loaded.prompts):
        require_acceptable(loaded, file)
    return loaded.prompts


def _size(name: str, found: PromptSet | None, rows: Mapping[str, int]) -> int:
    return rows[name] if found is None else len(found)


def _longest(cfg: RunConfig, shape: Shape, sets: Sequence[PromptSet]) -> int:
    """Most tokens of prompt and completion together. Prompts of the small policy are counted (a token a character);
    others have at most a token a byte and what the chat template adds, and what the profile lets them have."""
    limit = max([cfg.rollout.max_new_tokens, *(s.max_new_tokens or 0 for s in cfg.evaluation.suites)])
    problems = [problem for found in sets for problem in found.column("problem")]
    if isinstance(cfg.policy, WarmStartPolicy) and problems:
        prompt = max(map(len, problems))
    else:
        most = shape.context or cfg.data.max_problem_chars
        known = max((len(problem.encode()) for problem in problems), default=most)
        prompt = min(known, cfg.data.max_problem_tokens or known) + _TEMPLATE_TOKENS
    limits = (getattr(cfg.rollout, "max_model_len", None), shape.context)
    return min([prompt + limit, *(tokens for tokens in limits if tokens)])


def rates_of_runs(store: Store, cfg: RunConfig) -> Rates | None:
    """Rates of the latest completed run that computes as `cfg` does; None where there is none."""
    ended = [run_overview(store, name) for name in run_names(store)]
    found = [(run.at, run.run) for run in ended if run.status == "completed" and _alike(store, run.run, cfg)]
    for _, name in sorted(found, reverse=True):
        if (records := _records(store, name)) is not None and (rates := _rates(name, records)) is not None:
            return rates
    return None


def _records(store: Store, name: str) -> RunRecords | None:
    """None where they cannot be read: a plan is not to fail because an earlier run is damaged."""
    try:
        return read_run(store, name)
    except CorruptArtifact:
        return None


def _alike(store: Store, name: str, cfg: RunConfig) -> bool:
    """Does run `name` compute as `cfg` does, and as fast? Not if a version with other settings started it."""
    try:
        return _of_speed(started_config(store, name)) == _of_speed(cfg)
    except (ValidationError, CorruptArtifact):
        return False


def _of_speed(cfg: RunConfig) -> dict[str, JsonValue]:
    """What the rates of a run depend on, wherever it runs."""
    read = (leaf for leaf in leaves(cfg) if leaf.mark is not Mark.PLACEMENT and is_within(leaf.path, _OF_SPEED))
    return {**{leaf.path: leaf.value for leaf in read}, "ranks": _ranks(cfg)}


def _ranks(cfg: RunConfig) -> int:
    return cfg.training.processes * cfg.training.nodes if isinstance(cfg.training, RanksConfig) else 1


def _rates(name: str, records: RunRecords) -> Rates | None:
    if not records.epochs:
        return None
    took: dict[Part, float] = {
        "prior": 0.0 if records.prior is None else records.prior.seconds,
        "training": sum(record.seconds for record in records.epochs.values()),
        "evaluation": sum(record.seconds for record in records.evaluations.values()),
    }
    cost = spent(records)
    tokens: dict[Part, float] = {}
    seconds_each: dict[Part, float] = {}
    keys: dict[Part, str] = {"prior": "prior", "training": "train", "evaluation": "eval"}
    for part, key in keys.items():
        if number := cost[key].rollouts:
            tokens[part], seconds_each[part] = cost[key].tokens / number, took[part] / number
    for part in PARTS:  # a part that run did not have
        tokens.setdefault(part, tokens["training"])
        seconds_each.setdefault(part, seconds_each["training"])
    policy = 0.0 if records.policy is None else records.policy.seconds
    others = sum(record.seconds for _, record in records.labelled) - sum(took.values())
    fixed = {"policy": policy, "other stages": others - policy}
    return Rates(f"run {name}", tokens, seconds_each, fixed)


def measure(cfg: RunConfig, prompts: PromptSet, suites: Mapping[str, PromptSet | None]) -> Rates:
    """Rates of this machine, from a few steps and a chunk of an evaluation in a process of their own, on a sample that
    treats the groups (source x level) of prompts alike, as the prior's does: a curriculum does not draw as the set is.

    A policy that is still to be made is measured after a few steps of its warm start; its completions are then counted
    as those it will be taught. With several ranks, the seconds of one divided by their number.
    """
    ranks = _ranks(cfg)
    sample = PromptSet.of(stratified(list(prompts), _SAMPLE, cfg.seed))
    with tempfile.TemporaryDirectory(prefix="cures-plan-") as folder:
        work = Path(folder)
        fixed: dict[str, float] = {}
        if isinstance(cfg.policy, WarmStartPolicy):
            fixed["policy"] = _warm_start_seconds(cfg, cfg.policy, work)
            policy = work / "warm" / "policy"
        else:
            policy = pretrained_folder(cfg.policy)
        sample.write_parquet(work / "prompts.parquet")
        job = Job(
            name="measure",
            config=cfg,
            scratch=work / "scratch",
            out=work / "measure",
            policy=str(policy),
            prompts=work / "prompts.parquet",
        )
        at = time.monotonic()
        run_job(job, lambda _: None)
        took = time.monotonic() - at
        found = json.loads((job.out / "figures.json").read_bytes())
    jobs = (not isinstance(cfg.prior, NoPrior)) + cfg.epochs + evaluations(cfg)
    fixed["starts of jobs"] = jobs * (took - found["seconds"])
    step = (found["generation_s_per_rollout"] + found["update_s_per_rollout"]) / ranks
    scored = found["evaluation_s_per_rollout"]
    return Rates(
        source=f"{found['rollouts']} rollouts on this machine",
        tokens=_lengths(cfg, sample, suites, found["tokens_per_rollout"]),
        seconds={"prior": scored, "training": step, "evaluation": scored},
        fixed=fixed,
        measured_bytes={key: found[key] for key in ("process_before", "process_peak", "gpu_peak")},
    )


def _lengths(
    cfg: RunConfig, sample: PromptSet, suites: Mapping[str, PromptSet | None], measured: float
) -> dict[Part, float]:
    """Completion tokens of a rollout: as measured, or for the small policy as it will be taught."""
    lengths: dict[Part, float] = dict.fromkeys(PARTS, measured)
    if isinstance(cfg.policy, WarmStartPolicy):
        lengths["prior"] = lengths["training"] = _taught_tokens(sample)
        known = [(s, found) for s in cfg.evaluation.suites if (found := suites[s.name]) is not None]
        numbers = [of_suite(s, len(found)) for s, found in known]
        if known:
            total = sum(number * _taught_tokens(found) for number, (_, found) in zip(numbers, known, strict=True))
            lengths["evaluation"] = total / sum(numbers)
    return lengths


def _warm_start_seconds(cfg: RunConfig, policy: WarmStartPolicy, work: Path) -> float:
    """Seconds of the whole warm start, from a short one that leaves its policy in `work`."""
    few = policy.model_copy(update={"steps": min(_WARM_STEPS, policy.steps)})
    job = Job(name="warm_start", config=cfg.model_copy(update={"policy": few}), scratch=work / "w", out=work / "warm")
    seen: list[tuple[int, float]] = []
    at = time.monotonic()

    def on_event(event: JobEvent) -> None:
        if isinstance(event, PartDone):
            seen.append((event.done, time.monotonic()))

    run_job(job, on_event)
    if len(seen) < 2:
        return (time.monotonic() - at) * policy.steps / few.steps
    (first, begun), (last, ended) = seen[0], seen[-1]
    each = (ended - begun) / (last - first)
    return begun - at + each * (policy.steps - first)


def _taught_tokens(prompts: PromptSet) -> float:
    return sum(chains.completion_tokens(problem) for problem in prompts.column("problem")) / len(prompts)
