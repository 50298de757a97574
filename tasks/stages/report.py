"""Stage: one self-contained HTML page about a run, made from the records alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter

from cures_core.curriculum import load_posterior
from cures_core.kept_rollouts.redaction import Redactor
from cures_core.policy.solutions import REASONS
from cures_core.report import ReportData, render
from cures_core.report.calibration import Bin, Calibrated, by_epoch
from cures_core.report.run_data import Belief, Named, SnapshotTag, Stage, Suspects, Validation, Verdict
from tasks.runs.by_source import source_rows
from tasks.runs.examples import examples
from tasks.runs.figures import EpochFigures, Figures, PolicyFigures, PriorFigures, ReportFigures, ValidateFigures
from tasks.runs.notable_prompts import named_prompts, suspicious_items
from tasks.runs.notes import read_started
from tasks.runs.prompt_stories import prompt_stories
from tasks.runs.reading import RunRecords
from tasks.runs.records import Record, RunRef, files_of
from tasks.runs.scores import ScoreChange, gains
from tasks.runs.training import Metrics, accounts, entropy_of, metric_lines, number, scored, steps, wasted
from tasks.stages.stage import Made, as_stage, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import Store

SCHEMA = 6
_BINS = TypeAdapter(tuple[Bin, ...])


@as_stage()
def report(run: RunRef, records: RunRecords) -> Record[ReportFigures]:
    """Files: report.html, report.json (what the page shows), metrics.jsonl (all steps)."""
    made_from = [record for _, record in records.labelled]
    inputs = {"run": run.name, "records": [record.id for record in made_from]}

    def work(space: Workspace) -> Made[ReportFigures]:
        shown = report_data(space.store, run, records).model_copy(update={"status": "completed"})
        page = space.out / "report.html"
        page.write_text(render(shown), encoding="utf-8")
        (space.out / "report.json").write_text(shown.model_dump_json(indent=1), encoding="utf-8")
        lines = [metric_lines(space.store, epoch) for epoch in records.epochs.values()]
        (space.out / "metrics.jsonl").write_bytes(b"".join(lines))
        return Made(ReportFigures(steps=len(shown.steps), bytes=page.stat().st_size))

    return run_stage(run, ReportFigures, SCHEMA, inputs, made_from, work)


def report_data(store: Store, run: RunRef, records: RunRecords) -> ReportData:
    """What the page shows, of the records there are: any may be missing."""
    labelled = records.labelled
    made = [record for _, record in labelled]
    states, evaluations = records.states, list(records.evaluations.values())
    rows = steps(store, records.epochs.values())
    changes = gains(store, run.config, evaluations[0], evaluations[-1]) if len(evaluations) > 1 else []
    decision, redactor = records.decision, Redactor.of(run.config)
    named = _named(store, records, redactor)
    return ReportData(
        run=run.name,
        config=run.config.model_dump(mode="json"),
        started_at=read_started(store, run.name).started_at,  # records may be an earlier run's
        seconds=round(sum(record.seconds for record in made), 1),
        stages=tuple(Stage(name=r.stage, label=label, key=r.key, seconds=r.seconds) for label, r in labelled),
        lineage=tuple((parent, record.id) for record in made for parent in record.parents),
        versions=dict(sorted(made[-1].versions.items())) if made else {},
        machines=_machines(labelled),
        scores=tuple(scored(store, records, rows)),
        gains={change.suite: change.gain for change in changes if change.measure != "greedy"},
        greedy_gains={change.suite: change.gain for change in changes if change.measure == "greedy"},
        steps=tuple(rows),
        warm_start=_warm_start(store, records.policy),
        posteriors=_posteriors(store, records),
        examples=tuple(examples(store, evaluations[0], evaluations[-1], redactor.text)) if evaluations else (),
        snapshots=tuple(SnapshotTag(tag=s.figures.tag, md5=s.figures.md5) for s in records.snapshots.values()),
        decision=None
        if decision is None
        else Verdict(promoted=decision.figures.promoted, reasons=decision.figures.reasons),
        cost=accounts(records, rows),
        wasted=wasted(run.config, rows),
        notices=(
            *_taught(records.policy),
            *_moved(run, records.prior),
            *_origin(run),
            *_unlike(changes),
            *_notices(rows, run.config.training.entropy_alarm, run.config.training.truncated),
            *_withheld(records.epochs.values()),
        ),
        reliability=_BINS.validate_python(states[max(states)].figures.reliability) if states else (),
        calibration=_calibration(records),
        validation=None if records.data is None else _validation(store, records.data),
        sources=() if records.data is None else source_rows(store, run.config.reward, records.data, records.states),
        named=named,
        stories=tuple(prompt_stories(store, run.config, records, named)),
        suspicious_items=_suspicious_items(store, run, records, redactor),
    )


def _warm_start(store: Store, policy: Record[PolicyFigures] | None) -> tuple[dict[str, float], ...]:
    """Figures of its steps; of none for a policy without a warm start, and for records of earlier versions."""
    if policy is None or policy.files is None or not (path := files_of(store, policy) / "warm_start.jsonl").exists():
        return ()
    return tuple(json.loads(line) for line in path.read_bytes().splitlines())


def _taught(policy: Record[PolicyFigures] | None) -> list[str]:
    """Of a supervised warm start: how much was learnt from, and what was left out."""
    if policy is None or not policy.figures.taught:
        return []
    f = policy.figures
    left = "; ".join(f"{number:,} left out: {REASONS.get(reason, reason)}" for reason, number in f.left_out.items())
    said = f"{f.taught:,} of {f.rows:,} worked solutions were taught first ({f.tokens:,} tokens, {f.steps:,.0f} steps)"
    return [f"{said}; {left}." if left else f"{said}."]


def _named(store: Store, records: RunRecords, redactor: Redactor) -> Named:
    states = records.states
    if records.data is None or not states:
        return Named()
    return named_prompts(store, records.data, states[min(states)], states[max(states)], redactor)


def _suspicious_items(store: Store, run: RunRef, records: RunRecords, redactor: Redactor) -> tuple[Suspects, ...]:
    if records.data is None or not records.evaluations:
        return ()
    suites = [suite.name for suite in run.config.evaluation.suites]
    return tuple(suspicious_items(store, records.data, list(records.evaluations.values()), suites, redactor))


def _posteriors(store: Store, records: RunRecords) -> tuple[Belief, ...]:
    shown = []
    for k, state in records.states.items():
        summary = load_posterior(files_of(store, state) / "posterior.parquet").summary()
        kept = {name: value for name, value in summary.items() if name in Belief.model_fields}
        shown.append(Belief.model_validate({"label": f"epoch {k}" if k else "prior", **kept}))
    return tuple(shown)


def _calibration(records: RunRecords) -> tuple[Calibrated, ...]:
    totals = [(f"epoch {k}", _BINS.validate_python(epoch.figures.reliability)) for k, epoch in records.epochs.items()]
    return by_epoch(totals)


def _machines(labelled: Sequence[tuple[str, Record[Figures]]]) -> tuple[tuple[str, dict[str, str]], ...]:
    """Each machine once, with the stages that were made on it; what a stage without a policy does not say (device,
    dtype) does not make it another one."""
    found: list[tuple[dict[str, str], list[str]]] = []
    for label, record in labelled:
        if not (machine := record.machine):  # of a version that did not say
            continue
        stage = f"{record.stage} {label}".strip()
        for known, stages in found:
            if all(known.get(name, value) == value for name, value in machine.items()):
                known.update(machine)
                stages.append(stage)
                break
        else:
            found.append((dict(machine), [stage]))
    return tuple((", ".join(stages), machine) for machine, stages in found)


def _validation(store: Store, data: Record[ValidateFigures]) -> Validation:
    figures = data.figures
    summary = json.loads((files_of(store, data) / "validation.json").read_bytes())
    read_as = summary["prompts"].get("read_as")  # older validations do not say
    return Validation(
        rows_read=figures.rows,
        kept=figures.prompts,
        rejected=figures.rejected,
        dropped=figures.dropped,
        reasons=figures.reasons,
        suites={name: suite["kept"] for name, suite in summary["suites"].items()},
        read_as="Read as {layout}: problem from {problem}, answer from {answer}".format(**read_as) if read_as else "",
    )


def _moved(run: RunRef, prior: Record[PriorFigures] | None) -> list[str]:
    """How the prior predicts unseen prompts, and what became of an earlier run's posterior."""
    if prior is None:
        return []
    tag, f = run.config.prior.start_from, prior.figures
    lines = [f.prediction] if f.prediction else []
    if tag is None:
        return lines
    return [
        *lines,
        f"Started from {tag}: {f.kept + f.restored:,} prompts kept their evidence, {f.new:,} new or edited "
        f"ones were reset ({f.prompts:,} of them rolled out), {f.archived:,} were archived.",
    ]


