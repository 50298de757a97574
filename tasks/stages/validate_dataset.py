"""Stage: raw prompt set and suites in; clean typed sets, quarantine, expectations and Data Docs out."""

from __future__ import annotations

from cures_core.config.data import SuiteConfig
from cures_core.config.evaluation import EvaluatedSuite
from cures_core.config.policy import PretrainedPolicy
from cures_core.errors import TryAgain
from cures_core.own_code import keyed
from cures_core.prompts import PromptSet
from tasks.inputs.digests import DATA, FLAGS, policy_files, suite_field
from tasks.inputs.pretrained import tokenizer_digest
from tasks.inputs.prompt_files import Inputs
from tasks.runs.figures import ValidateFigures
from tasks.runs.records import Record, RunRef
from tasks.stages.keys import settings
from tasks.stages.stage import Made, as_stage, run_stage
from tasks.stages.workspace import Workspace
from tasks.validation import validate
from tasks.validation.golds import gold_judges
from tasks.validation.sources import require_sources
from tasks.validation.tokens import counts_tokens, misfits, rooms, token_counter
from tasks.validation.validator import DATA as DATA_SET
from tasks.validation.validator import one_message


@as_stage()
def validate_dataset(run: RunRef) -> Record[ValidateFigures]:
    """Files: prompts.parquet, suites/<name>.parquet and the lists of rows (`tasks.validation`).

    Raises `DataRejected` (exit code 3) with a table of reasons.
    """
    cfg = run.config
    suites = [
        SuiteConfig.model_validate(s.model_dump(include=set(SuiteConfig.model_fields))) for s in cfg.evaluation.suites
    ]
    read = {DATA: cfg.data, **{suite_field(suite): suite for suite in suites}}
    # What a name stood for when the run was started is read, whatever it stands for now.
    files = Inputs.of(cfg, {file.path: run.inputs[field] for field, file in read.items()})
    places = {file.path: files.local(file.path) for file in read.values()}
    limits = rooms(cfg)
    inputs = {
        "settings": settings(cfg, "validate_dataset"),
        "suites": [_settings(suite) for suite in cfg.evaluation.suites],
        "files": {field: digest for field, digest in run.inputs.items() if field in read or field == FLAGS},
        "tokenizer": _tokenizer(run) if counts_tokens(cfg) or limits else "",
    }
    if limits:
        inputs["room"] = {name: room.keyed() for name, room in limits.items()}
    shown = one_message(cfg)
    if chats := [name for name in (DATA_SET, *(s.name for s in suites)) if name not in shown]:
        inputs["chats"] = chats

    def work(space: Workspace) -> Made[ValidateFigures]:
        with gold_judges(cfg) as (judge, of_suites):
            count, fit = token_counter(cfg), misfits(cfg, limits)
            summary = validate(cfg.data, suites, space.out, judge, count, of_suites, places.__getitem__, shown, fit)
        require_sources(cfg, PromptSet.read_parquet(space.out / "prompts.parquet").column("source"))
        prompts = summary["prompts"]
        made_of = {DATA: prompts, **{suite_field(suite): summary["suites"][suite.name] for suite in suites}}
        for field, file in read.items():
            if made_of[field]["file_digest"] != run.inputs[field]:
                raise TryAgain(f"{file.path}: has changed since the run was started; start it again")
        return Made(
            ValidateFigures(
                digest=prompts["digest"],
                suites={name: s["digest"] for name, s in summary["suites"].items()},
                prompts=prompts["kept"],
                rows=prompts["rows_read"],
                rejected=prompts["rejected"],
                dropped=prompts["dropped"],
                reasons=prompts["reasons"],
                trained_on={
                    name: summary["contamination"]["trained_on"][name] / max(1, suite["kept"])
                    for name, suite in summary["suites"].items()
                },
            )
        )

    return run_stage(run, ValidateFigures, 3, inputs, [], work)


def _settings(suite: EvaluatedSuite) -> dict[str, object]:
    """How the file of a suite is read, and what vouches for its golds where that is not what training is paid by."""
    return {**keyed(suite, of=SuiteConfig), "reward": None if suite.reward is None else keyed(suite.reward)}


def _tokenizer(run: RunRef) -> str:
    """Digest of the tokenizer that counts."""
    pretrained = isinstance(run.config.policy, PretrainedPolicy)
    return tokenizer_digest(policy_files(run.inputs)) if pretrained else "characters"
