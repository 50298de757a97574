"""A posterior that was learnt outside of the pipeline is published like a run's."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cures_core.config.data import PromptFile
from cures_core.config.snapshot import SnapshotConfig
from cures_core.config.storage import StoreConfig
from cures_core.curriculum import load_posterior, migrate, save_posterior
from cures_core.curriculum.migration import renamed
from cures_core.errors import ConfigError, DataRejected
from cures_core.files import digest_file, digest_json
from cures_core.jobs.assemble import versions
from cures_core.prompts import Loaded, content_id, load_prompts, require_acceptable
from cures_core.prompts.columns import MISSING, ColumnMap, pick
from cures_core.prompts.naming import content_of
from cures_core.prompts.reading import open_rows
from cures_core.secrets import secret_in_url
from tasks.inputs.prompt_files import Inputs
from tasks.runs.figures import SnapshotFigures
from tasks.snapshots.objects import digest_md5
from tasks.snapshots.publish import publish_snapshot
from tasks.snapshots.published import ABOUT, PARTS, published_place
from tasks.snapshots.reading import Snapshot, list_snapshots
from tasks.storage import Store, open_store
from tasks.storage.values import encode_value

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,59}")


@dataclass(frozen=True)
class Published:
    """Where a posterior has gone, and how many of its prompts are of the set, or only kept in its archive."""

    tag: str
    commit: str
    remote: str
    prompts: int
    known: int
    archived: int


def publish_outside(
    file: Path, data: PromptFile, name: str, store_cfg: StoreConfig, snapshot: SnapshotConfig, trainer: str, policy: str
) -> Published:
    """Publish the posterior in `file` as the next one of `name`, over the prompts of `data`.

    Its prompts are matched by content (as `Curriculum.from_table` names them) or by the set's column of ids
    (`data.columns.id`). Publishing the same again returns what is there. Raises `ConfigError` where `name` is a run's
    or is no name and where `trainer` or `policy` is an address with a secret, `DataRejected` where the prompt set is
    bad or none of its prompts is known.
    """
    for option, said in (("trainer", trainer), ("policy", policy)):
        if found := secret_in_url(said):
            raise ConfigError(f"--{option}: holds {found}: the lineage is kept and pushed, so leave it out")
    store, places = open_store(store_cfg), snapshot.within(store_cfg.url, store_cfg.endpoint_url)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name {name[:80]!r}: use up to 60 small letters, digits, '.' and '-'")
    if store.get(f"runs/{name}/run.json") is not None:
        raise ConfigError(f"{name} is a run of this store: publish under another name")
    learnt = load_posterior(file)
    path = Inputs(Path(store_cfg.folder) / "inputs", store_cfg.endpoint_url).local(data.path)
    loaded = load_prompts(data, source=path)
    require_acceptable(loaded, data)
    posterior, moved = migrate(renamed(learnt, _content_ids(data, path, loaded)), loaded.prompts, learnt.cfg)
    known = moved["kept"] + moved["restored"]
    if not known:
        raise DataRejected(
            f"{file}: none of its {len(learnt):,} prompts is in {data.path}. Name the column that holds its ids "
            "(--id), or the columns whose content they were made from (--problem, --answer)"
        )
    lineage = {
        "step": learnt.step,
        "policy": policy or None,
        "weights": None,
        "prompts": loaded.prompts.digest,
        "config": digest_json(learnt.cfg.model_dump(mode="json")),
        "trainer": trainer or None,
        "learnt": {"file": digest_file(file), "prompts": len(learnt), "known": known},
        "versions": versions(),
        "created_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    with tempfile.TemporaryDirectory(prefix="cures-publish-") as folder:
        save_posterior(posterior, Path(folder) / "posterior.parquet")
        loaded.prompts.write_parquet(Path(folder) / "prompts.parquet")
        tag, done = _publish(Path(folder), name, store, snapshot, places, lineage)
    return Published(tag, done.commit, done.remote, len(loaded.prompts), known, moved["archived"])


def _publish(
    folder: Path,
    name: str,
    store: Store,
    named: SnapshotConfig,
    places: SnapshotConfig,
    lineage: Mapping[str, object],
) -> tuple[str, SnapshotFigures]:
    """(tag, what `publish_snapshot` says): the next number, or the latest one where that is this posterior already."""
    parquet = folder / "posterior.parquet"
    files = {part: (folder / part).read_bytes() for part in PARTS}
    latest = max((s for s in list_snapshots(places) if s.lineage.get("run") == name), key=_number, default=None)
    if latest is not None and latest.md5 == digest_md5(files[parquet.name]):
        tag, lineage = latest.tag, dict(latest.lineage)
    else:
        k = 0 if latest is None else _number(latest) + 1
        own = {"run": name, "epoch": k, "parent": None if latest is None else latest.tag}
        tag, lineage = f"posterior/{name}/{k}", {**own, "posterior": digest_file(parquet), **lineage}
    place = published_place(name, int(tag.rsplit("/", 1)[1]))
    for part, data in files.items():
        store.put(f"{place}/{part}", data)
    done = publish_snapshot(parquet, lineage, tag, places, folder / "scratch")
    sums = {part: hashlib.sha256(data).hexdigest() for part, data in files.items()}
    # Without the defaults that follow from the store's place: it may be moved.
    about = {"snapshot": named.model_dump(mode="json"), "lineage": dict(lineage), "sha256": sums}
    store.put(f"{place}/{ABOUT}", encode_value(about))
    return tag, done


def _number(snapshot: Snapshot) -> int:
    return int(snapshot.tag.rsplit("/", 1)[1])


def _content_ids(data: PromptFile, path: Path, loaded: Loaded) -> dict[str, str]:
    """Content id of a kept row by each name that a posterior may have for it."""
    clean = dict(zip(np.asarray(loaded.lines).tolist(), loaded.prompts.ids, strict=True))
    opened = open_rows(data, path)
    names: dict[str, str] = {}
    for row in opened.rows:
        if row.record is not None and row.line in clean:
            for name in [*_possible_names(row.record, opened.cfg, opened.columns), clean[row.line]]:
                names.setdefault(name, clean[row.line])
    return names


def _possible_names(record: Mapping[str, object], cfg: PromptFile, columns: ColumnMap) -> list[str]:
    """The publisher's id, and content ids with and without the answer: of the content as `Curriculum.from_table` takes
    it by the set's rule and by its own, and of the texts as they stand in the file."""
    problem, answer, turns = (pick(record, name) for name in (columns.problem, columns.answer, columns.turns))
    own = pick(record, columns.id)
    names = [] if own is None or own is MISSING else [str(own)]
    for gold in (answer, None):
        names += [content_of(problem, gold, turns, rule, "field").id for rule in (cfg.problem_rule, None)]
        if isinstance(problem, str):
            names.append(content_id(problem, "" if gold is None else str(gold)))
    return names
