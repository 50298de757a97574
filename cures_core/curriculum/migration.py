"""A posterior for a changed prompt set: same content keeps its evidence, new prompts get the pooled prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum.posterior import ALIVE, NEVER, Posterior, encoded
from cures_core.curriculum.posterior_file import active_rows, fill
from cures_core.prompts import PromptSet


def migrate(old: Posterior, prompts: PromptSet, cfg: PosteriorConfig) -> tuple[Posterior, dict[str, int]]:
    """The posterior of `prompts` with what `old` knows of them, and how many were kept, restored, new and archived.

    Time starts again: evidence is faded up to the end of `old` and then counts as of step 0. A prompt that has left
    goes to the archive; if its content returns, so does its evidence. Under another `dead_prior` what speaks for a
    prompt's being dead is kept too; where the old one was 0, that is nothing.
    """
    new = Posterior.fresh(prompts, cfg)
    if old.memory.log_evidence.shape == new.memory.log_evidence.shape:
        new.memory.log_evidence = old.memory.log_evidence.copy()
    known = _at_share_of(new, _as_of_now(active_rows(old), old), old)
    archived = None if old.archive is None else _at_share_of(new, old.archive, old)
    if old.predicted is not None:
        new.predicted = np.zeros(len(new)), old.predicted[1]  # new prompts: as their group, until they are predicted
    kept = _take(new, known)
    restored = 0 if archived is None else _take(new, archived)
    _take_groups(new, old)
    left = known.filter(pc.invert(_among(known, new)))
    parts = [left] if archived is None else [left, archived.filter(pc.invert(_among(archived, new)))]
    archive = pa.concat_tables(parts)
    archive = archive.set_column(archive.column_names.index("archived"), "archived", [[True] * archive.num_rows])
    new.archive = archive.cast(known.schema) if archive.num_rows else None
    counts = {"kept": kept, "restored": restored, "new": len(new) - kept - restored, "archived": left.num_rows}
    return new, counts


def renamed(posterior: Posterior, names: Mapping[str, str]) -> Posterior:
    """The same posterior with its prompts under other ids, where `names` has one that no other prompt has."""
    olds = [x.decode() for x in posterior.ids.tolist()]
    taken = set(olds)
    ids = []
    for old in olds:
        new = names.get(old, old)
        ids.append(old if new in taken else new)
        taken.add(ids[-1])
    order = np.argsort(encoded(ids), kind="stable")
    new_one = Posterior(encoded(ids)[order], posterior.groups[order], posterior.group_names, posterior.cfg)
    for name in ("right", "wrong", "touched", "dead_log_odds"):
        setattr(new_one, name, getattr(posterior, name)[order].copy())
    new_one.group_successes, new_one.group_failures = posterior.group_successes.copy(), posterior.group_failures.copy()
    new_one.step = posterior.step
    new_one.fit_dead_prior()
    new_one.memory.log_evidence = posterior.memory.log_evidence.copy()
    if posterior.predicted is not None:
        new_one.predicted = posterior.predicted[0][order].copy(), posterior.predicted[1]
    new_one.archive = posterior.archive
    return new_one


def _as_of_now(rows: pa.Table, posterior: Posterior) -> pa.Table:
    """All rows with their counts as of the posterior's step, which becomes step 0; an archive holds only such rows."""
    step = rows.column("step").to_numpy()
    right, wrong = posterior.own_counts()
    changed = {
        "successes": right,
        "failures": wrong,
        "dead_log_odds": posterior.dead_odds_to_keep(),
        "step": np.where(step == NEVER, NEVER, 0),
    }
    return _changed(rows, changed)


def _at_share_of(new: Posterior, rows: pa.Table, old: Posterior) -> pa.Table:
    """Rows of `old` with their evidence for being dead at the share of dead prompts that `new` starts from."""
    before, now = old.first_dead_odds, new.first_dead_odds
    if now == before:
        return rows
    odds, visited = rows.column("dead_log_odds").to_numpy(), rows.column("step").to_numpy() != NEVER
    # Who suspected nothing wrote down no acquittals either.
    alive = rows.column("successes").to_numpy() > 0 if before == ALIVE else visited & (odds == ALIVE)
    moved = now + np.where(visited, odds - before, 0.0)
    return _changed(rows, {"dead_log_odds": np.where(alive | (now == ALIVE), ALIVE, moved)})


def _changed(rows: pa.Table, columns: Mapping[str, npt.NDArray[Any]]) -> pa.Table:
    for name, values in columns.items():
        place = rows.column_names.index(name)
        rows = rows.set_column(place, rows.schema.field(place), pa.array(values, rows.schema.field(place).type))
    return rows


def _among(table: pa.Table, posterior: Posterior) -> pa.ChunkedArray:
    return pc.is_in(table.column("id"), pa.array([x.decode() for x in posterior.ids.tolist()], pa.string()))


def _take(new: Posterior, table: pa.Table) -> int:
    known = table.filter(_among(table, new))
    if known.num_rows:
        rows = new.rows(known.column("id").to_pylist())
        fill(new, rows, known)
        if new.predicted is not None:
            new.predicted[0][rows] = known.column("offset").to_numpy()
    return int(known.num_rows)


def _take_groups(new: Posterior, old: Posterior) -> None:
    index = {name: i for i, name in enumerate(old.group_names)}
    for i, name in enumerate(new.group_names):
        if name in index:
            new.group_successes[i] = old.group_successes[index[name]]
            new.group_failures[i] = old.group_failures[index[name]]
