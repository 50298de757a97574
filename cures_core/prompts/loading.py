"""Knows how a file becomes a `PromptSet`: read, examine every row, compare rows with rows, and account for each one."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cures_core.config.data import PromptFile
from cures_core.errors import ConfigError, DataRejected
from cures_core.prompts.canonical import coarse
from cures_core.prompts.checks import NO_VERIFIER, Fields, GoldJudge, Remembering, Same, Tokens, examine
from cures_core.prompts.columns import MISSING, pick
from cures_core.prompts.defects import REASONS, Defect, Flaw, Severity, escaped
from cures_core.prompts.duplicates import repeated_groups, same_ids, same_problems
from cures_core.prompts.identity import content_id
from cures_core.prompts.language import other_language, require_language
from cures_core.prompts.layouts import Taken
from cures_core.prompts.lines import Snapshot
from cures_core.prompts.placeholders import missing_answers
from cures_core.prompts.promptset import COLUMNS, PromptSet
from cures_core.prompts.reading import COLUMNAR, Row, format_of, open_rows

MAX_QUARANTINE = 100_000
"""Defects of rejected and dropped rows that are kept in detail; counts go on beyond it."""

MAX_EXAMPLES = 1_000
"""Warnings and repairs kept in detail for each reason."""

_FLUSH_ROWS = 50_000


@dataclass(frozen=True)
class Loaded:
    """What became of a file: every row read is in `prompts`, or counted in `rejected` or `dropped`."""

    file: str
    taken: Taken
    """The layout that the file was read in, and why."""
    unit: str
    """What `lines` count: "" for lines of text, "row " for rows of columnar files."""
    prompts: PromptSet
    lines: npt.NDArray[np.int64]
    """Line (row, for columnar files) of every prompt, in the order of `prompts`."""
    quarantine: list[Defect]
    """Why rows were rejected or dropped, in file order; the first 100,000."""
    warnings: list[Defect]
    """Repairs and warnings of rows, in file order; the first 1,000 for each reason."""
    counts: dict[str, int]
    """Occurrences by reason, most frequent first."""
    rows_read: int
    rejected: int
    """Rows rejected."""
    dropped: int
    """Rows dropped although nothing is wrong with them: copies and contaminated ones."""
    file_digest: str
    """SHA-256 of the file's bytes, hex."""
    golds_rejected: dict[str, int]
    """Rows whose gold answer their verifier cannot use, by source."""


def load_prompts(
    cfg: PromptFile,
    *,
    judge: GoldJudge = NO_VERIFIER,
    check_golds: bool = True,
    count_tokens: Tokens | None = None,
    source: Path | None = None,
) -> Loaded:
    """Read, check and deduplicate a prompt file.

    `source` is where its bytes lie, if `cfg.path` is only its name. `judge` is the run's verifier: of every row the one
    that is responsible says whether it can use the answer as gold (unless `check_golds` is False; it is asked once for
    each answer), and whether two gold answers are one, so that rows with one problem are copies, or contradict each
    other otherwise.

    Raises `MissingInput`, `ConfigError`, `DataRejected` (the file as a whole cannot be read) or `TryAgain` (it changed
    meanwhile). Bad rows never raise: see `require_acceptable`.
    """
    if cfg.max_problem_tokens is not None and count_tokens is None:
        raise ConfigError(f"{cfg.path}: max_problem_tokens needs a tokenizer, and this command has none; leave it out")
    if cfg.language is not None:
        require_language(cfg.language)
    if unknown := sorted(set(cfg.max_reason_share) - set(REASONS)):
        raise ConfigError(
            f"{cfg.path}: max_reason_share names {unknown[0]!r}; reasons are {', '.join(sorted(REASONS))}"
        )
    path = source or Path(cfg.path)
    snapshot = Snapshot.of(path)
    judge = Remembering(judge, check_golds)
    cfg, columns, taken, rows = open_rows(cfg, path)
    columnar = format_of(path, cfg.format) in COLUMNAR
    log, kept = _Log(cfg.path, "row " if columnar else "", taken), _Kept()
    for row in rows:
        fields, flaws = (None, row.flaws) if row.record is None else examine(row.record, columns, cfg, row.raw, judge)
        if row.record is not None:
            flaws = [*row.flaws, *flaws, *_asked(fields, cfg, count_tokens)]
        if fields is not None and any(code == "gold_rejected" for code, _ in flaws):
            log.golds_rejected[fields.source] += 1
        if flaws and log.rejects(row, flaws):
            continue
        if fields is not None:
            kept.add(row.line, fields, pick(row.record or {}, columns.id))
    snapshot.check()
    return _compare_rows(log, kept, snapshot.digest, judge)


