"""The comment under a pull request: what changed, what was rejected, what is contaminated, what a run would cost."""

from __future__ import annotations

from cures_core.config.run import RunConfig
from cures_core.errors import CuresError
from tasks.ci.changes import PromptChanges
from tasks.planning import DATA, Costs, costs, rates_of_runs
from tasks.storage import open_store
from tasks.validation.validator import ValidationSummary


def summary(found: PromptChanges, validation: ValidationSummary, config: RunConfig) -> str:
    """Markdown from `changes` and from the summary of `validate`; holds counts and ids, no prompt text."""
    prompts = validation["prompts"]
    lines = [
        "### Prompt set",
        "",
        "| " + " | ".join(found["counts"]) + " |",
        "|" + "---|" * len(found["counts"]),
        "| " + " | ".join(f"{n:,}" for n in found["counts"].values()) + " |",
        "",
        f"Validation: {prompts['rows_read']:,} rows, {prompts['kept']:,} kept, {prompts['rejected']:,} rejected, "
        f"{prompts['dropped']:,} dropped.",
        *(f"- {reason}: {number:,}" for reason, number in prompts["reasons"].items()),
        "",
        "Contamination: " + (_overlaps(validation) or "no suite shares a prompt with the set") + ".",
        "",
        *_cost_lines(cost(found, validation, config)),
        "",
        "**Retraining is due**: " + "; ".join(found["reasons"]) if found["due"] else "Retraining is not due.",
        "",
        f"Change `{found['key']}`",
    ]
    return "\n".join(lines) + "\n"


def refusal(error: CuresError) -> str:
    """Markdown for a set that is not fit to be trained on, or that could not be read."""
    told = "\n".join(f"    {line}" for line in str(error).splitlines())  # a block of code: what rows hold stays text
    return f"### Prompt set\n\n**Not accepted.**\n\n{told}\n"


def cost(found: PromptChanges, validation: ValidationSummary, config: RunConfig) -> Costs:
    """What `cures plan` says of a run that starts from the posterior of the earlier prompts, which has none of the new
    and edited ones."""
    fresh = len(found["ids"]["new"]) + len(found["ids"]["edited"])
    sizes = {DATA: fresh, **{name: suite["kept"] for name, suite in validation["suites"].items()}}
    return costs(config, sizes, rates_of_runs(open_store(config.store), config))


def _cost_lines(planned: Costs) -> list[str]:
    parts = [part for part in planned["rollouts"] if part != "total"]
    rows = {"rollouts": planned["rollouts"], "completion tokens, at most": planned["tokens_at_most"]}
    if planned["tokens"] is not None and planned["seconds"] is not None:
        rows[f"completion tokens, as in {planned['source']}"] = planned["tokens"]
        rows[f"seconds, as in {planned['source']}"] = planned["seconds"]
    return [
        "Cost of a run that starts from the earlier posterior:",
        "",
        "| | " + " | ".join([*parts, "in all"]) + " |",
        "|---|" + "---|" * (len(parts) + 1),
        *(
            f"| {name} | " + " | ".join(f"{values[part]:,.0f}" for part in [*parts, "total"]) + " |"
            for name, values in rows.items()
        ),
    ]


def _overlaps(validation: ValidationSummary) -> str:
    parts = []
    for suite, kinds in validation["contamination"]["by_suite"].items():
        counts = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
        if counts:
            parts.append(f"{suite} ({counts})")
    return ", ".join(parts)
