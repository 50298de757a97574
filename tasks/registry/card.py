"""The model card: what the records say of a model, as Markdown. What only its owner can know is left to fill in."""

from __future__ import annotations

from collections.abc import Sequence

from cures_core.config.policy import PretrainedPolicy
from cures_core.config.run import RunConfig
from cures_core.evaluation.scores import Estimate, SuiteScore
from tasks.registry.history import Entry
from tasks.runs.figures import EpochFigures, PriorFigures, ValidateFigures
from tasks.runs.records import Record


def model_card(
    model: str,
    entry: Entry,
    config: RunConfig,
    data: Record[ValidateFigures] | None,
    prior: Record[PriorFigures] | None,
    state: Record[EpochFigures],
    scores: Sequence[SuiteScore],
) -> str:
    """The card of one version of a model: `state` is its checkpoint, `scores` are its own."""
    digests = {} if data is None else data.figures.suites
    suites = [f"- Suite {name}: digest `{digest}`" for name, digest in sorted(digests.items())]
    base = "a small policy warm-started from tutor text"
    if isinstance(config.policy, PretrainedPolicy):
        taught = config.policy.warm_start is not None
        base = f"{config.policy.path}, which has learnt worked solutions first" if taught else config.policy.path
    adapters = "none" if config.training.lora is None else f"LoRA of rank {config.training.lora.rank}, merged"
    versions = ", ".join(f"{name} {v}" for name, v in sorted(state.versions.items()))
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "license: other  # the owner's to fill in",
            "---",
            f"# {model}, version {entry.version}",
            "",
            f"{entry.action.capitalize()} {entry.at} by {entry.who or 'unknown'}: {entry.why or 'no reason given'}.",
            *(f"- {reason}" for reason in entry.reasons),
            "",
            "## Scores",
            "",
            "| suite | measure | score | interval | items | k | unknown | truncated |",
            "|---|---|---|---|---|---|---|---|",
            *(line for score in scores for line in _score_lines(score)),
            "",
            f"Intervals cover {100 * config.evaluation.confidence:g} %. Settings of each suite:",
            "",
            *(
                f"- {score.suite}: {', '.join(f'{k} {v}' for k, v in sorted(score.settings.items()))}"
                for score in scores
            ),
            "",
            "## How it was made",
            "",
            f"- Run `{entry.run}`, checkpoint `{entry.state}`, seed {config.seed}",
            f"- Base policy: {base} (`{entry.policy}`); adapters: {adapters}",
            f"- Prompts: {'unknown' if data is None else data.figures.prompts} of `{config.data.path}`",
            f"- Digest of the prompts: `{'unknown' if data is None else data.figures.digest}`",
            *suites,
            f"- Curriculum: {config.curriculum.type}; {config.epochs} epochs of {config.steps_per_epoch} steps",
            f"- Cost: {0 if prior is None else prior.figures.rollouts:,} rollouts of the prior, "
            f"{state.figures.rollouts:,} of training",
            f"- Made with {versions}",
            "",
            "## For the owner to fill in",
            "",
            "Licence, intended use, and known limits: the records say nothing of them.",
            "",
        ]
    )


def _score_lines(score: SuiteScore) -> list[str]:
    shares = f"{100 * score.unknown_share:.1f} % | {100 * score.truncated_share:.1f} %"
    rows = [(f"avg@{score.k}", score.avg, score.k)]
    rows += [(f"pass@{j}", figure, score.k) for j, figure in score.pass_at.items() if j != "1"]
    rows += [] if score.greedy is None else [("greedy", score.greedy, 1)]
    return [f"| {score.suite} | {name} | {_figure(e)} | {score.n} | {k} | {shares} |" for name, e, k in rows]


def _figure(e: Estimate) -> str:
    return f"{e.value:.3f} | {e.low:.3f} to {e.high:.3f}"