def annotated(loaded: Loaded, found: Iterable[tuple[int, Flaw]]) -> Loaded:
    """The same with flaws (index in `prompts`, flaw) added; prompts with a dropping or rejecting one are taken out."""
    log = _Log(loaded.file, loaded.unit, loaded.taken, loaded)
    keep = log.whole_rows(found, loaded.prompts.table, loaded.lines)
    return log.loaded(loaded.prompts.table.filter(pa.array(keep)), loaded.lines[keep], loaded.file_digest)


def require_acceptable(loaded: Loaded, cfg: PromptFile) -> None:
    """`DataRejected` with a table of reasons if too large a share of the rows was rejected or shows a limited reason,
    or if no prompt is left."""
    share = loaded.rejected / max(loaded.rows_read, 1)
    _require_reasons(loaded, cfg)
    if len(loaded.prompts) and share <= cfg.max_reject_share:
        return
    head = (
        f"{loaded.file}: {loaded.rejected:,} of {loaded.rows_read:,} rows rejected ({share:.1%}, allowed "
        f"{cfg.max_reject_share:.1%}), {loaded.dropped:,} dropped, {len(loaded.prompts):,} kept."
    )
    head += f"\n  {loaded.taken}"
    raise DataRejected("\n".join([head, *reasons_table(loaded)]) if loaded.rows_read else f"{loaded.file}: no rows")


def _require_reasons(loaded: Loaded, cfg: PromptFile) -> None:
    for reason, allowed in sorted(cfg.max_reason_share.items()):
        number = loaded.counts.get(reason, 0)
        if number > allowed * loaded.rows_read:
            example = next((d.message for d in [*loaded.quarantine, *loaded.warnings] if d.reason == reason), "")
            raise DataRejected(
                f"{loaded.file}: {number:,} of {loaded.rows_read:,} rows show {reason} "
                f"({number / loaded.rows_read:.1%}, allowed {allowed:.1%}). First: {example}"
            )


def reasons_table(loaded: Loaded) -> list[str]:
    """A line for each reason that took rows: count, reason, what it means, where it was first seen, remedy."""
    first: dict[str, Defect] = {}
    for defect in loaded.quarantine:
        first.setdefault(defect.reason, defect)
    taken = [(reason, number) for reason, number in loaded.counts.items() if reason in first]
    width = max((len(reason) for reason, _ in taken), default=0)
    return [f"  {number:>9,}  {reason:<{width}}  first: {first[reason].message}" for reason, number in taken]


def _asked(fields: Fields | None, cfg: PromptFile, tokens: Tokens | None) -> list[Flaw]:
    """What takes more than a look at the text: the caller's tokenizer, and the language."""
    flaws: list[Flaw] = []
    if fields is None:
        return flaws
    limit = cfg.max_problem_tokens
    if limit is not None and tokens is not None and (number := tokens(fields.problem)) > limit:
        flaws.append(("too_many_tokens", f"{number:,} tokens"))
    if cfg.language is not None and (flaw := other_language(fields.problem, cfg.language)) is not None:
        flaws.append(flaw)
    return flaws


