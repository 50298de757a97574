"""Knows the validation of a prompt set with its suites from files to files; the stage around it commits the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from cures_core.config.data import DataConfig, PromptFile, SuiteConfig
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, DataRejected
from cures_core.files import canonical_json, write_atomic
from cures_core.prompts import Loaded, PromptSet, annotated, load_prompts, require_acceptable
from cures_core.prompts.chats import read_turns
from cures_core.prompts.checks import NO_VERIFIER, GoldJudge, Tokens
from cures_core.prompts.defects import Defect, Flaw
from cures_core.prompts.flags import flagged_rows, flags_digest, read_flags
from cures_core.prompts.loading import without_turns
from cures_core.prompts.near import near_copies
from cures_core.prompts.overlap import KINDS, Match, find_overlap, overlap_flaw
from tasks.validation.expectations import Expectations, run_expectations

SCHEMA = 1
MAX_MATCHES = 200
MAX_LABELS = 200
DATA = ""
"""Stands for the prompt set where suites go by their names."""

Misfits = Callable[[str, PromptSet], Iterable[tuple[int, Flaw]]]
"""Which prompts of a set, by its name, the policy cannot be asked: index, and why."""


class FileSummary(TypedDict):
    """A file's figures."""

    file: str
    read_as: dict[str, str]
    """layout, the places of problem and answer, and why."""
    file_digest: str
    digest: str
    """Of the clean prompts."""
    rows_read: int
    kept: int
    rejected: int
    dropped: int
    reasons: dict[str, int]
    """Rows by reason of what is wrong with them."""
    golds_rejected: dict[str, int]
    """Rows whose gold answer their verifier cannot use, by source."""
    labels: dict[str, dict[str, int]]
    """Prompts by source, level and subject, the most common first."""
    turns: dict[str, int]
    """Prompts with earlier turns by the number of those; empty for a set without."""


class MatchRow(TypedDict):
    """A prompt that is an item of a suite too, or nearly."""

    line: int
    id: str
    suite: str
    item: str
    kind: str
    share_8: float
    share_13: float


class ContaminationTable(TypedDict):
    """How prompts and suites overlap."""

    policy: str
    by_suite: dict[str, dict[str, int]]
    """Matches by suite and kind."""
    trained_on: dict[str, int]
    """Items of each suite that are trained on: none, unless the policy is to warn."""
    matches: list[MatchRow]
    """The strongest ones."""


class FlagsSummary(TypedDict):
    """The list of flagged prompts."""

    version: str
    listed: int
    taken_out: int


class ExpectationsSummary(TypedDict):
    """The expectations in two figures."""

    success: bool
    failed_critical: int


class ValidationSummary(TypedDict):
    """validation.json."""

    schema: int
    prompts: FileSummary
    suites: dict[str, FileSummary]
    contamination: ContaminationTable
    flags: FlagsSummary
    expectations: ExpectationsSummary


