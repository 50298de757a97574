"""Faults that come from outside: broken prompt files, hostile answers, verifiers that hang, inputs that change."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cures_core.config.curriculum import PosteriorConfig
from cures_core.config.data import DataConfig
from cures_core.config.loading import load_config
from cures_core.config.rewards import MathConfig
from cures_core.config.storage import StoreConfig
from cures_core.curriculum import Posterior
from cures_core.curriculum.migration import migrate
from cures_core.errors import ConfigError, DataRejected
from cures_core.prompts import PromptSet, load_prompts
from cures_core.prompts.identity import make_prompt
from cures_core.rewards.pool import Pool
from tasks.runs.opening import identify, open_run
from tasks.runs.resume import resumed_config
from tests.cures_core.prompts.files import jsonl, reasons
from tests.cures_core.rewards.hostile import corpus
from tests.cures_core.rewards.processes import everything, workers
from tests.cures_core.rewards.test_hostile import run_gauntlet
from tests.cures_core.rewards.test_pool import FOUND, GOOD, HANGS
from tests.faults.harness import Try

Line = bytes
Rng = np.random.Generator


def _row(i: int) -> dict[str, Any]:
    return {"problem": f"How much is {i} and {i + 1}, Ann?", "answer": str(2 * i + 1)}


def _json(value: object) -> Line:
    return json.dumps(value).encode()


BROKEN: dict[str, Callable[[Rng, int], Line]] = {
    "cut": lambda rng, i: _json(_row(i))[: int(rng.integers(1, 20))],
    "nan": lambda rng, i: _json(_row(i))[:-1] + b', "x": NaN}',
    "no_answer": lambda rng, i: _json({"problem": _row(i)["problem"]}),
    "empty_answer": lambda rng, i: _json({**_row(i), "answer": " " * int(rng.integers(0, 3))}),
    "list": lambda rng, i: _json([_row(i)]),
    "number": lambda rng, i: _json(int(rng.integers(100))),
    "surrogate": lambda rng, i: _json({**_row(i), "problem": f"How much is \ud800 and {i}, Ann?"}),
    "not_utf8": lambda rng, i: b'{"problem": "\xff\xfe", "answer": "1"}',
    "twice_a_key": lambda rng, i: b'{"problem": "a", "problem": "b", "answer": "1"}',
    "object_answer": lambda rng, i: _json({**_row(i), "answer": {"value": 1}}),
    "nested": lambda rng, i: b'{"problem": ' + b"[" * 5000 + b"]" * 5000 + b', "answer": "1"}',
    "huge": lambda rng, i: _json({**_row(i), "problem": "x" * (3 << 20)}),
    "random_bytes": lambda rng, i: bytes(rng.integers(128, 256, int(rng.integers(1, 300)), dtype=np.uint8)),
    "nul": lambda rng, i: b"\0" * int(rng.integers(1, 50)),
}


def malformed_rows(t: Try) -> Mapping[str, int]:
    """Broken rows among good ones: each is told with its line and a reason, every good one is read, none is both."""
    number = int(t.rng.integers(20, 120))
    broken = {int(i): sorted(BROKEN)[int(t.rng.integers(len(BROKEN)))] for i in t.rng.integers(1, number + 1, 6)}
    lines = [BROKEN[broken[i]](t.rng, i) if i in broken else _json(_row(i)) for i in range(1, number + 1)]
    path = jsonl(t.folder / "set.jsonl", lines)
    if t.rng.random() < 0.3:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    before = path.read_bytes()
    found = load_prompts(DataConfig(path=str(path)))
    told = {defect.line for defect in found.quarantine}
    assert told == set(broken), (sorted(told ^ set(broken)), {i: broken.get(i) for i in told ^ set(broken)})
    assert len(found.prompts) == number - len(broken)
    assert found.rows_read == found.rejected + len(found.prompts) + found.dropped
    assert all(reasons(found)[line] for line in told)
    assert path.read_bytes() == before
    return {"broken_rows": len(broken)}


def random_bytes(t: Try) -> Mapping[str, int]:
    """A prompt file whose bytes were flipped, cut or joined anywhere: rows, or an error of ours; never a crash."""
    data = bytearray(b"".join(_json(_row(i)) + b"\n" for i in range(40)))
    for _ in range(int(t.rng.integers(1, 40))):
        place, kind = int(t.rng.integers(len(data))), int(t.rng.integers(3))
        if kind == 0:
            data[place] ^= 1 << int(t.rng.integers(8))
        elif kind == 1:
            del data[place : place + int(t.rng.integers(1, 30))]
        else:
            data[place:place] = t.rng.bytes(int(t.rng.integers(1, 10)))
    path = t.folder / ("set.jsonl", "set.json", "set.csv")[int(t.rng.integers(3))]
    path.write_bytes(bytes(data))
    try:
        found = load_prompts(DataConfig(path=str(path)))
    except (DataRejected, ConfigError) as error:
        if str(path) not in str(error):
            raise AssertionError(f"does not name the file: {error}") from error
        return {"refused": 1}
    assert found.rows_read == found.rejected + len(found.prompts) + found.dropped
    assert all(found.prompts[i].problem.strip() for i in range(len(found.prompts)))
    return {"read": 1}


# Verifiers.


def hostile_answers(t: Try) -> Mapping[str, int]:
    """Answers made to stall, crash, fool or break into a verifier, and good ones after them."""
    canary = t.folder / "canary"
    every = corpus(canary)
    chosen = [every[int(i)] for i in t.rng.choice(len(every), 10, replace=False)]
    run_gauntlet(chosen, num_good=10, cfg=MathConfig(timeout_s=1.5), canary=canary)
    return {"answers": len(chosen)}


def verifier_ends(t: Try) -> Mapping[str, int]:
    """A comparison that hangs, or whose process is killed: unknown in time, its process gone, the next judged right."""
    killed, timeout = bool(t.rng.random() < 0.5), float(t.rng.uniform(0.2, 0.6))
    pool = Pool(workers=1, timeout_s=timeout, memory_mb=512, work="regex")
    try:
        pool.run([GOOD])  # starts the template
        killer = threading.Timer(float(t.rng.uniform(0.0, timeout)), lambda: os.kill(int(workers()[0]), signal.SIGKILL))
        if killed:
            killer.start()
        started = time.monotonic()
        replies = pool.run([HANGS, GOOD, GOOD])
        assert time.monotonic() - started < timeout + 2.0
        killer.cancel()
        assert replies[0]["outcome"] == "unknown"
        assert replies[1:] == [FOUND, FOUND]
        assert len(workers()) == 1
    finally:
        pool.close()
    assert everything() == []
    return {"killed": int(killed), "hung": int(not killed)}


# Inputs that change under a run.

PROFILE = """
name = "edited"
[data]
path = "set.jsonl"
[policy]
type = "pretrained"
path = "model"
[rollout]
max_new_tokens = 4
[training]
learning_rate = 1e-3
"""


def changed_inputs(t: Try) -> Mapping[str, int]:
    """Prompts are edited, appended, removed or reordered, or a file of the policy (weights, tokenizer, template) is
    another one: the run is refused to go on, both digests named; the same command is another run; restored, it goes on.
    """
    rows = [_row(i) for i in range(10, 30)]
    (t.folder / "model").mkdir()
    files = ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json", "chat_template.jinja")
    for name in files:
        (t.folder / "model" / name).write_text(name)
    jsonl(t.folder / "set.jsonl", rows)
    (t.folder / "profile.toml").write_text(PROFILE)
    before = Path.cwd()
    os.chdir(t.folder)
    try:
        with open_run(load_config(Path("profile.toml"))) as run:
            name = run.name
        place = Path("set.jsonl") if t.rng.random() < 0.5 else Path("model", files[int(t.rng.integers(len(files)))])
        kept = place.read_bytes()
        if place.name == "set.jsonl":
            jsonl(place, edited(rows, t.rng))
        else:
            place.write_bytes(t.rng.bytes(int(t.rng.integers(1, 40))))
        assert place.read_bytes() != kept
        with pytest.raises(ConfigError, match=r"has changed since run .* then, .* now"):
            resumed_config(StoreConfig(), name)
        assert identify(load_config(Path("profile.toml"))).name != name
        place.write_bytes(kept)
        with open_run(resumed_config(StoreConfig(), name)) as run:
            assert run.name == name
    finally:
        os.chdir(before)
    return {place.name: 1}


def edited(rows: list[dict[str, Any]], rng: Rng) -> list[dict[str, Any]]:
    """Rows after one edit."""
    rows, place = [dict(row) for row in rows], int(rng.integers(len(rows)))
    match int(rng.integers(4)):
        case 0:
            rows[place]["answer"] = str(int(rows[place]["answer"]) + 1 + int(rng.integers(9)))
        case 1:
            rows.append(_row(int(rng.integers(100, 200))))
        case 2:
            del rows[place]
        case _:
            rows = rows[1:] + rows[:1]
    return rows


def migrated_posterior(t: Try) -> Mapping[str, int]:
    """After edits of the prompt set every unchanged prompt keeps its counts by its content, every new or edited one has
    none, every removed one is in the archive, and gets its counts back when it returns."""
    old_rows = [_row(i) for i in range(10, 10 + int(t.rng.integers(5, 60)))]
    new_rows = old_rows
    for _ in range(int(t.rng.integers(1, 8))):
        if len(new_rows) > 1:
            new_rows = edited(new_rows, t.rng)
    old, new = (PromptSet.of(unique(rows)) for rows in (old_rows, new_rows))
    cfg = PosteriorConfig()
    learnt = Posterior.fresh(old, cfg)
    learnt.update(old.ids, list(range(len(old))), [1] * len(old), step=1)
    after, counts = migrate(learnt, new, cfg)
    before_ids, after_ids = set(old.ids), set(new.ids)
    assert counts["kept"] == len(before_ids & after_ids)
    assert counts["new"] == len(after_ids - before_ids)
    assert counts["archived"] == len(before_ids - after_ids)
    fresh = sorted(after_ids - before_ids)
    assert not after.right[after.rows(fresh)].any()
    back, again = migrate(after, old, cfg)
    assert again["restored"] == len(before_ids - after_ids)
    kept = learnt.right[learnt.rows(list(old.ids))] > 0
    assert (back.right[back.rows(list(old.ids))] > 0).tolist() == kept.tolist()
    return {name: counts[name] for name in ("kept", "new", "archived")}


def unique(rows: list[dict[str, Any]]) -> list[Any]:
    prompts = [make_prompt(row["problem"], row["answer"]) for row in rows]
    return list({prompt.id: prompt for prompt in prompts}.values())
