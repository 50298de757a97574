"""`cures rollouts`: what the policy wrote in training, and what was made of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError
from cures_core.printable import one_line, printable
from cures_core.terms import Outcome
from flows.cli.runs import RUN_HELP, AsJson, StoreUrl

if TYPE_CHECKING:
    from cures_core.kept_rollouts.table import KeptRollout
    from cures_core.report.run_data import Example

app = typer.Typer(help="Read the rollouts that runs have kept.", no_args_is_help=True)

MOST_LINES = 50
_EXCERPT = 60
_WITHHELD = "[withheld]"


@app.callback()
def _rollouts() -> None:
    """One command, which is named: others may come."""


@app.command("show")
def show_command(
    run: Annotated[str, typer.Option("--run", help=RUN_HELP)],
    prompt: Annotated[str | None, typer.Option(help="Content id of a prompt, or a beginning that only it has.")] = None,
    step: Annotated[int | None, typer.Option(min=1, help="Those of this step.")] = None,
    verdict: Annotated[Outcome | None, typer.Option(help="Those with this verdict.")] = None,
    suite: Annotated[
        str | None, typer.Option(help="Completions that evaluations of this suite have kept, instead of training's.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print problems and completions whole; one alone always is.")] = (
        False
    ),
    limit: Annotated[
        int | None, typer.Option(min=0, help="The newest so many; 0: all. --json prints all, unless this is named.")
    ] = None,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """A line for each kept rollout, the newest last: step, prompt, verdict, reward, advantage, tokens, how it ends."""
    from tasks.runs.notes import find_run
    from tasks.runs.rollouts import chosen, rollouts_of
    from tasks.storage import open_store

    opened = open_store(StoreConfig(url=store))
    run = find_run(opened, run)
    if suite is not None:
        if step is not None:
            raise ConfigError("--step is a step of training; an evaluation has none: leave out --step or --suite")
        _show_suite(_examples(store, run, suite, prompt, verdict), full=full, as_json=as_json)
        return
    rows = chosen(rollouts_of(opened, run), prompt, step, None if verdict is None else verdict.value)
    most = limit if limit is not None else 0 if as_json else MOST_LINES
    shown = rows[-most:] if most else rows
    if as_json:
        print(json.dumps([asdict(row) for row in shown]))
    elif full or len(rows) == 1:
        print("\n\n".join(in_full(row) for row in shown))
    else:
        for line in listing(shown):
            print(line)
    if len(shown) < len(rows):
        print(f"{len(rows) - len(shown):,} earlier ones not shown: --limit 0", file=sys.stderr)


def listing(rows: Sequence[KeptRollout]) -> list[str]:
    """A table with a header. Of a completion its end, where the answer stands."""
    header = ["step", "prompt", "of", "verdict", "reward", "advantage", "tokens", "", "completion"]
    cells = [
        [
            str(row.step),
            row.prompt[:12],
            f"{row.request}#{row.index}",
            row.outcome,
            _number(row.reward, "g"),
            _number(row.advantage, "+.2f"),
            str(row.tokens),
            "cut" if row.finish_reason == "length" else "",
            _WITHHELD if row.withheld else _end_of(row.completion),
        ]
        for row in rows
    ]
    return _table([header, *cells])


def in_full(row: KeptRollout) -> str:
    """All that is known of a rollout, texts indented below their names."""
    place = ", ".join(filter(None, (f"source {row.source}" * bool(row.source), f"level {row.level}" * bool(row.level))))
    ended = "cut at the token limit" if row.finish_reason == "length" else "ended by itself"
    gap = "" if row.logprob_gap is None else f", log-probability gap {row.logprob_gap:.2g}"
    head = [
        f"step {row.step} (epoch {row.epoch}), prompt {row.prompt}{f' ({one_line(place)})' if place else ''}",
        f"rollout {row.index} of request {one_line(row.request)}, kept for: {row.kept_for}",
        f"{row.outcome}{f' by {one_line(row.rule)}' if row.rule else ''}: reward {_number(row.reward, 'g')}, "
        f"advantage {_number(row.advantage, '+.3f')}",
        f"{row.tokens:,} tokens, {ended}{gap}",
    ]
    if row.withheld:
        return "\n".join([*head, "texts are withheld: the redaction failed on them, or did not see them"])
    texts = {
        "read as answer": row.extracted,
        "reason": row.reason,
        "gold answer": row.answer,
        "problem": row.problem,
        "completion": row.completion,
    }
    return "\n".join([*head, *(_below(name, text) for name, text in texts.items() if text)])


def _examples(
    store: str, run: str, suite: str, prompt: str | None, verdict: Outcome | None
) -> list[tuple[int, str, Example]]:
    from tasks.runs.rollouts import examples_of, find_prompt
    from tasks.storage import open_store

    found = examples_of(open_store(StoreConfig(url=store)), run, suite)
    if prompt is not None:
        name = find_prompt(sorted({name for _, name, _ in found}), prompt)
        found = [one for one in found if one[1] == name]
    if verdict is not None:
        found = [one for one in found if one[2].outcome == verdict.value]
    return found


def _show_suite(found: Sequence[tuple[int, str, Example]], *, full: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps([{"epoch": k, "prompt": name, **one.model_dump(mode="json")} for k, name, one in found]))
    elif full or len(found) == 1:
        for k, name, one in found:
            print(f"{_after(k)}, item {name}: {one.outcome}")
            texts = {"gold answer": one.gold, "problem": one.problem, "completion": one.completion}
            print("\n".join(_below(label, text) for label, text in texts.items()) + "\n")
    else:
        rows = [[_after(k), name[:12], one.outcome, _end_of(one.completion)] for k, name, one in found]
        for line in _table([["", "item", "verdict", "completion"], *rows]):
            print(line)


def _after(epoch: int) -> str:
    return f"after epoch {epoch}" if epoch else "before training"


def _table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their longest cell; the last has a width of its own."""
    widths = [*(max(map(len, column)) for column in zip(*cells, strict=True))]
    widths[-1] = 0
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells]


def _end_of(text: str) -> str:
    shown = one_line(text)
    return shown if len(shown) <= _EXCERPT else f"...{shown[-_EXCERPT:]}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _below(name: str, text: str) -> str:
    """Indented, so that no line of a text can be taken for one of ours."""
    return f"{name}:\n" + "\n".join(f"  {line}" for line in printable(text).split("\n"))
