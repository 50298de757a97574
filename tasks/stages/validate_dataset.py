"""Stage: raw prompt set and suites in; clean typed sets, quarantine, expectations and Data Docs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cures_core.config.data import SuiteConfig
from cures_core.config.run import RunConfig
from cures_core.errors import TryAgain
from cures_core.prompts.lines import Snapshot
from tasks.inputs.prompt_files import Inputs
from tasks.runs.records import Record, RunRef
from tasks.stages.stage import as_stage, run_stage
from tasks.stages.workspace import Workspace
from tasks.validation import validate
from tasks.validation.golds import gold_checks


@as_stage()
def validate_dataset(run: RunRef) -> Record:
    """Files: prompts.parquet, suites/<name>.parquet and the lists of rows (`tasks.validation`).

    Figures: digest (of the clean set), suites (digests), prompts, rejected, dropped, warnings by reason,
    trained_on (share of each suite's items that the clean set holds). Raises
    `DataRejected` (exit code 3) with a table of reasons.
    """
    cfg = run.config
    suites = [
        SuiteConfig.model_validate(s.model_dump(include=set(SuiteConfig.model_fields))) for s in cfg.evaluation.suites
    ]
    inputs_of_run = Inputs.of(cfg, {cfg.data.path: run.file_digest})
    places = {file.path: inputs_of_run.local(file.path) for file in (cfg.data, *suites)}
    rewards = {s.name: s.reward.model_dump(mode="json") for s in cfg.evaluation.suites if s.reward is not None}
    inputs = {
        "data": _settings(cfg.data),
        "suites": [_settings(s) for s in suites],
        "reward": cfg.reward.model_dump(mode="json"),
        "files": [run.data_digest, *(Snapshot.of(places[s.path]).digest for s in suites)],
        "tokenizer": _tokenizer_source(cfg),
        **({"suite_rewards": rewards} if rewards else {}),
    }

    def work(space: Workspace) -> Mapping[str, Any]:
        with gold_checks(cfg) as (check_gold, of_suites):
            summary = validate(
                cfg.data, suites, space.out, check_gold, token_counter(cfg), of_suites, places.__getitem__
            )
        prompts = summary["prompts"]
        if prompts["file_digest"] != run.file_digest:
            raise TryAgain(f"{cfg.data.path}: has changed since the run was started; start it again")
        return {
            "digest": prompts["digest"],
            "suites": {name: s["digest"] for name, s in summary["suites"].items()},
            "prompts": prompts["kept"],
            "rows": prompts["rows_read"],
            "rejected": prompts["rejected"],
            "dropped": prompts["dropped"],
            "reasons": prompts["reasons"],
            "trained_on": {
                name: summary["contamination"]["trained_on"][name] / max(1, suite["kept"])
                for name, suite in summary["suites"].items()
            },
        }

    return run_stage(run, "validate_dataset", 2, inputs, [], work)


def _settings(cfg: SuiteConfig | Any) -> dict[str, Any]:
    """What decides the outcome beside the bytes: a file may be moved without being validated again."""
    return cfg.model_dump(mode="json", exclude={"path", "flags"})


def _tokenizer_source(cfg: RunConfig) -> str:
    if cfg.data.max_problem_tokens is None and all(s.max_problem_tokens is None for s in cfg.evaluation.suites):
        return ""
    return cfg.policy.path if cfg.policy.type == "pretrained" else "characters"


def token_counter(cfg: RunConfig) -> Callable[[str], int] | None:
    """Counts tokens as the run's policy does; None where no limit asks for it."""
    source = _tokenizer_source(cfg)
    if not source:
        return None
    if source == "characters":
        return len
    from cures_core.policy.loading import load_tokenizer

    tokenizer = load_tokenizer(source, cfg.policy.revision if cfg.policy.type == "pretrained" else None)
    return lambda text: len(tokenizer(text)["input_ids"])
