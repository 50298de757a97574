"""`python -m benchmarks`: measurements that the claims of this project rest on. Runs from a checkout."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from benchmarks.curriculum import rivals
from cures_core.errors import ConfigError
from cures_core.files import canonical_json, write_atomic
from flows.cli.main import Commands, run_command_line

app = typer.Typer(cls=Commands, help="Measure.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("curriculum")
def curriculum_command(
    world: Annotated[str, typer.Option(help="digits, scratchpad, smollm2 or smollm2-worked.")] = "digits",
    pool: Annotated[str, typer.Option(help="Pool of the world: waste, mixed ...")] = "waste",
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = "uniform,cures",
    baseline: Annotated[
        str, typer.Option(help="What ratios are to; best: the best baseline. Default: the first.")
    ] = "",
    bases: Annotated[str, typer.Option(help="Seeds of base policies, comma-separated. Default: that of tuning.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each method and base policy.")] = 2,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed; those below 100 are for tuning.")] = 100,
    budget: Annotated[int, typer.Option(min=256, help="Rollouts of an arm, of all kinds.")] = 25_600,
    jobs: Annotated[int, typer.Option(min=1, help="Arms at once, each on one core.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for arms, table and picture.")] = Path(".cures/bench"),
    keep: Annotated[
        bool, typer.Option(help="Keep arms in benchmarks/results/worlds as they end; none is run twice.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a world's base policies with several methods at equal budgets, and compare what they need."""
    from benchmarks.curriculum import kept
    from benchmarks.curriculum.arms import compare
    from benchmarks.curriculum.report import compared, page, require_baseline, table
    from benchmarks.curriculum.worlds import world_of

    chosen = [int(base) for base in bases.split(",")] if bases else [world_of(world).tuning_base]
    names, last = methods.split(","), first_seed + seeds
    require_baseline(baseline or names[0], names)  # before arms that take minutes
    made = kept.made_by(_command())
    results = compare(
        world,
        pool,
        names,
        chosen,
        range(first_seed, last),
        budget,
        jobs,
        out,
        kept=kept.load(world) if keep else None,
        on_result=(lambda arm: kept.keep(world, [arm], made)) if keep else None,
    )
    result = {**compared(results, baseline or names[0]), **made}
    home = out / world / pool
    write_atomic(home / "curriculum.json", canonical_json(result))
    write_atomic(home / "curriculum.html", page(results, result["score"]).encode())
    if as_json:
        print(json.dumps(result))
        return
    for line in table(result):
        print(line)
    print(home / "curriculum.html")


@app.command("accounts")
def accounts_command(
    world: Annotated[str, typer.Option(help="digits, scratchpad, smollm2 or smollm2-worked.")] = "scratchpad",
    pool: Annotated[str, typer.Option(help="Pool of the world.")] = "waste",
    baseline: Annotated[str, typer.Option(help="What ratios are to; best: the best baseline that is kept.")] = "best",
    as_json: AsJson = False,
) -> None:
    """Comparisons from the arms that are kept in benchmarks/results/worlds, without running any."""
    from benchmarks.curriculum import kept
    from benchmarks.curriculum.report import compared, table

    arms = [arm for arm in kept.load(world).values() if arm["arm"]["pool"] == pool]
    if not arms:
        raise ConfigError(
            f"no arm of world {world}, pool {pool} is kept; run: python -m benchmarks curriculum --world {world} "
            f"--pool {pool} --keep"
        )
    found = [compared(part, baseline) for part in kept.comparable(arms)]
    if as_json:
        print(json.dumps(found))
        return
    for result in found:
        print("\n".join([*table(result), ""]))


@app.command("world")
def world_command(
    world: Annotated[str, typer.Option(help="digits, scratchpad, smollm2 or smollm2-worked.")] = "scratchpad",
    base: Annotated[int | None, typer.Option(help="Seed of the base policy. Default: that of tuning.")] = None,
    prompts: Annotated[int, typer.Option(min=2, help="Problems of every kind.")] = 16,
    samples: Annotated[int, typer.Option(min=4, help="Completions of each.")] = 16,
    norms: Annotated[int, typer.Option(min=0, help="Prompts of a band whose whole gradients are taken.")] = 12,
    keep: Annotated[bool, typer.Option(help="Keep the figures in benchmarks/results/behaviour.")] = False,
    as_json: AsJson = False,
) -> None:
    """How a world's base policy behaves before RL, and how near to a pretrained model's that is."""
    from benchmarks.curriculum.behaviour import lines, look
    from benchmarks.curriculum.kept import made_by

    result = look(world, base, prompts, samples, norms, made_by(_command()) if keep else None)
    print(json.dumps(result) if as_json else "\n".join(lines(result)))