def validate(
    cfg: DataConfig,
    suites: Sequence[SuiteConfig],
    out_dir: Path,
    judge: GoldJudge = NO_VERIFIER,
    count_tokens: Tokens | None = None,
    judge_of_suite: Mapping[str, GoldJudge] | None = None,
    locate: Callable[[str], Path] = Path,
    one_message: Collection[str] = (),
    misfits: Misfits | None = None,
) -> ValidationSummary:
    """Read and check everything, leave out what the suites hold, run the expectations, write it all to `out_dir`.

    `judge`, the run's verifier, looks at all gold answers and says which are one, but for the suites that
    `judge_of_suite` names. `locate` says where the bytes of a configured path lie. `one_message` names the suites
    (`DATA` for the prompts) whose problems the policy is shown as one message: their rows may have no earlier turns.
    What `misfits` finds is rejected.

    Files: prompts.parquet, suites/<name>.parquet, quarantine.jsonl (rejected and dropped rows), warnings.jsonl,
    expectations.json, data_docs/, validation.json (what is returned). All but data_docs/ are the same bytes for the
    same input. Raises what `load_prompts` raises, and `DataRejected` for a set or suite that is not acceptable; the
    lists of rows are written first, so that the reasons can be read.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    if twice := [name for name, number in Counter(suite.name for suite in suites).items() if number > 1]:
        raise ConfigError(f"two evaluation suites are named {twice[0]!r}; give each its own name")
    flags = {} if cfg.flags is None else read_flags(Path(cfg.flags))
    judges = {s.name: (judge_of_suite or {}).get(s.name, judge) for s in suites}

    def loaded_from(name: str, file: PromptFile, judge: GoldJudge) -> Loaded:
        found = load_prompts(file, judge=judge, count_tokens=count_tokens, source=locate(file.path))
        found = without_turns(found) if name in one_message else found
        return _unflagged(found if misfits is None else annotated(found, misfits(name, found.prompts)), flags)

    read = {s.name: loaded_from(s.name, s, judges[s.name]) for s in suites}
    loaded = loaded_from(DATA, cfg, judge)
    loaded = annotated(loaded, _near_flaws(cfg, loaded, judge))
    matches = list(find_overlap(loaded.prompts, {name: suite.prompts for name, suite in read.items()}, judge))
    clean = annotated(loaded, ((i, overlap_flaw(match, cfg.contamination)) for i, match in matches))
    files = [clean, *read.values()]
    _write_defects(out_dir / "quarantine.jsonl", [d for one in files for d in one.quarantine])
    _write_defects(out_dir / "warnings.jsonl", [d for one in files for d in one.warnings])
    for suite in suites:
        require_acceptable(read[suite.name], suite)
    if cfg.contamination == "reject":
        _refuse_leaks(cfg, loaded, matches)
    require_acceptable(clean, cfg)
    expectations = run_expectations(clean.prompts.table.to_pandas(), out_dir, cfg)
    write_atomic(out_dir / "expectations.json", canonical_json(expectations))
    _require_expectations(cfg, expectations, out_dir)
    _write_sets(out_dir, clean.prompts, {name: suite.prompts for name, suite in read.items()})
    summary: ValidationSummary = {
        "schema": SCHEMA,
        "prompts": describe(clean),
        "suites": {name: describe(suite) for name, suite in read.items()},
        "contamination": contamination_table(cfg, loaded, matches, list(read)),
        "flags": {
            "version": flags_digest(flags),
            "listed": len(flags),
            "taken_out": sum(file.counts.get("flagged", 0) for file in files),
        },
        "expectations": {
            "success": expectations["success"],
            "failed_critical": expectations["failed_critical"],
        },
    }
    write_atomic(out_dir / "validation.json", canonical_json(summary))
    return summary


def one_message(cfg: RunConfig) -> frozenset[str]:
    """What of a run's sets the policy is shown as one message, not as a chat: names as for `validate`."""
    formats = {DATA: cfg.rollout.prompt_format}
    formats |= {suite.name: suite.prompt_format or cfg.rollout.prompt_format for suite in cfg.evaluation.suites}
    return frozenset(name for name, shown in formats.items() if not shown.chat)


def _near_flaws(cfg: DataConfig, loaded: Loaded, judge: GoldJudge) -> Iterator[tuple[int, Flaw]]:
    if cfg.near_duplicates == "off":
        return
    problems, answers = loaded.prompts.conversations(), loaded.prompts.column("answer")
    for i, j, share in near_copies(problems):
        prompt = loaded.prompts[i]
        same = judge.of(prompt.source, prompt.verifier).same_answer(answers[i], answers[j])
        code = "near_duplicate_copy" if same and cfg.near_duplicates == "drop" else "near_duplicate"
        detail = f"{share:.0%} of line {loaded.lines[j]}" + ("" if same else ", with another answer")
        yield i, (code, detail)


def _unflagged(loaded: Loaded, flags: dict[str, str]) -> Loaded:
    return annotated(loaded, flagged_rows(loaded.prompts, flags)) if flags else loaded


