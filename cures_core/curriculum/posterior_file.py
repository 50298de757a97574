"""The posterior on disk: one Parquet file, readable with any reader, that holds everything a later run needs.

Columns: id, source, level (text), successes, failures (rollouts, faded up to `step`), step (when evidence was last
added; -1 never), dead_log_odds (at the share of dead prompts that the settings say, 0.1 where it is fitted: that is
fitted anew from these), offset (logit of a predicted pass rate against that of the group), mean (expected pass
rate, for readers; not read back), archived (the prompt has left the set). File metadata: schema version, the step up to
which the run has come, the settings, the counts of the groups, the strength of predictions, and the log evidence of
the fadings and strengths that were compared. Counts are those under the best fading.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cures_core.config.curriculum import PosteriorConfig
from cures_core.config.retired import readable
from cures_core.curriculum import special
from cures_core.curriculum.model_selection import ages
from cures_core.curriculum.posterior import Ints, Posterior, encoded
from cures_core.errors import CorruptArtifact, MissingInput
from cures_core.failures import machine_failure
from cures_core.files import canonical_json

SCHEMA_VERSION = 2
_COLUMNS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),
        pa.field("successes", pa.float64(), nullable=False),
        pa.field("failures", pa.float64(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("dead_log_odds", pa.float64(), nullable=False),
        pa.field("offset", pa.float64(), nullable=False),
        pa.field("mean", pa.float64(), nullable=False),
        pa.field("archived", pa.bool_(), nullable=False),
    ]
)


def save_posterior(posterior: Posterior, path: Path) -> None:
    """Write the file; equal posteriors give equal bytes under one version of pyarrow. Not atomic."""
    table = active_rows(posterior)
    if posterior.archive is not None:
        table = pa.concat_tables([table, posterior.archive])
    counts = zip(posterior.group_successes.tolist(), posterior.group_failures.tolist(), strict=True)
    about = {
        "step": posterior.step,
        "settings": posterior.cfg.model_dump(mode="json"),
        "groups": [[*name, *count] for name, count in zip(posterior.group_names, counts, strict=True)],
    }
    if posterior.memory.log_evidence.size > 1:
        about["log_evidence"] = posterior.memory.log_evidence.tolist()
    if posterior.predicted is not None:
        about["predicted_strength"] = posterior.predicted[1]
    metadata = {"cures.posterior.schema": str(SCHEMA_VERSION), "cures.posterior.about": canonical_json(about)}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def load_posterior(path: Path) -> Posterior:
    """Read what `save_posterior` wrote. Raises `MissingInput`, or `CorruptArtifact` for anything else."""
    if not path.is_file():
        raise MissingInput(f"{path}: no such posterior")
    try:
        table = pq.read_table(path, partitioning=None)
        metadata = table.schema.metadata or {}
        version = metadata.get(b"cures.posterior.schema", b"none").decode()
        if version == "1":  # knew no predictions
            table = table.add_column(7, _COLUMNS.field("offset"), pa.array(np.zeros(table.num_rows)))
        elif version != str(SCHEMA_VERSION):
            raise CorruptArtifact(f"{path}: posterior schema {version}, this version reads 1 and {SCHEMA_VERSION}")
        return _from_table(table.cast(_COLUMNS), json.loads(metadata[b"cures.posterior.about"]))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise machine_failure(error, path) or CorruptArtifact(
            f"{path}: not a readable posterior ({error}); take an earlier snapshot"
        ) from error


def active_rows(posterior: Posterior) -> pa.Table:
    """The prompts of the set, as rows of the file."""
    names = [posterior.group_names[g] for g in posterior.groups.tolist()]
    columns: list[Any] = [
        [x.decode() for x in posterior.ids.tolist()],
        [source for source, _ in names],
        [level for _, level in names],
        posterior.successes,
        posterior.failures,
        posterior.touched,
        posterior.dead_log_odds,
        np.zeros(len(posterior)) if posterior.predicted is None else posterior.predicted[0],
        posterior.mean(),
        np.zeros(len(posterior), dtype=bool),
    ]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, _COLUMNS, strict=True)], schema=_COLUMNS)


def fill(posterior: Posterior, rows: Ints | slice, table: pa.Table) -> None:
    """Set the given rows of a posterior from as many rows of the file's form."""
    # Only the counts under the best fading are on disk; to the other ones they are a start.
    posterior.right[rows] = table.column("successes").to_numpy()[:, None]
    posterior.wrong[rows] = table.column("failures").to_numpy()[:, None]
    posterior.touched[rows] = table.column("step").to_numpy()
    posterior.dead_log_odds[rows] = table.column("dead_log_odds").to_numpy()
    posterior.fit_dead_prior()


def _from_table(table: pa.Table, about: dict[str, Any]) -> Posterior:
    archived = table.column("archived").to_numpy()
    active = table.filter(~archived)
    names = [(source, level) for source, level, *_ in about["groups"]]
    index = {name: i for i, name in enumerate(names)}
    pairs = zip(active.column("source").to_pylist(), active.column("level").to_pylist(), strict=True)
    groups = np.array([index[pair] for pair in pairs], dtype=np.int64)
    ids = encoded(active.column("id").to_pylist())
    if len(ids) > 1 and not np.all(ids[1:] > ids[:-1]):
        raise CorruptArtifact("ids are not ascending")
    settings = readable({"curriculum": {"posterior": about["settings"]}})["curriculum"]["posterior"]
    posterior = Posterior(ids, groups, names, PosteriorConfig.model_validate(settings))
    posterior.step = int(about["step"])
    posterior.group_successes = np.array([row[2] for row in about["groups"]], dtype=np.float64)
    posterior.group_failures = np.array([row[3] for row in about["groups"]], dtype=np.float64)
    if "log_evidence" in about:
        posterior.memory.log_evidence = np.array(about["log_evidence"], dtype=np.float64)
    fill(posterior, slice(None), active)
    if "shifts" in about:
        _take_in_drift(posterior, np.array(about["shifts"], dtype=np.float64))
    if "predicted_strength" in about:
        posterior.predicted = active.column("offset").to_numpy().copy(), float(about["predicted_strength"])
    if archived.any():
        posterior.archive = table.filter(archived)
    return posterior


def _take_in_drift(posterior: Posterior, shifts: npt.NDArray[np.float64]) -> None:
    """Put into the counts what earlier versions could keep beside them, to move older counts by: a common shift of all
    pass rates, in logit, up to each step; shape (step + 1,)."""
    since = (shifts[-1] - shifts[np.maximum(posterior.touched, 0)])[:, None]
    fading = np.power(posterior.memory.fading, ages(posterior.step, posterior.touched))[:, None]
    right, wrong = posterior.right * fading, posterior.wrong * fading
    num = right + wrong
    before = (right + 0.5) / (num + 1)
    moved = np.clip(right + num * (special.expit(special.logit(before) + since) - before), 0.0, num)
    whole = np.where(fading > 0, fading, 1.0)
    posterior.right, posterior.wrong = moved / whole, (num - moved) / whole