def _origin(run: RunRef) -> list[str]:
    return [] if run.config.fork is None else [f"This run is a {run.config.fork.words}; up to there it is the other's."]


def _unlike(changes: Sequence[ScoreChange]) -> list[str]:
    """Suites whose scores before and after were made by other versions or on another machine."""
    reasons = {change.suite: "; ".join(change.unlike) for change in changes}
    return [f"{suite} was scored unlike before and after ({words})." for suite, words in reasons.items() if words]


def _withheld(epochs: Iterable[Record[EpochFigures]]) -> list[str]:
    number = sum(epoch.figures.kept_rollouts.get("withheld", 0) for epoch in epochs)
    return [f"The redaction failed on {number:,} kept rollouts, whose texts are withheld."] if number else []


def _notices(rows: Sequence[Metrics], entropy_alarm: float, truncated: str = "judged") -> list[str]:
    """What a reader should know before believing the rest."""
    found = []
    entropy = [value for row in rows if (value := entropy_of(row)) is not None]
    if entropy and (low := sum(value < entropy_alarm for value in entropy)):
        found.append(
            f"In {low:,} of {len(entropy):,} steps the policy's entropy was below {entropy_alarm:g} nats a token "
            "(training.entropy_alarm): it tries hardly anything else any more. Fewer epochs, a lower learning rate or "
            "a higher training.clip_high keep it open."
        )
    if max((number(row, "unknown_share") or 0.0 for row in rows), default=0.0) > 0.01:
        found.append("In some steps more than 1 % of the completions got no verdict; they were left out of training.")
    found += _cut_off(rows, truncated)
    if any(number(row, "non_finite") for row in rows):
        found.append("Some steps had a non-finite loss or gradient and changed nothing.")
    return found


def _cut_off(rows: Sequence[Metrics], truncated: str) -> list[str]:
    """What completions that ran into the token limit have cost, with `training.truncated` as it was."""
    found = []
    if (share := _mean(rows, "truncated_wrong_share")) > 0.01 and truncated != "wrong":
        heard = "the posterior takes" if truncated == "masked" else "training and the posterior take"
        mask = "" if truncated == "masked" else ', or leave them out of the loss (training.truncated = "masked")'
        found.append(
            f"{100 * share:.1f} % of the completions were cut off at the token limit and counted as wrong, which "
            f"{heard} as the policy's mistakes: raise rollout.max_new_tokens{mask}."
        )
    if _mean(rows, "truncated_share") > 0.2:
        found.append("More than a fifth of the completions ran into the token limit: raise rollout.max_new_tokens.")
    return found


def _mean(rows: Sequence[Metrics], name: str) -> float:
    """Over the steps that have it; 0 where none has."""
    values = [value for row in rows if (value := number(row, name)) is not None]
    return sum(values) / len(values) if values else 0.0