@app.command("tune")
def tune_command(
    world: Annotated[str, typer.Option(help="digits, scratchpad, smollm2 or smollm2-worked.")] = "scratchpad",
    pool: Annotated[str, typer.Option(help="Pool of the world.")] = "waste",
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = "uniform,raft,cures",
    seeds: Annotated[int, typer.Option(min=1, help="Tuning seeds, from 0.")] = 1,
    budget: Annotated[int, typer.Option(min=256, help="Rollouts of an arm in the last rung.")] = 16_384,
    rungs: Annotated[int, typer.Option(min=1, help="Each has twice the budget of the one before.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Arms at once, each on one core.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for arms.")] = Path(".cures/bench/tuning"),
    as_json: AsJson = False,
) -> None:
    """Find learning rate, group size and batch of methods by successive halving; kept in benchmarks/results/tuned."""
    from benchmarks.curriculum.tuned import keep_tuned
    from benchmarks.curriculum.tuning import tune

    for method in methods.split(","):
        found = tune(world, method, pool, range(seeds), budget, rungs, jobs, out)
        path = keep_tuned(world, {method: found})
        chosen = {**found.curriculum, **found.training}
        print(json.dumps({method: chosen}) if as_json else f"{method}: {chosen}, kept in {path}")


@app.command("kept-rollouts")
def kept_rollouts_command(
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of a step.")] = 40,
    rollouts: Annotated[int, typer.Option(min=1, help="Rollouts of a step.")] = 64,
    characters: Annotated[int, typer.Option(min=1, help="Characters of a completion.")] = 6,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the epoch.")] = 100,
    every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Processor time of a step that keeping rollouts takes with the default settings, and room on disk."""
    from benchmarks.kept_rollouts import measure

    result = measure(prompts, rollouts, characters, steps, every)
    print(json.dumps(result) if as_json else "\n".join(f"{name}: {value:g}" for name, value in result.items()))


@app.command("sampler")
def sampler_command(
    prompts: Annotated[int, typer.Option(min=1, help="Prompts in the pool.")] = 860_000,
    draw: Annotated[int, typer.Option(min=1, help="Prompts drawn for a step.")] = 1024,
    as_json: AsJson = False,
) -> None:
    """Time of one ask and one tell of the default strategy, and memory."""
    from benchmarks.sampler import measure

    result = measure(prompts, draw)
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:<14} {value:,}")


@app.command("library")
def library_command(
    pool: Annotated[str, typer.Option(help="Pool of the scratchpad world.")] = "waste",
    bases: Annotated[str, typer.Option(help="Seeds of base policies, comma-separated.")] = "1,2,3",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each base policy.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 100,
    budget: Annotated[int, typer.Option(min=1024, help="Rollouts of an arm, 256 in each update.")] = 16_384,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Of both.")] = 1e-4,
    jobs: Annotated[int, typer.Option(min=1, help="Arms at once, each on one core.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for arms; what is there is not run again.")] = Path(
        ".cures/bench/library"
    ),
    keep: Annotated[bool, typer.Option(help="Keep arms in benchmarks/results/library as they end.")] = False,
    as_json: AsJson = False,
) -> None:
    """TRL's GRPOTrainer with and without the curriculum, same budget, in the scratchpad world."""
    from benchmarks.curriculum import kept
    from benchmarks.library.comparison import KEPT, compare
    from benchmarks.library.comparison import table as library_table

    made = kept.made_by(_command(), "trl")
    result = compare(
        pool,
        [int(base) for base in bases.split(",")],
        range(first_seed, first_seed + seeds),
        budget,
        learning_rate,
        jobs,
        out,
        kept=kept.load("scratchpad", KEPT) if keep else None,
        on_result=(lambda arm: kept.keep("scratchpad", [arm], made, KEPT)) if keep else None,
    )
    print(json.dumps(result) if as_json else "\n".join(library_table(result)))


@app.command("gate")
def gate_command(
    items: Annotated[int, typer.Option(min=2, help="Items of the simulated suite.")] = 300,
    samples: Annotated[int, typer.Option(min=1, help="Completions of each item.")] = 4,
    comparisons: Annotated[int, typer.Option(min=10, help="Simulated comparisons for each figure.")] = 1000,
    gains: Annotated[str, typer.Option(help="True gains of the power curve, comma-separated.")] = "0.01,0.02,0.04,0.08",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
    as_json: AsJson = False,
) -> None:
    """How often the promotion gate is wrong (A/A), how often it sees a gain, and what its intervals cover."""
    from benchmarks.gate import measure_gate

    try:
        asked = [float(gain) for gain in gains.split(",")]
    except ValueError as error:
        raise ConfigError(f"--gains {gains!r}: use numbers with commas between, as in 0.01,0.04") from error
    result = measure_gate(items, samples, comparisons, asked, seed)
    if as_json:
        print(json.dumps(result))
        return
    print(f"{items} items x {samples} samples, {comparisons:,} comparisons, seed {seed}")
    for row in result["power"]:
        print(f"true gain {row['true_gain']:.4f}: promoted {100 * row['promoted']:.1f} %")
    print(f"coverage of the 95 % interval: {100 * result['coverage']:.1f} %")


@app.command("simulate")
def simulate_command(
    pool: Annotated[str, typer.Option(help="waste, unlabelled, hopeless, hard, mixed or easy.")] = "waste",
    prompts: Annotated[int, typer.Option(min=10, help="Prompts in the training pool.")] = 100_000,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 1000,
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = "uniform,cures",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each method.")] = 1,
    wrong_gold: Annotated[float, typer.Option(help="Share of prompts with a wrong gold answer, anywhere.")] = 0.0,
    drift: Annotated[float, typer.Option(help="What a step adds to the policy by chance.")] = 0.0,
    against: Annotated[
        Path | None, typer.Option(help="Folder of digits arms (.cures/bench/digits): fit to it, and say how far off.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a simulated policy on pools of any size. A test of robustness; no evidence for speed."""
    from benchmarks.curriculum.simulations import run_simulations
    from benchmarks.curriculum.simulator import World

    try:
        world = World.model_validate({"pool": pool, "prompts": prompts, "wrong_gold": wrong_gold, "drift": drift})
    except ValidationError as error:
        raise ConfigError(f"simulated world: {error}") from error
    result = run_simulations(world, methods.split(","), seeds, steps, against)
    if as_json:
        print(json.dumps(result))
        return
    print("  ".join(f"{name:>17}" for name in result["rows"][0]))
    for row in result["rows"]:
        print("  ".join(f"{'-' if value is None else value:>17}" for value in row.values()))


@app.command("data")
def data_command(
    rows: Annotated[int, typer.Option(min=1, help="Rows to make and read.")] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Rows a second of reading a prompt set (parsing, checks, hashing), and of Great Expectations apart."""
    from benchmarks.data_validation import measure_data

    _print(measure_data(rows), as_json)


@app.command("verifier")
def verifier_command(
    files: Annotated[list[str], typer.Argument(help="Prompt sets whose gold answers are judged.")],
    items: Annotated[int, typer.Option(min=1, help="Completions to judge.")] = 20_000,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the verifier.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Completions a second of the `math` verifier against math-verify in this process, and what isolation costs."""
    from benchmarks.verifier import compare, items_of

    _print(compare(items_of(files, items), workers), as_json)


@app.command("agreement")
def agreement_command(
    files: Annotated[list[str], typer.Argument(help="Prompt sets whose gold answers are judged.")],
    most: Annotated[int | None, typer.Option(min=2, help="Most gold answers. Default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge the same completions with the `math` verifier and with math-verify, and list every difference."""
    from benchmarks.agreement import compare

    result = compare(files, most)
    if as_json:
        print(json.dumps(result))
        return
    differences = result.pop("differences")
    _print(result, as_json)
    for one in differences:
        print(
            f"{one['kind']}: gold {one['gold']!r}, answer {one['answer']!r}: {one['ours']} here, {one['theirs']} there"
        )


@app.command("step")
def step_command(
    peer: Annotated[str, typer.Option(help="What to run beside it: trl.")] = "trl",
    model: Annotated[str, typer.Option(help="Folder of a model; empty: a small random Llama.")] = "",
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of a step, of mixed lengths.")] = 8,
    n: Annotated[int, typer.Option(min=2, help="Rollouts of each.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a completion.")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="Counted steps; one more warms up.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads of each side.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Type of the weights: float32 or bfloat16.")] = "float32",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each side, in turn; medians are reported.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Seconds, tokens a second and memory of whole training steps, here and in TRL's GRPOTrainer."""
    from benchmarks.step.arms import compare_steps

    sizes = {"prompts": prompts, "n": n, "max_new_tokens": max_new_tokens, "steps": steps, "threads": threads}
    result = compare_steps(peer, repeats, model=model, device=device, dtype=dtype, **sizes)
    if as_json:
        print(json.dumps(result))
        return
    print(f"{'':<24} {'cures':>10} {peer:>10}  ratio")
    for name, ratio in result["ratio"].items():
        ours, theirs = (f"{result[side][name]:,.1f}" if name in result[side] else "" for side in ("cures", peer))
        print(f"{name:<24} {ours:>10} {theirs:>10} {ratio:>6.2f}")


@app.command("tables")
def tables_command() -> None:
    """Write the tables of the docs anew from benchmarks/results, where the results.json of GPU sessions are kept."""
    from benchmarks.tables import write_docs

    for page in write_docs():
        print(page)


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:<22} {value:,}" if isinstance(value, int | float) else f"{name:<22} {value}")


def _command() -> str:
    """This command, for whoever wants to run it again: without where its files went."""
    words = sys.argv[1:]
    if "--out" in words:
        at = words.index("--out")
        words = [*words[:at], *words[at + 2 :]]
    return shlex.join(["python", "-m", "benchmarks", *words])


if __name__ == "__main__":
    rivals.allow()
    run_command_line(app, "benchmarks")
