"""What judging answers costs: the verifier in its processes against math-verify called in this one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.verifier_speed import measure
from cures_core.config.data import DataConfig
from cures_core.config.rewards import MathConfig
from cures_core.errors import DataRejected
from cures_core.prompts import load_prompts
from cures_core.rewards import make_verifier

Item = tuple[str, str]

_MODEL_LIKE = (
    "Let us go step by step. We collect the terms and simplify.\n\nThus the answer is $\\boxed{{{}}}$.",
    "We get ${}$.\n\nThe answer is \\boxed{{{}}}",
    "First we set up the equation, then we solve it.\nFinal answer: \\boxed{{ {} }}.",
)


def items_of(paths: Sequence[str], num: int) -> list[Item]:
    """`num` pairs (completion, gold) from the gold answers of prompt files, in the form models write them.

    Every third completion gives the gold answer of another prompt, so most of those are wrong. Answers recur where the
    files hold fewer than `num`, under other gold answers. Raises `DataRejected` where the files hold no two answers.
    """
    golds = [prompt.answer for path in paths for prompt in load_prompts(DataConfig(path=path)).prompts]
    if len(golds) < 2:
        raise DataRejected(f"{', '.join(paths)}: fewer than two usable answers; name a larger prompt set")
    made = []
    for i in range(num):
        turn, place = divmod(i, len(golds))
        gold = golds[place]
        answer = golds[(place + 1 + turn) % len(golds)] if i % 3 == 2 else gold
        made.append((model_like(i + turn, answer), gold))
    return made


def model_like(i: int, answer: str) -> str:
    """A completion that ends in `answer`, in the `i`-th of the forms that models write."""
    form = _MODEL_LIKE[i % len(_MODEL_LIKE)]
    return form.replace("{{", "{").replace("}}", "}").replace("{}", answer)


def compare(items: Sequence[Item], workers: int) -> dict[str, Any]:
    """Figures of the `math` verifier and of math-verify in this process, on the same items; call it in a main thread.

    `ratio` is completions a second in one batch over those of math-verify; `isolation_ms` is what crossing to another
    process and back costs, in milliseconds.
    """
    cfg = MathConfig(workers=workers)
    with make_verifier(cfg) as alone, make_verifier(cfg) as batch:
        speed = measure(alone, items, batch)
    theirs_s, agreed = _in_process(items)
    return {
        "workers": workers,
        **{name: _short(value) for name, value in asdict(speed).items()},
        "math_verify_per_s": round(len(items) / theirs_s, 1),
        "math_verify_correct": agreed,
        "ratio": round(speed.batch_per_s * theirs_s / len(items), 2),
        "isolation_ms": round(1000 * _isolation_s(cfg), 3),
    }


def _in_process(items: Sequence[Item]) -> tuple[float, int]:
    """(seconds, number judged correct) of math-verify as its documentation calls it."""
    from math_verify import parse, verify

    verify(parse("$w+1$"), parse(r"\boxed{1+w}"))
    start = time.perf_counter()
    correct = sum(bool(verify(parse(f"${gold}$"), parse(completion))) for completion, gold in items)
    return time.perf_counter() - start, correct


def _isolation_s(cfg: MathConfig, rounds: int = 200) -> float:
    """Seconds of the fastest round trip to a worker that has nothing to compute: the way there and back alone.

    A difference of two comparisons, one there and one here, would also hold what tells the two processes apart: this
    one has more for the garbage collector to walk through, which can outweigh a crossing.
    """
    from cures_core.rewards.pool import Pool

    job = {"pattern": "x", "text": "x"}
    pool = Pool(1, cfg.timeout_s, cfg.memory_mb)
    try:
        pool.run([job])  # forks the worker
        trips = []
        for _ in range(rounds):
            start = time.perf_counter()
            pool.run([job])
            trips.append(time.perf_counter() - start)
    finally:
        pool.close()
    return min(trips)


def _short(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value