class _Log:
    """Counts and keeps defects."""

    def __init__(self, file: str, unit: str, taken: Taken, before: Loaded | None = None) -> None:
        self._file, self._unit, self._taken = file, unit, taken
        self._quarantine = list(before.quarantine) if before else []
        self._warnings = list(before.warnings) if before else []
        self._counts: Counter[str] = Counter(before.counts if before else {})
        self.golds_rejected: Counter[str] = Counter(before.golds_rejected if before else {})
        self._rejected, self._dropped = (before.rejected, before.dropped) if before else (0, 0)

    def rejects(self, row: Row, flaws: Iterable[Flaw]) -> bool:
        """Note the flaws of a row that was just read; True if it is rejected."""
        excerpt = escaped(row.raw or repr(row.record))
        severities = {self._note(row.line, row.unit, excerpt, flaw) for flaw in flaws}
        self._rejected += Severity.REJECTED in severities
        return Severity.REJECTED in severities

    def whole_rows(
        self, found: Iterable[tuple[int, Flaw]], table: pa.Table, lines: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Note flaws (position, flaw) of rows that were good by themselves; which rows stay."""
        keep = np.ones(table.num_rows, dtype=np.bool_)
        for i, flaw in found:
            severity = self._note(int(lines[i]), self._unit, escaped(table.column("problem")[i].as_py()), flaw)
            if severity in (Severity.REJECTED, Severity.DROPPED) and keep[i]:
                keep[i] = False
                self._rejected += severity is Severity.REJECTED
                self._dropped += severity is Severity.DROPPED
        return keep

    def _note(self, line: int, unit: str, excerpt: str, flaw: Flaw) -> Severity:
        code, detail = flaw
        severity = REASONS[code].severity
        self._counts[code] += 1
        defect = Defect(self._file, line, code, severity, detail, excerpt, unit)
        if severity in (Severity.REJECTED, Severity.DROPPED):
            if len(self._quarantine) < MAX_QUARANTINE:
                self._quarantine.append(defect)
        elif self._counts[code] <= MAX_EXAMPLES:
            self._warnings.append(defect)
        return severity

    def loaded(self, table: pa.Table, lines: npt.NDArray[np.int64], digest: str) -> Loaded:
        """The outcome, with the rows that were kept."""
        order = np.asarray(pc.sort_indices(table.column("id")))
        kept = table.num_rows
        return Loaded(
            file=self._file,
            taken=self._taken,
            unit=self._unit,
            prompts=PromptSet(table),
            lines=lines[order],
            quarantine=sorted(self._quarantine, key=lambda d: (d.line, d.reason)),
            warnings=sorted(self._warnings, key=lambda d: (d.line, d.reason)),
            counts=dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))),
            rows_read=kept + self._rejected + self._dropped,
            rejected=self._rejected,
            dropped=self._dropped,
            file_digest=digest,
            golds_rejected=dict(sorted(self.golds_rejected.items())),
        )


class _Kept:
    """Good rows so far: columns in Arrow, and for each row its line and two 64-bit keys for the comparison of rows."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._rows: list[tuple[str, ...]] = []
        self.lines, self.problem_keys, self.id_keys = array("q"), array("Q"), array("Q")

    def add(self, line: int, fields: Fields, given_id: object) -> None:
        self._rows.append((content_id(fields.problem, fields.answer), *fields))
        self.lines.append(line)
        self.problem_keys.append(_key(coarse(fields.problem)))
        self.id_keys.append(
            0 if given_id is MISSING or given_id is None else _key(str(given_id).encode("utf-8", "surrogatepass"))
        )
        if len(self._rows) >= _FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        columns: Iterable[Sequence[str]] = zip(*self._rows, strict=True) if self._rows else [()] * len(COLUMNS)
        arrays = [pa.array(column, pa.large_string()) for column in columns]
        self._tables.append(pa.Table.from_arrays(arrays, names=list(COLUMNS)))
        self._rows = []

    def table(self) -> pa.Table:
        self._flush()
        return pa.concat_tables(self._tables)


def _key(data: bytes) -> int:
    """Groups rows within this process; what is in a group is compared afterwards."""
    return hash(data) & 0xFFFF_FFFF_FFFF_FFFF


def _compare_rows(log: _Log, kept: _Kept, digest: str, judge: GoldJudge) -> Loaded:
    """Find copies, contradictions and marks of missing answers among the good rows."""
    table = kept.table()
    lines = np.array(kept.lines, dtype=np.int64)
    found = list(same_ids(np.array(kept.id_keys, dtype=np.uint64), lines))
    missing = missing_answers(table.column("problem"), table.column("answer"))
    found += [(row, ("answer_not_math", seen)) for row, seen in missing]
    for group in repeated_groups(np.array(kept.problem_keys, dtype=np.uint64)):
        rows = table.take(pa.array(group))
        problems, answers = rows.column("problem").to_pylist(), rows.column("answer").to_pylist()
        same = _same_to_any(judge, rows)
        found += same_problems(group.tolist(), problems, answers, lines[group].tolist(), same)
    keep = log.whole_rows(found, table, lines)
    return log.loaded(table if keep.all() else table.filter(pa.array(keep)), lines[keep], digest)


def _same_to_any(judge: GoldJudge, rows: pa.Table) -> Same:
    """Whether two answers are one to any verifier that is responsible for some of these rows."""
    labels = zip(rows.column("source").to_pylist(), rows.column("verifier").to_pylist(), strict=True)
    judges = dict.fromkeys(judge.of(source, name) for source, name in labels)
    return lambda first, second: any(one.same_answer(first, second) for one in judges)
