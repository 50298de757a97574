"""Knows what is kept of every item of an evaluation, its one form on disk, and how a suite's scores follow from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cures_core.config.evaluation import EvaluatedSuite, EvaluationConfig
from cures_core.errors import ConfigError, CorruptArtifact, DataRejected, MissingInput
from cures_core.evaluation.intervals import Interval, bootstrap, wilson
from cures_core.evaluation.pass_at import Ints, pass_at, pass_ladder
from cures_core.evaluation.scores import Estimate, LabelScore, SuiteScore
from cures_core.failures import machine_failure

SCHEMA_VERSION = 3

_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("correct", "unknown", "samples", "truncated")),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("greedy", pa.int8()),
        pa.field("majority", pa.float64()),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("rival", pa.string(), nullable=False),
        pa.field("rival_votes", pa.int64(), nullable=False),
    ]
)
_SCHEMAS = {
    "1": pa.schema(list(_SCHEMA)[:-4]),
    "2": pa.schema(list(_SCHEMA)[:-2]),
    str(SCHEMA_VERSION): _SCHEMA,
}
"""What is read. Items of schema 1 have no vote and no subject, those of schema 2 no rival."""
_VERSION_KEY = b"cures.items.schema"


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One item of a suite: counts over its `samples` sampled completions, and its greedy completion."""

    id: str
    """Content id of the prompt."""
    level: str
    source: str
    correct: int
    unknown: int
    samples: int
    truncated: int
    """Sampled completions that ran into the token limit."""
    tokens: int
    """Total length of the sampled completions."""
    greedy: int | None
    """1 if the greedy completion is correct, else 0 (unknown included); None where none was asked for."""
    majority: float | None = None
    """What a majority vote over the sampled completions scores (`voting.majority`); None where it is not known."""
    subject: str = ""
    rival: str = ""
    """The wrong answer that most of the sampled completions agree on; "" where none was read."""
    rival_votes: int = 0
    """How many do."""


def write_items(items: Sequence[ItemResult], path: Path) -> None:
    """Write the items in order of id; equal items give equal bytes under one version of pyarrow. Not atomic."""
    rows = [astuple(item) for item in sorted(items, key=lambda item: item.id)]
    columns = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    schema = _SCHEMA.with_metadata({_VERSION_KEY: str(SCHEMA_VERSION)})
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")


def read_items(path: Path) -> list[ItemResult]:
    """Read what `write_items` wrote, in order of id. Raises `MissingInput`, and `CorruptArtifact` for anything else."""
    if not path.is_file():
        raise MissingInput(f"{path}: no such table of items; run the evaluation that writes it")
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise machine_failure(error, path) or CorruptArtifact(
            f"{path}: not a readable Parquet file ({error}); run the evaluation again"
        ) from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version not in _SCHEMAS or not table.schema.equals(_SCHEMAS[version]):
        raise CorruptArtifact(
            f"{path}: items of schema {version}, this version reads {SCHEMA_VERSION}; run the evaluation again"
        )
    items = [ItemResult(**row) for row in table.to_pylist()]
    if any(a.id >= b.id for a, b in pairwise(items)):
        raise CorruptArtifact(f"{path}: ids are not ascending, each once; run the evaluation again")
    return items


def score(
    items: Sequence[ItemResult],
    suite: EvaluatedSuite,
    cfg: EvaluationConfig,
    settings: Mapping[str, str | int | float],
) -> SuiteScore:
    """The suite's figures with intervals; `settings` is carried along.

    Raises `DataRejected` for no items at all, and `ConfigError` where an item was not sampled as `suite` says.
    """
    if not items:
        raise DataRejected(f"suite {suite.name} holds no item: give it at least one")
    _check_sampling(items, suite)
    n, k = len(items), suite.samples
    correct = np.array([item.correct for item in items], dtype=np.int64)
    avg = _avg(correct, k, cfg)
    return SuiteScore(
        suite=suite.name,
        n=n,
        k=k,
        avg=avg,
        pass_at={str(j): avg if j == 1 else _pass(j, correct, k, cfg) for j in pass_ladder(k)},
        majority=_majority([item.majority for item in items], cfg) if k > 1 else None,
        greedy=_share(sum(item.greedy or 0 for item in items), n, cfg) if suite.greedy else None,
        unknown_share=sum(item.unknown for item in items) / (n * k),
        truncated_share=sum(item.truncated for item in items) / (n * k),
        tokens_mean=sum(item.tokens for item in items) / (n * k),
        by_level=_by_label([item.level for item in items], items, k, cfg),
        by_source=_by_label([item.source for item in items], items, k, cfg),
        by_subject=_by_label([item.subject for item in items], items, k, cfg),
        settings=dict(settings),
    )


def _check_sampling(items: Sequence[ItemResult], suite: EvaluatedSuite) -> None:
    for item in items:
        if item.samples != suite.samples or (item.greedy is not None) != suite.greedy:
            raise ConfigError(
                f"suite {suite.name}, item {item.id}: {item.samples} samples, greedy {item.greedy}; the suite asks for "
                f"{suite.samples} samples, greedy = {str(suite.greedy).lower()}. Evaluate it again"
            )


def _avg(correct: Ints, k: int, cfg: EvaluationConfig) -> Estimate:
    total = int(correct.sum())
    if k == 1:
        return _share(total, len(correct), cfg)
    low, high = bootstrap(correct, cfg.confidence, cfg.resamples, cfg.seed, (0, k))
    return Estimate(value=total / (len(correct) * k), low=low / k, high=high / k)


def _pass(j: int, correct: Ints, k: int, cfg: EvaluationConfig) -> Estimate:
    if j == k:  # any correct completion or none: a plain share
        return _share(int((correct > 0).sum()), len(correct), cfg)
    values = pass_at(j, correct, k)
    return _estimate(float(values.mean()), bootstrap(values, cfg.confidence, cfg.resamples, cfg.seed, (0, 1)))


def _majority(votes: Sequence[float | None], cfg: EvaluationConfig) -> Estimate | None:
    known = [vote for vote in votes if vote is not None]
    if len(known) < len(votes):
        return None
    interval = bootstrap(known, cfg.confidence, cfg.resamples, cfg.seed, (0, 1))
    return _estimate(float(np.mean(known)), interval)


def _share(successes: int, n: int, cfg: EvaluationConfig) -> Estimate:
    return _estimate(successes / n, wilson(successes, n, cfg.confidence))


def _estimate(value: float, interval: Interval) -> Estimate:
    return Estimate(value=value, low=interval.low, high=interval.high)


def _by_label(
    labels: Sequence[str], items: Sequence[ItemResult], k: int, cfg: EvaluationConfig
) -> dict[str, LabelScore]:
    """Figures by label; nothing where no item has a label."""
    if not any(labels):
        return {}
    groups: dict[str, list[ItemResult]] = defaultdict(list)
    for label, item in zip(labels, items, strict=True):
        groups[label].append(item)
    return {label: _label_score(group, k, cfg) for label, group in sorted(groups.items())}


def _label_score(group: Sequence[ItemResult], k: int, cfg: EvaluationConfig) -> LabelScore:
    completions = len(group) * k
    return LabelScore(
        avg=_avg(np.array([item.correct for item in group], dtype=np.int64), k, cfg),
        n=len(group),
        unknown_share=sum(item.unknown for item in group) / completions,
        truncated_share=sum(item.truncated for item in group) / completions,
        tokens_mean=sum(item.tokens for item in group) / completions,
    )
