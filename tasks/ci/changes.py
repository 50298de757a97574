"""What a change of the prompt set amounts to: ids by fate, whether a run is due, and the key that names the change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from cures_core.config.marks import is_within
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from cures_core.files import digest_file, digest_json
from cures_core.names import inside
from cures_core.own_code import keyed
from cures_core.prompts import PromptSet, load_prompts
from cures_core.prompts.diff import difference
from cures_core.rewards import make_verifier
from tasks.ci.retraining import PLACES
from tasks.inputs.prompt_files import is_elsewhere
from tasks.inputs.revisions import file_at, is_no_commit


class EditedPrompt(TypedDict):
    """A prompt whose text has changed."""

    old: str
    new: str
    what: str


class ChangedIds(TypedDict):
    """Ids by fate."""

    edited: list[EditedPrompt]
    relabelled: list[str]
    new: list[str]
    removed: list[str]


class Side(TypedDict):
    """The prompt set at one revision."""

    digest: str
    prompts: int


class PromptChanges(TypedDict):
    """What lies between two revisions."""

    changed: bool
    due: bool
    """Is a retraining due?"""
    reasons: list[str]
    counts: dict[str, int]
    ids: ChangedIds
    suites: list[str]
    """Names of the changed ones."""
    before: Side
    after: Side
    key: str
    """See `change_key`."""


def changes(config: RunConfig, base: str, head: str, folder: Path) -> PromptChanges:
    """Compare the configuration's prompt set and suites at two revisions; `folder` gets the files.

    Where `base` is no commit, as before the first push of a branch, everything is new.
    """
    if elsewhere := [s.path for s in (config.data, *config.evaluation.suites) if is_elsewhere(s.path)]:
        raise ConfigError(f"{elsewhere[0]}: not a path of this repository, so its revisions cannot be compared")
    sets = {}
    with make_verifier(config.reward) as verifier:
        for side, revision in (("base", base), ("head", head)):
            if is_no_commit(revision):
                sets[side] = PromptSet.of(())
                continue
            path = file_at(revision, config.data.path, inside(folder / side, Path(config.data.path).name, "data.path"))
            data = config.data.model_copy(update={"path": str(path)})
            sets[side] = load_prompts(data, judge=verifier, check_golds=False).prompts
    found = difference(sets["base"], sets["head"])
    before, after = (
        _suites(config, revision, folder / "suites" / side) for side, revision in (("base", base), ("head", head))
    )
    suites = tuple(name for name, digest in after.items() if before.get(name) != digest)
    changed = len(found.edited) + len(found.new) + len(found.removed)
    reasons = config.retrain.reasons(changed, len(sets["base"]), suites)
    return {
        "changed": bool(changed or suites or found.relabelled),
        "due": bool(reasons),
        "reasons": reasons,
        "counts": found.counts(),
        "ids": {
            "edited": [{"old": e.old.id, "new": e.new.id, "what": e.what} for e in found.edited],
            "relabelled": [p.id for p, _ in found.relabelled],
            "new": [p.id for p in found.new],
            "removed": [p.id for p in found.removed],
        },
        "suites": list(suites),
        "before": {"digest": sets["base"].digest, "prompts": len(sets["base"])},
        "after": {"digest": sets["head"].digest, "prompts": len(sets["head"])},
        "key": change_key(config, sets["head"].digest, after),
    }


def change_key(config: RunConfig, dataset_digest: str, suites: Mapping[str, str]) -> str:
    """Names a retraining: equal for equal prompts, suites (digests by name) and settings that decide results, whoever
    asks, on what machine and how often: the deployment's is what trains."""
    trained = {name: value for name, value in keyed(config).items() if not is_within(name, PLACES)}
    return digest_json({"dataset": dataset_digest, "suites": suites, "config": trained})[:32]


def _suites(config: RunConfig, revision: str, folder: Path) -> dict[str, str]:
    """Digests of the suites' files at a revision, by name; none where it is no commit."""
    if is_no_commit(revision):
        return {}
    return {s.name: digest_file(file_at(revision, s.path, folder / s.name)) for s in config.evaluation.suites}
