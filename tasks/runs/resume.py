"""Going on with a run: as it is, with other operations and placements, or as a fork with other results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cures_core.config.loading import with_overrides
from cures_core.config.marks import Change, Mark, changes, is_within
from cures_core.config.run import RunConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError
from cures_core.files import digest_json
from tasks.inputs.digests import DATA, FLAGS, POLICY, Input
from tasks.runs.forks import fork
from tasks.runs.notes import Started, read_started
from tasks.runs.opening import identify, usable_config
from tasks.storage import open_store


def resumed_config(store_cfg: StoreConfig, name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration with which run `name` goes on: its own, with `overrides` (KEY=VALUE).

    Operations and placements may change, and the run stays the same. Where a result changes, it is the configuration of
    a fork: a run of its own, which takes over what is committed and the newest healthy checkpoint of the epoch that was
    broken off. So is that of a run which another version has started. Raises `ConfigError` where there is no such run,
    for a setting that cannot change or that this version does not have, and for an input that is not what it was.
    """
    store = open_store(store_cfg)
    first = read_started(store, name)
    before = usable_config(store, name)
    # The store that was named is where the run is, whatever it was called before.
    place = {**before.store.model_dump(), **store_cfg.model_dump(exclude_unset=True), "url": store_cfg.url}
    before = before.model_copy(update={"store": StoreConfig.model_validate(place)})
    after = with_overrides(before, overrides)
    changed = changes(before, after)
    for change in changed:
        _check(name, change)
    identity = identify(after)
    _check_inputs(first, name, after, identity.inputs, {change.path for change in changed})
    results = [change for change in changed if change.mark is Mark.RESULT]
    if results or identity.name != name:
        return fork(store, name, before, after, results)
    return after


def _check(name: str, change: Change) -> None:
    """Raises `ConfigError` where a setting cannot change under a run."""
    new = "start a new run with --config; what is equal is not done again"
    if change.path == "name":
        raise ConfigError(f"name: run {name} is called after it; {new}")
    if is_within(change.path, ("fork",)):
        raise ConfigError(f"{change.path}: says where the run came from; {new}")
    if change.settled:
        raise ConfigError(f"{change.path}: cannot change while run {name} goes on: {change.settled}; {new}")


def _check_inputs(first: Started, name: str, cfg: RunConfig, now: Mapping[str, Input], changed: set[str]) -> None:
    """Raises `ConfigError` for an input that is not what it was when the run was started."""
    then = first.inputs or _of_older_run(first, now)
    for setting in sorted({*then, *(now if first.inputs else ())}):
        old, new = then.get(setting), now.get(setting)
        if old == (None if new is None else new.digest) or setting in changed:
            continue
        called = new.name if new is not None else _called(cfg, setting)
        values = f"{_short(old)} then, {_short(None if new is None else new.digest)} now"
        raise ConfigError(
            f"{called} has changed since run {name} was started ({setting}: {values}). Restore it to resume, or start "
            "a new run with --config"
        )


def _of_older_run(first: Started, now: Mapping[str, Input]) -> dict[str, str]:
    """Runs of earlier versions know one digest: of the prompt set, together with the flags where there is a list."""
    data, flags = now[DATA].digest, now.get(FLAGS)
    known = data if flags is None else digest_json([data, flags.digest])
    return {DATA: data if known == first.data_digest else first.data_digest}


def _called(cfg: RunConfig, setting: str) -> str:
    """What an input was called that is there no more."""
    if setting.startswith(POLICY):
        return f"{getattr(cfg.policy, 'path', 'the policy')}/{setting.removeprefix(POLICY)}"
    return setting


def _short(digest: str | None) -> str:
    return "absent" if digest is None else digest[:12]
