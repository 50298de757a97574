"""The `cures data` commands: validate, import, split, stats and diff of prompt sets."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import ValidationError

from cures_core.config.data import ColumnsConfig, DataConfig, SuiteConfig
from cures_core.config.loading import explain, load_config
from cures_core.config.run import RunConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, DataRejected
from cures_core.files import canonical_json, write_atomic
from cures_core.prompts import Loaded, PromptSet, load_prompts, reasons_table, require_acceptable
from cures_core.prompts.checks import NO_VERIFIER, GoldJudge
from cures_core.prompts.diff import Difference, difference
from cures_core.prompts.promptset import COLUMNS, LATER
from cures_core.prompts.split import ending_of, parts_of, write_rows
from cures_core.report.prompts_page import answer_kinds, prompts_page, title_of
from cures_core.rewards import make_verifier
from cures_core.secrets import masked
from flows.cli.flags import flag, flags, unflag
from flows.cli.generate import generate
from flows.cli.tables import as_table
from flows.cli.verify import reward_of
from tasks.inputs.prompt_files import Inputs
from tasks.validation.validator import FileSummary, ValidationSummary, describe, one_message, validate

app = typer.Typer(
    help="Check, convert, split, describe, compare and flag prompts. A set is a file, a folder that `datasets` saved, "
    "path@revision of git or DVC, or s3://bucket/key.",
    no_args_is_help=True,
)
app.command("generate")(generate)
app.command("flag")(flag)
app.command("unflag")(unflag)
app.command("flags")(flags)

Format = Annotated[str, typer.Option("--format", help="auto, jsonl, json, csv, parquet or arrow.")]
ProblemColumn = Annotated[
    str | None, typer.Option("--problem", help="Column of the problem; a dot steps into objects.")
]
AnswerColumn = Annotated[str | None, typer.Option("--answer", help="Column of the gold answer.")]
Layout = Annotated[str, typer.Option(help="auto, columns, or a published layout: verl, orz, gsm8k, math, ...")]
ProblemRule = Annotated[
    str, typer.Option(help="text, chat (the user message of a list of messages) or last_user (other turns left out).")
]
AnswerRule = Annotated[str, typer.Option(help="field, gsm8k (after ####), boxed (last \\boxed) or list (JSON).")]
Language = Annotated[str | None, typer.Option(help="Warn of problems in another language than this (en, de, ...).")]
MaxRejectShare = Annotated[float, typer.Option(help="Largest share of rows that may be rejected.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

_SHOWN = 10


@app.command("validate")
def validate_command(
    path: Annotated[str | None, typer.Argument(help="The prompt set (see `cures data --help`); or --config.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A run's profile: its data, suites and verifier are used.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE on top of the profile, as in data.language=en.")
    ] = None,
    suite: Annotated[list[str] | None, typer.Option(help="NAME=PATH of an evaluation suite to keep apart.")] = None,
    verifier: Annotated[
        str | None, typer.Option(help="exact, numeric, math or choice: check that it can use the gold answers.")
    ] = None,
    near_duplicates: Annotated[str, typer.Option(help="off, warn or drop rows that are almost another.")] = "off",
    contamination: Annotated[str, typer.Option(help="drop, warn or reject prompts that a suite holds.")] = "drop",
    out: Annotated[Path | None, typer.Option(help="Keep the clean set, the lists of rows and the pages here.")] = None,
    flag_list: Annotated[str | None, typer.Option("--flags", help="List of flagged prompts to leave out.")] = None,
    kind: Format = "auto",
    problem: ProblemColumn = None,
    answer: AnswerColumn = None,
    layout: Layout = "auto",
    problem_rule: ProblemRule = "text",
    answer_rule: AnswerRule = "field",
    language: Language = None,
    max_reject_share: MaxRejectShare = 0.05,
    as_json: AsJson = False,
) -> None:
    """Check every row, the suites and what they share; exit code 3 if the set is not fit for training."""
    if (path is None) == (config is None):
        raise ConfigError("name a prompt set, or a profile with --config, and not both")
    suites = [_suite(text) for text in suite or []]
    columns = ColumnsConfig(problem=problem, answer=answer)
    data = _data(path or "", kind, columns, layout, problem_rule, answer_rule, language, max_reject_share)
    data = _changed(data, contamination=contamination, near_duplicates=near_duplicates, flags=flag_list)
    with _kept_or_temporary(out) as folder, _refusal_as_json(as_json):
        if config is None:
            if overrides:
                raise ConfigError("--set changes a profile: name one with --config")
            with _gold_judge(verifier) as judge:
                summary = validate(data, suites, folder, judge, locate=_inputs().local)
        elif data != DataConfig(path="") or verifier is not None:
            raise ConfigError("with --config, change what the profile says with --set, as in --set data.language=en")
        else:
            summary = _validate_profile(load_config(config, overrides or []), suites, folder)
    if as_json:
        _print_json({"accepted": True, **summary})
        return
    _print_figures(summary["prompts"])
    for name, figures in summary["suites"].items():
        read_as = figures["read_as"]
        kinds = ", ".join(f"{n} {kind}" for kind, n in summary["contamination"]["by_suite"][name].items() if n)
        typer.echo(
            f"suite {name}: {figures['kept']:,} of {figures['rows_read']:,} kept; overlap: {kinds or 'none'}; "
            f"read as {read_as['layout']}, problem from {read_as['problem']}, answer from {read_as['answer']}"
        )
    typer.echo(f"written to {out}" if out else "nothing written; --out DIR keeps the clean set and the details")


@app.command("import")
def import_command(
    source: Annotated[str, typer.Argument(help="Any readable file, or a folder saved by `datasets`.")],
    target: Annotated[Path, typer.Argument(help="The clean set: a .parquet or .jsonl file.")],
    quarantine: Annotated[Path | None, typer.Option(help="Write rejected and dropped rows here, as JSONL.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace TARGET if it exists.")] = False,
    kind: Format = "auto",
    problem: ProblemColumn = None,
    answer: AnswerColumn = None,
    layout: Layout = "auto",
    problem_rule: ProblemRule = "text",
    answer_rule: AnswerRule = "field",
    language: Language = None,
    max_reject_share: MaxRejectShare = 0.05,
    as_json: AsJson = False,
) -> None:
    """Turn a file into a clean prompt set."""
    if target.suffix not in (".parquet", ".jsonl"):
        raise ConfigError(f"{target}: write to a .parquet or a .jsonl file")
    if target.exists() and not force:
        raise ConfigError(f"{target}: exists; name another file, or replace it with --force")
    columns = ColumnsConfig(problem=problem, answer=answer)
    cfg = _data(source, kind, columns, layout, problem_rule, answer_rule, language, max_reject_share)
    loaded = _loaded(cfg)
    if quarantine is not None:
        write_atomic(quarantine, b"".join(canonical_json(d.as_dict()) + b"\n" for d in loaded.quarantine))
    with _refusal_as_json(as_json):
        require_acceptable(loaded, cfg)
    _write_set(loaded.prompts, target)
    if as_json:
        _print_json({**describe(loaded), "written": str(target)})
        return
    _print_figures(describe(loaded))
    for line in reasons_table(loaded):
        typer.echo(line)
    typer.echo(f"{len(loaded.prompts):,} prompts written to {target}")


@app.command("split")
def split_command(
    path: Annotated[str, typer.Argument(help="The prompt set.")],
    held_out: Annotated[str, typer.Option(help="Prompts to hold out: how many, as in 200, or which share, as in 0.1.")],
    out: Annotated[Path, typer.Option(help="Folder for the files `train` and `held-out`, in the set's own format.")],
    seed: Annotated[int, typer.Option(help="Another seed holds other prompts out.")] = 0,
    kind: Format = "auto",
    problem: ProblemColumn = None,
    answer: AnswerColumn = None,
    layout: Layout = "auto",
    problem_rule: ProblemRule = "text",
    answer_rule: AnswerRule = "field",
    max_reject_share: MaxRejectShare = 0.05,
    as_json: AsJson = False,
) -> None:
    """Part a set into one to train on and a suite, with no problem in both; rows stay as they stand in the file."""
    columns = ColumnsConfig(problem=problem, answer=answer)
    cfg = _data(path, kind, columns, layout, problem_rule, answer_rule, max_reject_share=max_reject_share)
    source = _inputs().local(path)
    loaded = load_prompts(cfg, source=source)
    with _refusal_as_json(as_json):
        require_acceptable(loaded, cfg)
    train, suite = (out / f"{name}{ending_of(cfg, source)}" for name in ("train", "held-out"))
    if there := [file for file in (train, suite) if file.exists()]:
        raise ConfigError(f"{there[0]}: exists; name another folder with --out, or move the file away")
    parts = parts_of(loaded.prompts, _number(held_out, len(loaded.prompts), path), seed)
    if not len(parts.train):
        raise ConfigError(f"{path}: all other prompts are held-out ones in other words; hold fewer out")
    write_rows(cfg, source, loaded, {train: parts.train, suite: parts.held_out})
    if as_json:
        files = {"train": str(train), "held_out": str(suite)}
        counts = {name: len(prompts) for name, prompts in parts._asdict().items()}
        _print_json({**describe(loaded), "files": files, "parts": counts})
        return
    _print_figures(describe(loaded))
    for line in reasons_table(loaded):
        typer.echo(line)
    typer.echo(f"{len(parts.train):,} prompts written to {train}, {len(parts.held_out):,} to {suite}")
    if len(parts.repeats):
        typer.echo(f"{len(parts.repeats):,} are in neither: they are held-out ones in other words")
    named = f'evaluation.suites=[{{name="held-out",path="{suite}"}}]'
    typer.echo(f"for a run: --set {shlex.quote(f'data.path={train}')} --set {shlex.quote(named)}")


@app.command("stats")
def stats_command(
    path: Annotated[str, typer.Argument(help="The prompt set.")],
    picture: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page here.")] = None,
    kind: Format = "auto",
    problem: ProblemColumn = None,
    answer: AnswerColumn = None,
    layout: Layout = "auto",
    problem_rule: ProblemRule = "text",
    answer_rule: AnswerRule = "field",
    language: Language = None,
    as_json: AsJson = False,
) -> None:
    """What a prompt set holds: rows by fate, reasons, lengths and labels."""
    columns = ColumnsConfig(problem=problem, answer=answer)
    loaded = _loaded(_data(path, kind, columns, layout, problem_rule, answer_rule, language))
    kinds = answer_kinds(loaded.prompts.column("answer"))
    figures, characters = describe(loaded), _lengths(loaded.prompts)
    if picture is not None:
        turns = {f"{number} turns before the problem": count for number, count in figures["turns"].items()}
        tables = {**figures["labels"], "earlier turns": turns, "answers": kinds, "reasons": figures["reasons"]}
        write_atomic(picture, prompts_page(Path(path).name, loaded.prompts, tables).encode())
    if as_json:
        _print_json({**figures, "characters": characters, "answers": kinds})
        return
    _print_figures(figures)
    if characters:
        typer.echo("Lengths, characters:")
        rows = [(name, *(f"{value:,}" for value in found.values())) for name, found in characters.items()]
        for line in as_table(("", *characters["problem"]), rows):
            typer.echo(line)
    if figures["turns"]:
        shown = ", ".join(f"{number} before {count:,}" for number, count in figures["turns"].items())
        typer.echo(f"Earlier turns: {shown}")
    for name, counts in {**figures["labels"], "answers": kinds}.items():
        if counts:
            left_out = f", the {_SHOWN} most frequent of {len(counts):,}" if len(counts) > _SHOWN else ""
            typer.echo(f"{title_of(name)}{left_out}:")
        for label, number in list(counts.items())[:_SHOWN]:
            typer.echo(f"  {number:>9,}  {label or '(none)'}")


@app.command("diff")
def diff_command(
    old: Annotated[str, typer.Argument(help="The earlier set.")],
    new: Annotated[str, typer.Argument(help="The later set.")],
    kind: Format = "auto",
    problem: ProblemColumn = None,
    answer: AnswerColumn = None,
    layout: Layout = "auto",
    problem_rule: ProblemRule = "text",
    answer_rule: AnswerRule = "field",
    as_json: AsJson = False,
) -> None:
    """What changed between two sets: same, relabelled, edited, new and removed prompts."""
    columns = ColumnsConfig(problem=problem, answer=answer)
    before, after = (
        _loaded(_data(path, kind, columns, layout, problem_rule, answer_rule)).prompts for path in (old, new)
    )
    found = difference(before, after)
    if as_json:
        _print_json(_difference_json(found))
        return
    typer.echo(", ".join(f"{number:,} {fate}" for fate, number in found.counts().items()))
    for edit in found.edited[:_SHOWN]:
        typer.echo(f"  edited {edit.old.id[:12]} -> {edit.new.id[:12]} ({edit.what}): {_short(edit.new.problem)}")
    for fate, prompts in (("new", found.new), ("removed", found.removed)):
        for prompt in prompts[:_SHOWN]:
            typer.echo(f"  {fate} {prompt.id[:12]}: {_short(prompt.problem)}")


def _number(held_out: str, prompts: int, path: str) -> int:
    """--held-out, a number of prompts or a share of them, as a number."""
    try:
        wanted = float(held_out)
    except ValueError:
        wanted = 0.0
    if not (0 < wanted < 1 or (wanted >= 1 and wanted.is_integer())):
        raise ConfigError(
            f"--held-out {held_out}: write how many prompts, as in 200, or which share of them, as in 0.1"
        )
    number = round(wanted * prompts) if wanted < 1 else int(wanted)
    if not 0 < number < prompts:
        raise ConfigError(
            f"--held-out {held_out}: of {prompts:,} prompts in {path}, hold at least one out, and not all"
        )
    return number


def _inputs() -> Inputs:
    return Inputs(Path(StoreConfig().folder) / "inputs")


def _loaded(cfg: DataConfig) -> Loaded:
    return load_prompts(cfg, source=_inputs().local(cfg.path))


def _data(
    path: str,
    kind: str,
    columns: ColumnsConfig | None = None,
    layout: str = "auto",
    problem_rule: str = "text",
    answer_rule: str = "field",
    language: str | None = None,
    max_reject_share: float = 0.05,
) -> DataConfig:
    return _changed(
        DataConfig(path=path, columns=columns or ColumnsConfig()),
        format=kind,
        layout=layout,
        problem_rule=problem_rule,
        answer_rule=answer_rule,
        language=language,
        max_reject_share=max_reject_share,
    )


def _changed(cfg: DataConfig, **values: Any) -> DataConfig:
    try:
        return DataConfig.model_validate({**cfg.model_dump(), **values})
    except ValidationError as error:
        raise ConfigError(explain(error, "the command line")) from error


@contextmanager
def _refusal_as_json(wanted: bool) -> Iterator[None]:
    try:
        yield
    except DataRejected as error:
        if wanted:
            _print_json({"accepted": False, "error": str(error)})
        raise


@contextmanager
def _gold_judge(kind: str | None) -> Iterator[GoldJudge]:
    if kind is None:
        yield NO_VERIFIER
        return
    with make_verifier(reward_of(kind)) as verifier:
        yield verifier


def _suite(text: str) -> SuiteConfig:
    name, equals, path = text.partition("=")
    if not equals:
        raise ConfigError(f"--suite {masked(text)!r}: write NAME=PATH")
    try:
        return SuiteConfig(name=name, path=path)
    except ValidationError as error:
        raise ConfigError(explain(error, "--suite (a name may hold a-z, 0-9, dot, dash and underscore)")) from error


def _validate_profile(run: RunConfig, suites: list[SuiteConfig], folder: Path) -> ValidationSummary:
    """What a run's own validation would say: its data, its suites, and its verifier's word on the gold answers."""
    from tasks.validation.golds import gold_judges
    from tasks.validation.sources import require_sources
    from tasks.validation.tokens import misfits, rooms_if_known, token_counter

    every, locate = [*suites, *run.evaluation.suites], Inputs.of(run).local
    with gold_judges(run) as (judge, of_suites):
        count, shown, fit = token_counter(run), one_message(run), misfits(run, rooms_if_known(run))
        summary = validate(run.data, every, folder, judge, count, of_suites, locate, shown, fit)
    require_sources(run, PromptSet.read_parquet(folder / "prompts.parquet").column("source"))
    return summary


@contextmanager
def _kept_or_temporary(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="cures-validate-") as folder:
        yield Path(folder)


def _write_set(prompts: PromptSet, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".parquet":
        scratch = target.with_name(f".{target.name}.tmp")
        prompts.write_parquet(scratch)
        scratch.replace(target)
    else:
        fields = [name for name in COLUMNS if name not in LATER or any(prompts.column(name))]
        columns = zip(*(prompts.column(name) for name in fields), strict=True)
        rows = (dict(zip(fields, values, strict=True)) for values in columns)
        write_atomic(target, b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))


def _lengths(prompts: PromptSet) -> dict[str, dict[str, int]]:
    """Characters of problems and answers: smallest, quantiles, largest."""
    points: dict[str, float] = {"min": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "99 %": 0.99, "max": 1.0}
    if not len(prompts):
        return {}
    lengths = {name: np.array([len(t) for t in prompts.column(name)]) for name in ("problem", "answer")}
    return {
        name: {label: int(np.quantile(values, q, method="lower")) for label, q in points.items()}
        for name, values in lengths.items()
    }


def _difference_json(found: Difference) -> dict[str, object]:
    return {
        "counts": found.counts(),
        "edited": [
            {"old": e.old.id, "new": e.new.id, "what": e.what, "similarity": e.similarity} for e in found.edited
        ],
        "relabelled": [p.id for p, _ in found.relabelled],
        "new": [p.id for p in found.new],
        "removed": [p.id for p in found.removed],
    }


def _print_figures(figures: FileSummary) -> None:
    typer.echo(
        f"{figures['file']}: {figures['rows_read']:,} rows, {figures['kept']:,} kept, "
        f"{figures['rejected']:,} rejected, {figures['dropped']:,} dropped; content digest {figures['digest'][:12]}"
    )
    read_as = figures["read_as"]
    typer.echo(
        f"read as {read_as['layout']}: problem from {read_as['problem']}, answer from {read_as['answer']}; "
        f"{read_as['why']}"
    )
    for reason, number in figures["reasons"].items():
        typer.echo(f"  {number:>9,}  {reason}")


def _print_json(value: Mapping[str, object]) -> None:
    typer.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True))


def _short(text: str) -> str:
    return ascii(text)[1:-1][:80]
