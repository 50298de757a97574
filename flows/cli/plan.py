"""`cures plan`: what a run will cost, before it is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cures_core.config.loading import load_config
from cures_core.errors import ConfigError
from cures_core.sizes import size_text
from flows.cli.runs import AsJson

_PARTS = {
    "weights": "weights",
    "masters": "float32 weights of the optimizer",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "reference": "base policy for the KL penalty",
    "activations": "activations of a micro-batch",
    "logits": "logits of a micro-batch",
    "buffers": "buffers of ZeRO",
    "generation": "rollout engine",
    "resting": "rollout engine during updates",
    "whole": "whole weights for rollouts",
    "host": "in the memory of the host",
}


def plan(
    config: Annotated[Path, typer.Option(help="Profile (TOML); see configs/.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE on top of the profile, as for `cures run`.")
    ] = None,
    rows: Annotated[
        str, typer.Option(help="NAME=N,NAME=N: rows of files that are not here yet; `data` is the prompt set.")
    ] = "",
    architecture: Annotated[
        Path | None, typer.Option(help="config.json of the model, where its folder is not here yet.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a few rollouts and updates here, with the profile's policy.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Estimate prompts, rollouts, tokens, time and GPU memory of a run. Starts nothing, unless --measure.

    Time and tokens follow an earlier run of the store that computes alike, or --measure; without them tokens are upper
    bounds and there is no time. Memory is that of a GPU; the driver's own part is not in it.
    """
    from tasks import planning

    found = planning.plan(load_config(config, overrides or []), _rows(rows), architecture, measured=measure)
    if as_json:
        print(json.dumps(found))
        return
    for line in plan_lines(found):
        print(line)


def plan_lines(found: dict[str, Any]) -> list[str]:
    """The plan in words."""
    policy, rows = found["policy"], found["rows"]
    adapters = "" if policy["trained"] == policy["parameters"] else f", {policy['trained']:,} of them or beside trained"
    lines = [
        f"{found['profile']}: {rows['data']:,} prompts, {len(rows) - 1} suites of "
        f"{sum(rows.values()) - rows['data']:,} items",
        f"policy: {policy['architecture']}, {policy['parameters']:,} parameters{adapters}",
        f"rollouts: {_by_part(found['rollouts'])}",
        f"completion tokens: at most {_by_part(found['tokens_at_most'])}",
    ]
    if found["source"] is None:
        lines.append("time: not known; add --measure, or plan again after a run")
    else:
        lines += [
            f"completion tokens: {_by_part(found['tokens'])} (as in {found['source']})",
            f"time: {_by_part(found['seconds'], ' s')} (as in {found['source']})",
        ]
    memory, ranks = found["memory_per_rank"], found["ranks"]
    lines.append(
        f"memory of each of {ranks} rank{'s' * (ranks > 1)}, sequences of up to {found['longest_sequence']:,} tokens: "
        f"{size_text(memory['peak'])} at most ({size_text(memory['update'])} in an update, "
        f"{size_text(memory['rollouts'])} in rollouts)"
    )
    lines.insert(-1, f"disk: checkpoints take {size_text(found['disk_bytes'])} at most")
    lines += [f"  {size_text(memory[part]):>10}  {name}" for part, name in _PARTS.items() if memory[part]]
    if found["measured_bytes"]:
        lines.append(_measured(found["measured_bytes"], memory["peak"]))
    return lines


def _measured(measured: dict[str, int], planned: int) -> str:
    if measured["gpu_peak"]:
        return f"measured on the GPU in one process: {size_text(measured['gpu_peak'])}"
    before, peak = measured["process_before"], measured["process_peak"]
    return (
        f"a process takes {size_text(before)} before it holds the policy, so {size_text(before + planned)} are "
        f"expected; measured: {size_text(peak)}"
    )


def _by_part(parts: dict[str, float], unit: str = "") -> str:
    rest = ", ".join(f"{name} {value:,.0f}{unit}" for name, value in parts.items() if name != "total")
    return f"{parts['total']:,.0f}{unit} ({rest})"


def _rows(text: str) -> dict[str, int]:
    found = {}
    for part in filter(None, text.split(",")):
        name, equals, number = part.partition("=")
        if not equals or not number.strip().isdigit() or int(number) < 1:
            raise ConfigError(f"--rows {part!r}: write NAME=N, as in data=57000,math500=500")
        found[name.strip()] = int(number)
    return found
