"""What the curriculum costs: time to ask and to tell, and memory, by the size of the pool. No policy is involved."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.pretend import answered, pretend_prompts
from cures_core.config.curriculum import CuresConfig
from cures_core.curriculum import Curriculum, Posterior, make_curriculum
from cures_core.peak_memory import peak_bytes

_ROLLOUTS = 8


def measure(num: int, num_drawn: int, rounds: int = 20) -> dict[str, float]:
    """Median milliseconds of `ask` and `tell` over `rounds` steps of `num_drawn` prompts out of `num`, with the default
    strategy, and the resident memory at the end in MiB. Every ask follows a tell that has changed `num_drawn` rows.
    `library_ms`: ask, tells and ready of such a step through `Curriculum`, in processor time."""
    numbers = np.arange(num)
    prompts = pretend_prompts(numbers % 20, numbers // 20 % 5)
    cfg = CuresConfig(prompts_per_step=num_drawn, rollouts_per_step=_ROLLOUTS * num_drawn)
    started = time.perf_counter()
    curriculum = make_curriculum(cfg, prompts, Posterior.fresh(prompts, cfg.posterior), 0)
    set_up = time.perf_counter() - started
    rng = np.random.default_rng(0)
    asks, tells = [], []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        requests = curriculum.ask(cfg.rollouts_per_step)
        asks.append(time.perf_counter() - started)
        groups = [answered(q, rng.random(q.n) < 0.5) for q in requests]
        started = time.perf_counter()
        curriculum.tell(groups)
        tells.append(time.perf_counter() - started)
        curriculum.ready()
    memory = peak_bytes()
    return {
        "prompts": num,
        "draw": num_drawn,
        "ask_ms": round(1000 * float(np.median(asks[1:])), 2),  # the first one looks at the whole pool
        "first_ask_ms": round(1000 * asks[0], 2),
        "tell_ms": round(1000 * float(np.median(tells[1:])), 2),
        "set_up_s": round(set_up, 2),
        "memory_mib": memory >> 20,
        "library_ms": round(1000 * _library(Curriculum(prompts, cfg), rng, rounds), 2),
    }


def _library(curriculum: Curriculum, rng: np.random.Generator, rounds: int) -> float:
    """Median seconds of a step, without the first two, in which the whole pool is looked at."""
    seconds = []
    for _ in range(rounds + 2):
        started = time.process_time()
        asks = curriculum.ask()
        spent = time.process_time() - started
        rewards = [(rng.random(ask.n) < 0.5).astype(float).tolist() for ask in asks]
        started = time.process_time()
        for ask, group in zip(asks, rewards, strict=True):
            curriculum.tell(ask.request_id, group)
        curriculum.ready()
        seconds.append(spent + time.process_time() - started)
    return float(np.median(seconds[2:]))
