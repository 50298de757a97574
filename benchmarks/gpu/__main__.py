"""`python -m benchmarks.gpu MINUTES OUT`: what is worth knowing about a GPU, most wanted first; `run.sh` calls it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.curriculum.arms import make_arm
from benchmarks.curriculum.worlds import world_of
from benchmarks.gpu.machine import describe
from benchmarks.gpu.session import Session, Unit
from benchmarks.gpu.stand_in import write_stand_in
from cures_core.errors import CuresError

METHODS = ("uniform", "cures-grpo", "cures-equal", "cures")
POOLS = ("waste", "mixed", "healthy")


def units(model: str, device: str, *, small: bool, seeds: int, pools: tuple[str, ...] = POOLS) -> list[Unit]:
    """In the order in which they are measured. `model`: its name. `small`: sizes for a rehearsal."""
    work = "benchmarks.gpu.work"
    on_gpu = device == "cuda"
    hf = "tests/cures_core/rollout/hf/"
    tests = (
        [hf + "test_gpu.py", "-m", "gpu"]
        if on_gpu
        else [hf + "test_exam.py", "-k", "InFixedShapesWithFewRows and greedy"]
    )
    found = [Unit("exam-hf", work, {"arguments": tests}, "exam", most_s=150)]
    if on_gpu:
        trainer = ["tests/cures_core/training/test_gpu.py", "-m", "gpu"]
        found.append(Unit("exam-training", work, {"arguments": trainer}, "exam", most_s=90))
    rows = [256, 32, 1024] if not small else [4]
    decodings = ["static", "eager", *(["static uncaptured"] if on_gpu else [])]
    cases = [{"engine": "hf", "decoding": how, "rows": number} for number in rows for how in decodings]
    if on_gpu:
        cases += [{"engine": "vllm", "decoding": "paged", "rows": number} for number in rows]
    speed = {
        "model": model, "device": device, "dtype": "bfloat16" if on_gpu else "float32", "cases": cases, "n": 8,
        "max_new_tokens": 128 if not small else 4, "repeats": 2 if not small else 1, "kv_cache_gib": 8,
    }  # fmt: skip
    found.append(Unit("throughput", work, speed, "throughput", most_s=240))
    sizes = (
        {"prompts": 8, "n": 8, "max_new_tokens": 128, "steps": 5}
        if not small
        else {"prompts": 2, "n": 2, "max_new_tokens": 4, "steps": 1}
    )
    training = {"model": model, "device": device, "dtype": speed["dtype"], **sizes}
    for arm in ("cures", "trl"):
        found.append(Unit(f"step-{arm}", work, {"arm": arm, "step": training}, "step", most_s=150))
    found += _plans(model, device, small=small)
    found += _arms(model, device, small=small, seeds=seeds, pools=pools)
    return found


def _plans(model: str, device: str, *, small: bool) -> list[Unit]:
    base: dict[str, Any] = {"model": model, "device": device, "prompts": 200, "steps": 10}
    # All weights, as the arms train them; the profile's adapters are another unit.
    full = 'training={type="torch",learning_rate=2e-5,micro_batch_tokens=16384}'
    large = ["curriculum.prompts_per_step=32", "curriculum.rollouts_per_step=256", "rollout.batch_rows=256"]
    tiny = ["rollout.max_new_tokens=4", "curriculum.prompts_per_step=2", "curriculum.rollouts_per_step=4"]
    size = tiny if small else large
    plans = {
        "plan-smollm2": {**base, "overrides": [full, *size]},
        "plan-smollm2-adapters": {**base, "overrides": size},
        "plan-qwen2.5-1.5b": {
            **base, "overrides": [full, *size], "architecture": "qwen2.5-math-1.5b.json", "steps": 5,
            "smaller": {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
                        "num_key_value_heads": 1, "vocab_size": 128, "layer_types": ["full_attention"],
                        "max_window_layers": 1} if small else {},
        },
    }  # fmt: skip
    if small:
        plans = {"plan-qwen2.5-1.5b": {**plans["plan-qwen2.5-1.5b"], "prompts": 20, "steps": 1}}
    return [Unit(name, "benchmarks.gpu.work", spec, "plan", most_s=120) for name, spec in plans.items()]


def _arms(model: str, device: str, *, small: bool, seeds: int, pools: tuple[str, ...]) -> list[Unit]:
    world, budget = world_of("smollm2"), 64 if small else 20_480
    fields: dict[str, Any] = {"device": device}
    if device == "cpu":
        fields["dtype"] = "float32"
    if small:
        sizes = {"train": 40, "heldout": 4, "frontier": 4}
        fields |= {**sizes, "samples": 2, "evaluate_every": 64, "max_new_tokens": 4}
    found = []
    for seed in range(1, seeds + 1):
        for pool in pools:
            for method in METHODS[: 2 if small else None]:
                arm = make_arm(world, method, pool, 0, seed, budget, model, **fields)
                spec = arm.model_dump(mode="json", exclude={"limit_s"})
                found.append(
                    Unit(
                        f"arm-{pool}-{method}-{seed}",
                        "benchmarks.curriculum.arm",
                        spec,
                        most_s=500,
                        least_s=1 if small else 60,
                        side_by_side=True,
                    )
                )
    return found


def main(
    minutes: Annotated[float, typer.Argument(help="Minutes of this machine, everything included.")],
    out: Annotated[Path, typer.Argument(help="Folder; results.json in it is gone on with.")],
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    model: Annotated[str, typer.Option(help="Folder of SmolLM2; empty: a tiny random model, for a rehearsal.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Training runs side by side.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the comparison of curricula.")] = 3,
    only: Annotated[str, typer.Option(help="Beginnings of units' names, comma-separated.")] = "",
    small: Annotated[bool, typer.Option(help="Small sizes: a rehearsal that takes a minute.")] = False,
) -> None:
    """Measure until the minutes are over. Every unit's result is in OUT/results.json as soon as there is one."""
    deadline = time.monotonic() + 60 * minutes
    scratch = Path(os.environ.get("CURES_GPU_SCRATCH", tempfile.gettempdir())) / "cures-gpu"
    folder = Path(model) if model else write_stand_in(scratch / "stand-in")
    pools = POOLS if not small else ("mixed",)
    wanted = units(folder.name, device, small=small or not model, seeds=seeds if not small else 1, pools=pools)
    if only:
        wanted = [unit for unit in wanted if unit.name.startswith(tuple(only.split(",")))]
    try:
        session = Session(
            out / "results.json", describe(device), scratch / "units", deadline, jobs, {folder.name: str(folder)}
        )
    except CuresError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    session.run(wanted)


if __name__ == "__main__":
    typer.run(main)
