"""What the Prefect UI shows of a run beside its log: scores, the posterior, links, and how far a long stage has come.

Artifacts are a view. If the server does not take one, the run goes on and the log says so.
"""

from __future__ import annotations

import base64
import contextvars
import functools
import json
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from cures_core.config.run import RunConfig
from cures_core.curriculum import load_posterior
from cures_core.events import PartDone, StepDone
from tasks.progress import Event, StageEnded, StageStarted, listening
from tasks.runs.reading import RunRecords
from tasks.runs.records import files_of
from tasks.runs.summary import RunSummary
from tasks.storage import open_store

_log = logging.getLogger(__name__)
_EVERY_S = 5.0
TableRow = dict[str, JsonValue]


def publish_outcome(config: RunConfig, summary: RunSummary, records: RunRecords) -> None:
    """Scores table, expectations, posterior picture, links to report, docs and snapshot. Keys carry the run's name.

    After the run's end, because a server that is away is waited for; if it does not come back, the rest is left out.
    """
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    key, scores, store = artifact_key(summary.run), score_rows(summary), open_store(config.store)
    data, states = records.data, list(records.states.values())
    assert data is not None  # the run is over
    picture = posterior_picture([files_of(store, s) / "posterior.parquet" for s in (states[0], states[-1])])
    rows = expectation_rows(json.loads((files_of(store, data) / "expectations.json").read_bytes()))
    docs = store.local_path(data.files or "") / "data_docs" / "index.html"
    links = links_text(summary, docs if docs.exists() else None)
    tables = [(rows, "expectations", "Checks of the clean set")]
    if scores:
        tables.insert(0, (scores, "scores", "Scores before and after"))
    texts = [(picture, "posterior", "Pass rates"), (links, "links", "Where its results are")]
    publications: list[Callable[[], object]] = [
        *(functools.partial(create_table_artifact, table, f"{name}-{key}", what) for table, name, what in tables),
        *(functools.partial(create_markdown_artifact, text, f"{name}-{key}", what) for text, name, what in texts),
    ]
    for publish in publications:
        if not _try(publish):
            return


def score_rows(summary: RunSummary) -> list[TableRow]:
    """One row for each suite and measure."""
    return [
        {
            "suite": score.suite,
            "measure": score.measure,
            "before": round(score.before.value, 4),
            "after": round(score.after.value, 4),
            "gain": round(score.gain.value, 4),
            "interval": f"{score.gain.low:+.4f} .. {score.gain.high:+.4f}",
            "n": score.n,
            "k": score.k,
        }
        for score in summary.scores
    ]


def expectation_rows(found: Mapping[str, Sequence[TableRow]]) -> list[TableRow]:
    """One row for each expectation of Great Expectations, unmet ones first."""
    shown = ("expectation", "column", "description", "severity", "success", "unexpected")
    rows = [{name: row[name] for name in shown} for row in found["expectations"]]
    return sorted(rows, key=lambda row: bool(row["success"]))


def posterior_picture(posteriors: list[Path]) -> str:
    """Markdown with a histogram of expected pass rates as an image inside: the first file outlined, the last filled."""
    from cures_core.report.charts import histograms

    counts = [load_posterior(path).summary()["histogram"] for path in posteriors]
    svg = histograms("Expected pass rates of the prompts", ["prior", "now"], counts, "pass rate", "prompts")
    found = re.search(r"<svg.*?</svg>", svg, re.S)
    drawn = found[0] if found else svg
    if "xmlns=" not in drawn[:300]:
        drawn = drawn.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"![posterior](data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()})\n"


def links_text(summary: RunSummary, docs: Path | None) -> str:
    """Paths as code: a browser would not follow them from the server's page."""
    prompts, decision = summary.prompts, summary.promoted
    lines = [
        f"- report: `{summary.report}`",
        *([] if docs is None else [f"- Data Docs: `{docs}`"]),
        f"- snapshot: `{summary.snapshot}`",
        f"- prompts: {prompts.kept:,} kept, {prompts.reset:,} reset, {prompts.archived:,} archived",
    ]
    if decision is not None:
        lines.append(f"- {'promoted' if decision.promoted else 'not promoted'}: {' '.join(decision.reasons)}")
    return "\n".join(lines) + "\n"


@contextmanager
def progress_artifacts(steps_per_epoch: int) -> Iterator[None]:
    """One progress bar for each stage that reports progress, renewed at most every five seconds.

    From a thread: a server that does not answer must not keep the job's events, and so the job, waiting.
    """
    percents: dict[str, float] = {}
    stage, closing = "", threading.Event()

    def listen(event: Event) -> None:
        nonlocal stage
        if isinstance(event, StageStarted):
            stage = event.stage
        elif isinstance(event, StageEnded):
            if stage in percents:
                percents[stage] = 100.0
            stage = ""
        elif stage and (percent := percent_done(event, steps_per_epoch)) is not None:
            percents[stage] = percent

    context = contextvars.copy_context()  # it names the flow run that the bars belong to
    thread = threading.Thread(target=context.run, args=(_show_until, closing, percents), name="progress", daemon=True)
    thread.start()
    try:
        with listening(listen):
            yield
    finally:
        closing.set()
        thread.join(_EVERY_S)


def _show_until(closing: threading.Event, percents: Mapping[str, float]) -> None:
    bars: dict[str, uuid.UUID] = {}
    shown: dict[str, float] = {}
    last = False
    while not last:
        last = closing.wait(_EVERY_S)
        for stage, percent in tuple(percents.items()):
            if shown.get(stage) != percent and _try(functools.partial(_show, bars, stage, percent)):
                shown[stage] = percent


def percent_done(event: Event, steps_per_epoch: int) -> float | None:
    """0..100, or None for an event that says nothing about progress."""
    if isinstance(event, StepDone):
        return max(0.0, min(100.0, 100 * (1 - (event.last_step - event.step) / steps_per_epoch)))
    return 100.0 * event.done / event.total if isinstance(event, PartDone) and event.total else None


def artifact_key(name: str) -> str:
    """Lower-case letters, digits and dashes, as Prefect wants them."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _show(bars: dict[str, uuid.UUID], stage: str, percent: float) -> None:
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    if stage in bars:
        update_progress_artifact(bars[stage], progress=percent)
    else:
        made: Any = create_progress_artifact(progress=percent, key=artifact_key(stage), description=stage)
        bars[stage] = made


def _try(publish: Callable[[], object]) -> bool:
    import httpx
    from prefect.exceptions import PrefectException

    try:
        publish()
        return True
    except (PrefectException, httpx.HTTPError, OSError) as error:
        _log.warning("an artifact was not published (%s); the run goes on", type(error).__name__)
        return False
