"""`cures verify`: what a verifier says of completions, and why."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from cures_core.config.loading import load_config
from cures_core.config.rewards import RewardConfig
from cures_core.errors import ConfigError, DataRejected, MissingInput
from cures_core.rewards import make_verifier
from cures_core.rewards.verifier import Item
from cures_core.terms import Prompt, Verdict


def verify(
    completion: Annotated[str | None, typer.Argument(help="What a model has said.")] = None,
    gold: Annotated[str | None, typer.Argument(help="The gold answer.")] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help='File of pairs: one {"completion": ..., "answer": ...} a line; "source" or "verifier" too.',
        ),
    ] = None,
    kind: Annotated[str, typer.Option("--type", help="exact, numeric, math or choice, with its defaults.")] = "math",
    config: Annotated[Path | None, typer.Option(help="A run's profile: its table reward is used instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Judge completions: outcome, the answer that was read, the rule that decided, the reason, and the reward."""
    items = _items(completion, gold, source)
    with make_verifier(_reward(kind, config)) as verifier:
        verdicts = verifier.judge(items)
        own = [(prompt.answer, verifier.of(prompt.source, prompt.verifier)) for _, prompt in items]
        refused = {answer: why for answer, judge in own if (why := judge.check_gold(answer))}
    counts = Counter(verdict.outcome.value for verdict in verdicts)
    if as_json:
        rows = [_row(verdict) for verdict in verdicts]
        print(json.dumps({"counts": counts, "verdicts": rows, "golds_refused": refused}))
        return
    for verdict in verdicts:
        print(_line(verdict))
    for answer, why in refused.items():
        print(f"gold answer {ascii(answer)[:80]} cannot be used: {why}")
    if len(verdicts) > 1:
        print(", ".join(f"{number:,} {outcome}" for outcome, number in sorted(counts.items())))


def _items(completion: str | None, gold: str | None, source: Path | None) -> list[Item]:
    if (completion is None or gold is None) == (source is None):
        raise ConfigError("name a completion and a gold answer, or a file of pairs with --from")
    if source is None:
        return [(completion or "", Prompt("", "", gold or ""))]
    if not source.is_file():
        raise MissingInput(f'{source}: no such file; write one {{"completion": ..., "answer": ...}} a line')
    lines = enumerate(source.read_bytes().splitlines(), 1)
    return [_item(f"{source}:{number}", line) for number, line in lines if line.strip()]


def _item(place: str, line: bytes) -> Item:
    try:
        row = json.loads(line)
        found = [row["completion"], row["answer"], *(row.get(name, "") for name in ("problem", "source", "verifier"))]
    except (ValueError, KeyError, TypeError) as error:
        raise DataRejected(
            f"{place}: no pair ({type(error).__name__}: {error}); needs completion and answer"
        ) from error
    if not all(isinstance(text, str) for text in found):
        raise DataRejected(f"{place}: completion, answer, problem, source and verifier must be strings")
    said, answer, problem, source, verifier = found
    return said, Prompt("", problem, answer, source=source, verifier=verifier)


def _reward(kind: str, config: Path | None) -> RewardConfig:
    return reward_of(kind) if config is None else load_config(config).reward


def reward_of(kind: str) -> RewardConfig:
    """A verifier by its name, with its defaults."""
    try:
        return TypeAdapter[RewardConfig](RewardConfig).validate_python({"type": kind})
    except ValidationError as error:
        raise ConfigError(f"verifier {kind!r}: use exact, numeric, math or choice; the rest needs a profile") from error


def _row(verdict: Verdict) -> dict[str, object]:
    said = {name: value for name, value in asdict(verdict).items() if name != "masked"}  # which is training's
    return {**said, "outcome": verdict.outcome.value}


def _line(verdict: Verdict) -> str:
    why = "; ".join(part for part in (verdict.rule, verdict.reason) if part)
    paid = "" if verdict.reward is None else f"  paid {verdict.reward:g}"
    return f"{verdict.outcome.value:<8} {ascii(verdict.extracted)[1:-1][:80]}{f'  ({why})' if why else ''}{paid}"
