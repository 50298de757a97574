"""`python -m benchmarks.gpu MINUTES OUT`: what is worth knowing about a GPU, most wanted first; `run.sh` calls it."""

from __future__ import annotations

import importlib.util
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
from cures_core.errors import ConfigError, CuresError

METHODS = ("uniform", "raft", "cures", "cures-failure", "cures-equal", "cures-grpo")
"""Two baselines, `raft` the stronger one in the worlds of the CPU, before what is compared with them."""
POOLS = ("waste", "mixed", "healthy")


def units(model: str, device: str, *, small: bool, seeds: int, pools: tuple[str, ...] = POOLS) -> list[Unit]:
    """In the order in which they are measured. `model`: its name. `small`: sizes for a rehearsal.

    What comes before the arms takes 450 s at most, so that fifteen minutes, in one session or two, reach them.
    """
    on_gpu = device == "cuda"
    found = []
    if on_gpu:
        found.append(_exam("kernels", f"{_TRAINER}::{_KERNELS}", f"{_HF}test_gpu.py::{_CAPTURED}", most_s=60))
    first, *others = (256, 32, 1024) if not small else (4,)
    speed = {
        "model": model, "device": device, "dtype": "bfloat16" if on_gpu else "float32", "n": 8,
        "max_new_tokens": 128 if not small else 4, "repeats": 2 if not small else 1, "kv_cache_gib": 8,
    }  # fmt: skip
    found.append(_throughput("", speed, [("hf", how, first) for how in ("static", "eager")], most_s=90))
    sizes = (
        {"prompts": 8, "n": 8, "max_new_tokens": 128, "steps": 5}
        if not small
        else {"prompts": 2, "n": 2, "max_new_tokens": 4, "steps": 1}
    )
    training = {"model": model, "device": device, "dtype": speed["dtype"], **sizes}
    for arm in ("cures", "trl"):
        found.append(Unit(f"step-{arm}", _WORK, {"arm": arm, "step": training}, "step", most_s=60))
    if on_gpu:
        found.append(_exam("hf", f"{_HF}test_gpu.py", "-k", "OnGpu", most_s=120))
    else:
        found.append(_exam("hf", f"{_HF}test_exam.py", "-k", "InFixedShapesWithFewRows and greedy", most_s=120))
    first_plan, *other_plans = _plans(model, device, small=small)
    found.append(first_plan)
    found += _arms(model, device, small=small, seeds=seeds, pools=pools)
    # In what time is left, or with --only.
    found += other_plans
    if on_gpu:
        found.append(_exam("ranks", _TRAINER, "-k", "ranks or group", most_s=120, all_must_run=True))
        cases = [("hf", how, rows) for rows in others for how in ("static", "eager")]
        found.append(_throughput("-rows", speed, [*cases, ("hf", "static uncaptured", first)], most_s=180))
        if importlib.util.find_spec("vllm") is not None:
            cases = [("vllm", "paged", rows) for rows in (first, *others)]
            found.append(_throughput("-vllm", speed, cases, most_s=240))
            found.append(_exam("vllm", f"{_HF}test_gpu.py", "-k", "shared_gpu", most_s=300, all_must_run=True))
    return found


_WORK = "benchmarks.gpu.work"
_HF, _TRAINER = "tests/cures_core/rollout/hf/", "tests/cures_core/training/test_gpu.py"
_KERNELS = "test_kernels_for_packed_rows_give_the_masked_square"
_CAPTURED = "test_captured_steps_give_the_eager_tokens_and_are_faster"


def _exam(name: str, *arguments: str, most_s: float, all_must_run: bool = False) -> Unit:
    spec = {"arguments": [*arguments, "-m", "not slow"], "all_must_run": all_must_run}
    return Unit(f"exam-{name}", _WORK, spec, "exam", most_s=most_s)


def _throughput(name: str, speed: dict[str, Any], cases: list[tuple[str, str, int]], *, most_s: float) -> Unit:
    named = [{"engine": engine, "decoding": how, "rows": rows} for engine, how, rows in cases]
    return Unit(f"throughput{name}", _WORK, {**speed, "cases": named}, "throughput", most_s=most_s)


def _plans(model: str, device: str, *, small: bool) -> list[Unit]:
    base: dict[str, Any] = {"model": model, "device": device, "prompts": 200, "steps": 10}
    # All weights, as the arms train them; the profile's adapters are another unit. With fewer tokens in a micro-batch
    # than in a step: only then does the plan say how many there are, and not how many there are at most.
    full = 'training={type="torch",learning_rate=2e-5,micro_batch_tokens=4096}'
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
    return [
        Unit(name, _WORK, spec, "plan", most_s=60 if name == "plan-smollm2" else 120) for name, spec in plans.items()
    ]


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
                        # They took 120 to 400 s on an H100. The margin has their start and last evaluation.
                        least_s=1 if small else 240,
                        margin_s=5 if small else 40,
                        side_by_side=True,
                    )
                )
    return found


def main(
    minutes: Annotated[float, typer.Argument(help="Minutes of this machine, everything included.")],
    out: Annotated[Path, typer.Argument(help="Folder; results.json in it is gone on with.")],
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    model: Annotated[str, typer.Option(help="Folder of SmolLM2. Without one --small or --device cpu rehearse.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Training runs side by side.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the comparison of curricula.")] = 3,
    only: Annotated[str, typer.Option(help="Beginnings of units' names, comma-separated.")] = "",
    small: Annotated[bool, typer.Option(help="Small sizes: a rehearsal that takes a minute.")] = False,
) -> None:
    """Measure until the minutes are over. Every unit's result is in OUT/results.json as soon as there is one."""
    deadline = time.monotonic() + 60 * minutes
    if device == "cuda" and not model and not small:
        # A GPU's minutes are not spent on a random model by mistake.
        typer.echo(
            "error: no model: name the folder of SmolLM2 with --model (benchmarks/gpu/prepare.sh packs it for run.sh), "
            "or rehearse with --small, which measures a tiny random one",
            err=True,
        )
        raise typer.Exit(ConfigError.exit_code)
    scratch = Path(os.environ.get("CURES_GPU_SCRATCH", tempfile.gettempdir())) / "cures-gpu"
    folder = Path(model).absolute() if model else write_stand_in(scratch / "stand-in")
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