def describe(loaded: Loaded) -> FileSummary:
    """A file's figures: digests, rows by fate, reasons, and how many prompts each label has."""
    prompts = loaded.prompts
    return {
        "file": loaded.file,
        "read_as": loaded.taken.as_dict(),
        "file_digest": loaded.file_digest,
        "digest": prompts.digest,
        "rows_read": loaded.rows_read,
        "kept": len(prompts),
        "rejected": loaded.rejected,
        "dropped": loaded.dropped,
        "reasons": loaded.counts,
        "golds_rejected": loaded.golds_rejected,
        "labels": {name: _most_common(prompts.column(name)) for name in ("source", "level", "subject")},
        "turns": _turns(prompts),
    }


def contamination_table(
    cfg: DataConfig, loaded: Loaded, matches: Sequence[tuple[int, Match]], suites: Sequence[str]
) -> ContaminationTable:
    """Matches by suite and kind, the strongest ones with the line they stand on, and by suite how many of its items are
    trained on: none, unless the policy is to warn."""
    counts = Counter((match.suite, match.kind) for _, match in matches)
    trained_on = {(match.suite, match.item) for _, match in matches if match.leak and cfg.contamination == "warn"}
    strongest = sorted(matches, key=lambda found: (KINDS.index(found[1].kind), -found[1].share_8, found[0]))
    return {
        "policy": cfg.contamination,
        "by_suite": {suite: {kind: counts[suite, kind] for kind in KINDS} for suite in sorted(suites)},
        "trained_on": {suite: sum(suite == held for held, _ in trained_on) for suite in sorted(suites)},
        "matches": [
            {
                "line": int(loaded.lines[i]),
                "id": loaded.prompts.ids[i],
                "suite": match.suite,
                "item": match.item,
                "kind": match.kind,
                "share_8": match.share_8,
                "share_13": match.share_13,
            }
            for i, match in strongest[:MAX_MATCHES]
        ],
    }


def _refuse_leaks(cfg: DataConfig, loaded: Loaded, matches: Sequence[tuple[int, Match]]) -> None:
    leaks = [(i, match) for i, match in matches if match.leak]
    if not leaks:
        return
    shown = "\n".join(
        f"  {loaded.file}:{loaded.lines[i]}: {overlap_flaw(match, cfg.contamination)[1]}" for i, match in leaks[:20]
    )
    raise DataRejected(
        f"{loaded.file}: {len(leaks):,} prompts are in an evaluation suite too, and data.contamination is reject. "
        f'Remove them, or set it to "drop".\n{shown}'
    )


def _require_expectations(cfg: DataConfig, expectations: Expectations, out_dir: Path) -> None:
    failed = [row for row in expectations["expectations"] if not row["success"] and row["severity"] == "critical"]
    if failed:
        lines = [
            f"  {row['expectation']}({row['column']}): {row['description']}; {row['unexpected']:,} rows "
            f"{' '.join(row['failing_ids'][:1])} {row['error']}".rstrip()
            for row in failed
        ]
        head = f"{cfg.path}: {len(failed)} expectations failed on the cleaned set; see {out_dir}/data_docs/index.html"
        raise DataRejected("\n".join([head, *lines]))


def _write_defects(path: Path, defects: Sequence[Defect]) -> None:
    write_atomic(path, b"".join(canonical_json(defect.as_dict()) + b"\n" for defect in defects))


def _write_sets(out_dir: Path, prompts: PromptSet, suites: dict[str, PromptSet]) -> None:
    prompts.write_parquet(out_dir / "prompts.parquet")
    (out_dir / "suites").mkdir(exist_ok=True)
    for name, suite in suites.items():
        suite.write_parquet(out_dir / "suites" / f"{name}.parquet")


def _turns(prompts: PromptSet) -> dict[str, int]:
    numbers = Counter(len(read_turns(text)) for text in prompts.column("turns") if text)
    return {str(number): numbers[number] for number in sorted(numbers)}


def _most_common(values: Sequence[str]) -> dict[str, int]:
    counts = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    return dict(counts[:MAX_LABELS])
