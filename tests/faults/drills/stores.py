"""Faults of stores, leases and snapshots: other writers, clocks that jump, damage, outages. No training in here."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from cures_core.config.snapshot import SnapshotConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, CorruptArtifact, MissingInput, StoreUnavailable
from cures_core.testing.store import folder_of
from tasks.registry.history import pointer_key
from tasks.runs.verify import Finding, verify
from tasks.snapshots import publish_snapshot, read_snapshot
from tasks.storage import LocalStore, S3Store
from tasks.storage import s3_client as client_module
from tasks.storage.fencing import commit
from tests.faults.drills.jobs import damage
from tests.faults.harness import Try
from tests.tasks.runs.test_verify import add_others, held, make, read_all
from tests.tasks.storage.servers import BUCKET, KEYS, Action, FaultyServer, moto
from tests.tasks.storage.simulation import Commit, World
from tests.tasks.storage.test_lease import OPERATIONS, start, wait_until_stopped
from tests.tasks.storage.test_lease import run as run_worker
from tests.tasks.storage.test_schedules import promoting

# Two or more writers.


def schedule(t: Try) -> Mapping[str, int]:
    """Three workers on one run, stopped and killed between any two operations; half of the schedules promote."""
    promotes = bool(t.rng.random() < 0.5)
    how: Commit = promoting(lambda store, name, token: partial(commit, store, name, token)) if promotes else commit
    return _played(World(int(t.rng.integers(1 << 31)), how))


def clock_steps(t: Try) -> Mapping[str, int]:
    """The same, while the clocks of machines jump by up to an hour, the one that leases go by included."""
    return _played(World(int(t.rng.integers(1 << 31)), commit, clock_steps=True))


def _played(world: World) -> Mapping[str, int]:
    world.run()
    assert world.violations == []
    history = json.loads(world.values.get(pointer_key("m"), b'{"history":[]}'))["history"]
    assert [entry["version"] for entry in history] == list(range(1, len(history) + 1))
    tokens = [int(entry["run"]) for entry in history]
    assert tokens == sorted(tokens)
    return {"takeovers": world.takeovers, "leases_lost": world.lost, "commits": len(world.claims)}


def two_workers(t: Try) -> Mapping[str, int]:
    """Two processes; the first is killed, or stands still past its lease, before a random operation of its commit."""
    store = LocalStore(t.folder / "store")
    operation, killed = str(int(t.rng.integers(len(OPERATIONS)))), bool(t.rng.random() < 0.5)
    ttl = 60 if killed else 1.0
    first = start(store, "first", ttl, "SIGKILL" if killed else "SIGSTOP", operation)
    assert first.stdout is not None
    token = int(first.stdout.readline().removeprefix("held "))
    first.wait(timeout=60) if killed else wait_until_stopped(first)
    second = run_worker(store, "second", ttl, 60)
    assert second[0] == f"held {token + 1}"
    value = store.get("record")
    if not killed:
        os.kill(first.pid, signal.SIGCONT)
    rest = first.stdout.read()
    first.wait(timeout=60)
    first.stdout.close()
    assert store.get("record") == value
    assert (second[1] == "committed True") is (value == b"second")
    assert killed or ("committed True" in rest) is (value == b"first")
    return {"killed": int(killed), "stopped": int(not killed)}


# Damage.


@cache
def small_store(bench: Path) -> tuple[Path, str]:
    """A store with a run of seven stages, two versions of a model, completions and their cache, and what others than
    runs keep there; its folder and run."""
    (bench / "small").mkdir()
    before = Path.cwd()
    os.chdir(bench / "small")
    try:
        run = make(bench / "small")
        add_others(run, bench / "small")
    finally:
        os.chdir(before)
    return Path(run.config.store.url), run.name


def damage_small(t: Try) -> Mapping[str, int]:
    return damage_in(t, *small_store(t.bench))


SILENT = ("evaluations/", "leases/", "flow-runs/", "retrainings/", "unfinished/")
"""Places of which nothing else tells that they are gone: a cache, leases given back, what was read or decided first,
and what an epoch that was broken off has left."""


def damage_in(t: Try, whole: Path, run: str) -> Mapping[str, int]:
    """One file of a finished run's store is damaged: `cures runs verify` names it (of a snapshot its tag) with a remedy
    that is a command, commands that read end with an error of ours or the truth, and nobody but the next holder of its
    stage changes a thing."""
    root = t.folder / "store"
    shutil.copytree(whole, root)
    kinds = files_by_kind(root)
    kind = sorted(kinds)[int(t.rng.integers(len(kinds)))]
    path = kinds[kind][int(t.rng.integers(len(kinds[kind])))]
    place = path.relative_to(root).as_posix()
    damage(path, t.rng)
    before = held(root)
    found = verify(StoreConfig(url=str(root))).damaged
    silent = not path.exists() and place.startswith(SILENT)
    named = [finding for finding in found if names(finding, place)]
    assert named or silent, f"{place}: not told; what was told: {found}"
    assert all(re.search(r"\bcures \w+|nothing to do: ", finding.remedy) for finding in found), found
    read_all(LocalStore(root), run)
    assert held(root) == before, "a reader changed something"
    return {kind: 1, "told": int(bool(named)), "gone_without_trace": int(not named)}


def names(finding: Finding, place: str) -> bool:
    """Does a finding say which file it is? Files of snapshots lie under digests: their tags are named."""
    if place.startswith(("dvc/", "snapshots.git/")):
        return finding.place.startswith("posterior/")
    return place.startswith(finding.place) or place in f"{finding.place} {finding.fault}"


def files_by_kind(root: Path) -> dict[str, list[Path]]:
    """Every file of a store that somebody has to be able to rely on, by what it is."""
    kinds: dict[str, list[Path]] = {}
    for place in held(root):
        path = root / place
        if (kind := kind_of(place)) and path.stat().st_size:
            kinds.setdefault(kind, []).append(path)
    return kinds


def kind_of(place: str) -> str:
    """What a file of a store is; empty for what nobody reads back."""
    first, _, rest = place.partition("/")
    name = place.rsplit("/", 1)[-1]
    match first:
        case "runs":
            return "notes" if "/stages/" in rest else name.removesuffix(".json")
        case "artifacts":
            return name.partition("-")[0].partition(".")[0]
        case "snapshots.git":
            return "git_objects" if rest.startswith("objects/") and not rest.startswith("objects/info") else ""
        case (
            "stages"
            | "models"
            | "evaluations"
            | "leases"
            | "dvc"
            | "forks"
            | "unfinished"
            | "published"
            | "flow-runs"
            | "retrainings"
        ):
            return first
        case _:
            return ""


# Snapshots.


def partial_push(t: Try) -> Mapping[str, int]:
    """Killed while a posterior is pushed and tagged: the tag is there with its data, or not at all; then done again."""
    cfg = SnapshotConfig().within(str(t.folder / "store"))
    parquet, tag = t.folder / "posterior.parquet", "posterior/run/0"
    parquet.write_bytes(t.rng.bytes(int(t.rng.integers(1, 200_000))))

    def publish() -> None:
        publish_snapshot(parquet, {"run": "run"}, tag, cfg, t.folder / "scratch")

    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            publish()
        finally:
            os._exit(0)
    time.sleep(float(t.rng.uniform(0, _push_seconds(t.bench))))
    for kill in (partial(os.killpg, child), partial(os.kill, child)):
        try:
            kill(signal.SIGKILL)
        except ProcessLookupError:
            continue
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    data = parquet.read_bytes()
    try:
        tagged = read_snapshot(tag, cfg) == data
        assert tagged
    except (MissingInput, StoreUnavailable):  # no such tag, or not even a repository
        tagged = False
    publish()
    assert read_snapshot(tag, cfg) == data
    return {"killed": int(killed), "tagged_before": int(tagged)}


@cache
def _push_seconds(bench: Path) -> float:
    (bench / "push").mkdir()
    (bench / "push" / "p.parquet").write_bytes(b"x" * 1000)
    cfg, started = SnapshotConfig().within(str(bench / "push" / "store")), time.monotonic()
    publish_snapshot(bench / "push" / "p.parquet", {}, "posterior/a/0", cfg, bench / "push" / "scratch")
    return time.monotonic() - started


# S3 through a server that fails as it is told.


@contextmanager
def short_pauses() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module, "_FIRST_PAUSE_S", 0.01)
        patch.setattr(client_module, "OUTAGE_S", 3.0)
        yield


class Weather:
    """For each request, by chance, what becomes of it."""

    def __init__(self, rng: np.random.Generator, kinds: tuple[Action, ...], share: float) -> None:
        self._rng, self._kinds, self._share = rng, kinds, share
        self._lock = threading.Lock()
        self.calm = False
        self.faults = 0

    def __call__(self, number: int, method: str) -> Action:
        with self._lock:
            if self.calm or self._rng.random() > self._share:
                return None
            self.faults += 1
            return self._kinds[int(self._rng.integers(len(self._kinds)))]


PASSING: tuple[Action, ...] = (
    (503, "SlowDown"),
    (500, "InternalError"),
    (429, "TooManyRequests"),
    "lose",
    "cut",
    "slow",
)


def s3_weather(t: Try) -> Mapping[str, int]:
    """A stage's publication while the server is slow, refuses, loses and cuts answers: it comes to its end, or is told
    as an outage; then it can be done again, and what a reader finds is whole or not there."""
    weather = Weather(t.rng, PASSING, float(t.rng.uniform(0.05, 0.5)))
    files = {f"f{i}": t.rng.bytes(int(t.rng.integers(1, 50_000))) for i in range(4)}
    outages = 0
    with moto() as behind, short_pauses(), FaultyServer(behind, weather) as server:
        place = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        calm = S3Store(place, t.folder / "calm", behind)
        store = S3Store(place, t.folder / "cache", server.url, deadline_s=3.0)
        folder = folder_of(t.folder / "in", files)
        for _ in range(20):
            try:
                manifest = store.publish_files("art/a", folder)
                if store.compare_and_swap("record", None, manifest.encode()) or store.get("record"):
                    break
            except StoreUnavailable:
                outages += 1
                if (record := calm.get("record")) is not None:
                    calm.verify_files("art/a", record.decode())
        else:
            weather.calm = True
            store.compare_and_swap("record", None, store.publish_files("art/a", folder).encode())
        record = calm.get("record")
        assert record is not None
        calm.verify_files("art/a", record.decode())
        read = calm.local_path("art/a")
        assert {name: (read / name).read_bytes() for name in files} == files
    return {"faults": weather.faults, "outages_told": outages}


REFUSALS: tuple[tuple[int, str], ...] = ((403, "AccessDenied"), (403, "InvalidAccessKeyId"), (400, "ExpiredToken"))


def s3_refuses(t: Try) -> Mapping[str, int]:
    """The server begins to refuse the caller at a random request: told within ten seconds, once a call, with bucket and
    caller and without a secret; afterwards what was there is there."""
    first, refusal = int(t.rng.integers(12)), REFUSALS[int(t.rng.integers(len(REFUSALS)))]
    refusing = True

    def plan(number: int, _: str) -> Action:
        return refusal if refusing and number >= first else None

    with moto() as behind, short_pauses(), FaultyServer(behind, plan) as server:
        place = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        store = S3Store(place, t.folder / "cache", server.url)
        folder = folder_of(t.folder / "in", {"a": b"1" * 1000, "b": b"2" * 1000})
        steps: list[Callable[[], object]] = [
            lambda: store.publish_files("art/a", folder),
            lambda: store.put_if_absent("record", b"r"),
            lambda: store.verify_files("art/a"),
            lambda: list(store.list("art")),
        ]
        told = list[str]()
        for step in steps:
            before, started = len(server.requests), time.monotonic()
            try:
                step()
            except ConfigError as error:
                told.append(str(error))
            except CorruptArtifact:  # what was refused was not published
                assert told
            assert time.monotonic() - started < 10
            assert len(server.requests) - before < 12, "a storm of retries"
        assert all(place in text and not any(secret in text for secret in KEYS.values()) for text in told)
        refusing = False
        manifest = store.publish_files("art/a", folder)
        store.verify_files("art/a", manifest)
    return {"told": len(told)}
