"""Which setting gives which stage another key: every leaf of the configuration is changed in turn."""

from __future__ import annotations

import dataclasses
import importlib
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from pydantic import BaseModel, JsonValue, ValidationError

from cures_core.config.data import PromptFile
from cures_core.config.marks import Leaf, Mark, changes, is_within, leaves, marked_fields, results
from cures_core.config.rollout import PromptFormat
from cures_core.config.run import RunConfig
from cures_core.files import digest_json
from cures_core.jobs import assemble
from tasks.inputs.digests import suite_field
from tasks.runs import opening
from tasks.runs.figures import Figures
from tasks.runs.records import Record, RunRef
from tasks.stages.evaluation_cache import rows_key
from tasks.stages.keys import READS, settings
from tasks.stages.promote import gate_key
from tasks.validation import tokens
from tests.tasks.stages.figures import figures_of

ARCHITECTURE = Path(__file__).parents[3] / "configs/architectures/qwen2.5-math-1.5b.json"

ALL = {"prepare_policy", "estimate_prior", "train_epoch", "evaluate base", "evaluate trained", "completions"}
"""`completions`: the cache of a suite's completions, across runs."""
SCORED = {"evaluate base", "evaluate trained", "completions"}

SHOWN = {"template", "chat", "system", "chat_template_kwargs"}
"""What of a prompt format makes prompts."""

READ_BY: dict[str, set[str]] = {
    "seed": {"estimate_prior", "train_epoch"},
    "steps_per_epoch": {"train_epoch"},
    "epochs": set(),  # those that were trained stay
    "data": {"validate_dataset"},
    "policy": ALL,
    "policy.type": ALL | {"validate_dataset"},  # how many tokens a prompt has, and may have
    "policy.dtype": ALL - {"prepare_policy"},  # a pretrained policy is its files
    "policy.adapters": ALL - {"prepare_policy"},  # what they come to is in its digest
    "rollout": {"estimate_prior", "train_epoch"} | SCORED,
    # How long prompts are, and may be.
    **{
        f"rollout.{name}": {"validate_dataset", "estimate_prior", "train_epoch"} | SCORED
        for name in ("max_new_tokens", "max_model_len", *(f"prompt_format.{name}" for name in SHOWN))
    },
    "evaluation.suites.prompt_format": {"validate_dataset"} | SCORED,
    **{f"evaluation.suites.prompt_format.{name}": SCORED for name in set(PromptFormat.model_fields) - SHOWN},
    "evaluation.suites.max_new_tokens": {"validate_dataset"} | SCORED,
    "rollout.temperature": {"estimate_prior", "train_epoch"},  # a suite has its own
    "reward": {"validate_dataset", "estimate_prior", "train_epoch"} | SCORED,
    "prior": {"estimate_prior"},
    "curriculum": {"train_epoch"},
    "curriculum.posterior": {"estimate_prior", "train_epoch"},
    "training": {"train_epoch"},
    "training.truncated": {"estimate_prior", "train_epoch"},  # which rollouts are right
    "training.lora": {"train_epoch", "evaluate trained"},
    "evaluation.seed": SCORED,
    "evaluation.resamples": SCORED - {"completions"},  # other intervals of the same completions
    "evaluation.confidence": SCORED - {"completions"},
    "evaluation.suites": SCORED,
    **{f"evaluation.suites.{name}": {"validate_dataset"} for name in PromptFile.model_fields},
    "evaluation.suites.name": {"validate_dataset"} | SCORED,
    "evaluation.suites.reward": {"validate_dataset"} | SCORED,
    "device": ALL,
    "promotion": {"promote"},
    "redact": {"train_epoch"} | SCORED,
}
"""The longest name that fits counts. Only results are in a key: other settings change none."""

MOVED = {
    "promotion.model": {"promote"},
    "snapshot": {"snapshot_posterior"},
    "store.url": {"snapshot_posterior"},
    "store.endpoint_url": {"snapshot_posterior"},
    "rollout.endpoints": {"completions"},  # the vLLM of this machine, or one whose version is not known here
}
"""Placements that are what a stage is about: a pointer under another name, a snapshot at another place."""

SUITE: dict[str, Any] = {"name": "exam", "path": "exam.jsonl"}
BASE: dict[str, Any] = {
    "data": {"path": "train.jsonl"},
    "rollout": {"type": "hf", "max_new_tokens": 8},
    "training": {"learning_rate": 1e-3},
    "evaluation": {"suites": [SUITE]},
    "device": {"type": "cpu"},
}
CODE = "tests.own_verifiers:has_a_low_digit"
STRATEGY = "tests.cures_core.curriculum.example_strategy:Strategy"
STEP = {"prompts_per_step": 4, "rollouts_per_step": 64}
SERVER = {"type": "vllm_server", "max_new_tokens": 8}
RULES = [
    {"type": "box", "weight": 0.1},
    {"type": "tags", "weight": 0.1},
    {"type": "pattern", "pattern": "x", "weight": 0.1},
]
WEIGHTED = {"type": "weighted", "format": RULES}
ANSWERS: list[dict[str, Any]] = [
    {"type": "math"},
    {"type": "choice"},
    {"type": "numeric"},
    {"type": "regex", "pattern": "a"},
    {"type": "code"},
    {"type": "judge", "url": "http://127.0.0.1:1/v1", "model": "m"},
    {"type": "reasoning_gym"},
    {"type": "verifiers", "environment": "colorsys"},
    {"type": "custom", "function": CODE},
]
VERIFIERS = [*ANSWERS, *({**WEIGHTED, "answer": answer} for answer in ANSWERS)]
ENTRY: dict[str, Any] = {"name": "first", "sources": ["a"], "verifier": {"type": "exact"}}
BY_SOURCE: dict[str, Any] = {"type": "numeric", "by_source": [ENTRY]}
QUOTAS = [{"source": "a", "min": 0.25, "max": 0.75}]
OVERLONG = {"buffer_tokens": 4}
OFFLOADED = {"type": "deepspeed", "learning_rate": 1e-3, "zero_stage": 3}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"policy": {"type": "pretrained", "path": "folder"}},
    {"policy": {"type": "pretrained", "path": "folder", "warm_start": {"lora": {}}}},
    {"policy": {"type": "pretrained", "path": "folder"}, "training": {"learning_rate": 1e-3, "lora": {}}},
    {"rollout": {"max_new_tokens": 8, "prompt_format": {"chat": True}}},
    {"rollout": {"type": "vllm", "max_new_tokens": 8}},
    {"rollout": SERVER},
    {"rollout": {**SERVER, "endpoints": ["http://127.0.0.1:1"]}},
    *({"reward": reward} for reward in VERIFIERS),
    {"reward": BY_SOURCE},
    {"data": {"path": "train.jsonl", "columns": {"verifier": "checker"}}, "reward": BY_SOURCE},
    *({"reward": {**BY_SOURCE, "by_source": [ENTRY, {"verifier": v}]}} for v in VERIFIERS),
    *({"reward": {"type": "by-source", "default": v, "by_source": [ENTRY]}} for v in VERIFIERS),
    *({"prior": {"type": kind}} for kind in ("none", "full")),
    *({"curriculum": {"type": kind, **STEP}} for kind in ("uniform", "dapo", "paper")),
    {"curriculum": {"type": "custom", "strategy": STRATEGY, **STEP}},
    *({"curriculum": {"type": "cures", **STEP, "allocation": {"type": kind}}} for kind in ("neyman", "screen")),
    *({"curriculum": {"type": kind, **STEP, "quotas": QUOTAS}} for kind in ("cures", "uniform", "dapo", "paper")),
    {"curriculum": {"type": "custom", "strategy": STRATEGY, **STEP, "quotas": QUOTAS}},
    *(
        {"training": {"type": kind, "learning_rate": 1e-3, "overlong": OVERLONG}}
        for kind in ("torch", "torchrun", "deepspeed")
    ),
    {"curriculum": {"type": "cures", **STEP, "weighting": {"type": "softmax", "temperature": 1.0}}},
    {"training": {"learning_rate": 1e-3, "lora": {}}},
    {"training": {"type": "torchrun", "learning_rate": 1e-3, "address": "a:1"}},
    {"training": {"type": "deepspeed", "learning_rate": 1e-3}},
    {"training": OFFLOADED},
    {"evaluation": {"suites": [SUITE], "sharding": {"runner": "ray"}}},
    {"evaluation": {"suites": [SUITE]}, "promotion": {"model": "m", "suites": ["exam"]}},
    {"evaluation": {"suites": [SUITE, {**SUITE, "name": "quiz"}]}, "promotion": {"model": "m", "suites": ["exam"]}},
    *(
        {"evaluation": {"suites": [{**SUITE, "prompt_format": {"chat": True}, "reward": reward}]}}
        for reward in (
            *VERIFIERS,
            BY_SOURCE,
            *({**BY_SOURCE, "by_source": [ENTRY, {"verifier": v}]} for v in VERIFIERS),
            *({"type": "by-source", "default": v, "by_source": [ENTRY]} for v in VERIFIERS),
        )
    ),
    {
        "evaluation": {"suites": [{**SUITE, "columns": {"verifier": "checker"}}]},
        "reward": BY_SOURCE,
    },
]
"""Together they hold every setting of every union."""

OTHER: dict[str, list[JsonValue]] = {
    "name": ["other"],
    "faults": [["train.step:1=raise"]],
    "data.language": ["en"],
    "prior.start_from": ["posterior/other/0"],
    "curriculum.strategy": ["tests.cures_core.curriculum.example_strategy:Other"],
    "function": ["tests.own_verifiers:right_by_length"],
    "environment": ["this"],
    "bounds": [[-1, 2]],
    "letters": ["ABC"],
    "address": ["b:2"],
    "rollout.endpoints": [["http://127.0.0.1:2"]],
    "thinking": [["a", "b"]],
    "policy.warm_start.template": ["so {solution}"],
    "template": ["Q: {problem}"],
    "snapshot.remote": ["s3://bucket/elsewhere"],
    "store.url": ["elsewhere"],
    "promotion.suites": [["quiz"]],
    "promotion.margins": [{"quiz": 0.1}],
    "rules": [["box"]],
    "evaluation.confidence": [0.9],
    "max_model_len": [48],
    "redact": ["tests.cures_core.kept_rollouts.hooks:without_canary"],
    "kept_rollouts.prompts": [["0" * 8]],
}
"""Values for settings that take no ordinary ones, by the end of their name."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A configuration, and the same with one leaf changed."""

    path: str
    mark: Mark
    before: RunConfig
    after: RunConfig


def configs() -> list[RunConfig]:
    return [RunConfig.model_validate({**BASE, **variant}) for variant in VARIANTS]


def plain(path: str) -> str:
    """A leaf's name without the indices of lists."""
    return ".".join(part for part in path.split(".") if not part.isdigit())


def others(path: str, value: JsonValue, literals: list[JsonValue]) -> Iterator[JsonValue]:
    """Values that might do in place of `value`."""
    for end, values in OTHER.items():
        if path == end or path.endswith(f".{end}"):
            yield from values
    yield from literals
    match value:
        case bool():
            yield not value
        case int() | float():
            yield from (value + 1, value / 2, value + 32, value - 1, 0.5, 7)
        case str():
            yield from (f"{value}x", "x")
        case list():
            yield from ([*value, "x"], value[:-1], [0.5, 0.5])
        case dict():
            yield {**value, "x": 0.5}
        case None:
            yield from (1, 0.5, "x", "en", {"chat": True}, {"type": "numeric"}, {"model": "m", "suites": ["exam"]}, {})


def literals_of(model: type[BaseModel], path: str) -> list[JsonValue]:
    """What the declaration of a leaf enumerates, anywhere in the unions of a model."""
    head, _, rest = path.partition(".")
    field = model.model_fields.get(head)
    if field is None:
        return []
    if not rest:
        return list(_literals(field.annotation))
    return [value for inner in _models(field.annotation) for value in literals_of(inner, rest)]


def _literals(annotation: Any) -> Iterator[JsonValue]:
    if typing.get_origin(annotation) is Literal:
        yield from typing.get_args(annotation)
    for inner in typing.get_args(annotation):
        yield from _literals(inner)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    from cures_core.config.marks import models_in

    return models_in(annotation)


def put(values: Any, path: str, value: JsonValue) -> Any:
    """Nested values with another value at a dotted path; the rest is shared with those given."""
    name, _, rest = path.partition(".")
    made = values.copy()
    place = int(name) if isinstance(made, list) else name
    made[place] = put(made[place], rest, value) if rest else value
    return made


def changed(config: RunConfig, leaf: Leaf, values: dict[str, JsonValue]) -> RunConfig | None:
    """The configuration, whose `values` are given, with that leaf alone changed; None where no value would do."""
    path = leaf.path
    for value in others(plain(path), leaf.value, literals_of(RunConfig, plain(path))):
        try:
            made = RunConfig.model_validate(put(values, path, value))
        except ValidationError:
            continue
        found = [change.path for change in changes(config, made)]
        if found and all(is_within(name, (path,)) or name == path for name in found):
            return made
    return None


@cache
def cases() -> dict[str, Case]:
    """One for every leaf that can be changed by itself, from the first configuration in which it can.

    They take seconds: the tests below make them, not this module's import, which every process of a test run does.
    """
    found: dict[str, Case] = {}
    for config in configs():
        values = config.model_dump(mode="json")
        for leaf in leaves(config):
            name = plain(leaf.path)
            if name not in found and not is_within(name, ("fork",)) and (after := changed(config, leaf, values)):
                found[name] = Case(leaf.path, leaf.mark, config, after)
    return found


LEFT_OUT = (
    "promotion",
    "training.lora",
    "policy.warm_start",
    "evaluation.suites.prompt_format",
    "evaluation.suites.reward",
)
"""Models that may be left out: leaves of their own where they are."""
CHANGED = sorted(
    {
        *LEFT_OUT,
        "device.type",
        *(
            name
            for name, _ in marked_fields(RunConfig)
            if not is_within(name, ("fork",)) and not name.endswith(".type")
        ),
    }
)
"""All but those of forks, which no person sets, and the choice of a union, which changes the settings beside it
(`CHOICES`)."""


def test_every_setting_is_changed_below() -> None:
    assert sorted(cases()) == CHANGED


def _choices() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The `type` of each union, by dotted key, and two configurations that choose otherwise."""
    exact, numeric, cures = {"type": "exact"}, {"type": "numeric"}, {"type": "cures", **STEP}
    hf, torch, ranks = BASE["rollout"], BASE["training"], {"type": "torchrun", "learning_rate": 1e-3}
    softmax, neyman = {"type": "softmax", "temperature": 1.0}, {"type": "neyman"}
    yield "policy.type", {}, {"policy": {"type": "pretrained", "path": "folder"}}
    yield "prior.type", {}, {"prior": {"type": "none"}}
    yield "curriculum.type", {"curriculum": cures}, {"curriculum": {"type": "uniform", **STEP}}
    yield "curriculum.weighting.type", {"curriculum": cures}, {"curriculum": {**cures, "weighting": softmax}}
    yield "curriculum.allocation.type", {"curriculum": cures}, {"curriculum": {**cures, "allocation": neyman}}
    yield "rollout.type", {"rollout": hf}, {"rollout": {**hf, "type": "vllm"}}
    yield "training.type", {"training": torch}, {"training": ranks}
    box, tags = ({**WEIGHTED, "answer": exact, "format": [rule]} for rule in RULES[:2])
    plain = {"": (exact, numeric), "answer.": (box, {**box, "answer": numeric}), "format.": (box, tags)}
    for below, both in plain.items():
        of_source = [{**BY_SOURCE, "by_source": [{**ENTRY, "verifier": one}]} for one in both]
        of_default = [{"type": "by-source", "default": one, "by_source": [ENTRY]} for one in both]
        for place, rewards in (("", both), ("by_source.verifier.", of_source), ("default.", of_default)):
            name = f"reward.{place}{below}type"
            yield name, *({"reward": one} for one in rewards)
            yield (
                f"evaluation.suites.{name}",
                *({"evaluation": {"suites": [{**SUITE, "reward": one}]}} for one in rewards),
            )


CHOICES: dict[str, Case] = {
    name: Case(name, Mark.RESULT, *(RunConfig.model_validate({**BASE, **one}) for one in both))
    for name, *both in _choices()
}


def test_every_choice_is_made_otherwise_below() -> None:
    choices = {name for name, _ in marked_fields(RunConfig) if name.endswith(".type")}
    assert {*CHOICES, "device.type"} == choices


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_changes_the_keys_of_the_stages_that_read_it(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    case = CHOICES[name]
    assert name in {plain(change.path) for change in changes(case.before, case.after)}
    before, after = keys(case.before, monkeypatch), keys(case.after, monkeypatch)
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} == expected(case)
    monkeypatch.setattr(opening, "inputs_of", lambda *_: {})
    assert opening.identify(case.before).name != opening.identify(case.after).name


def record(stage: str, **figures: Any) -> Record[Any]:
    return Record(stage=stage, key=stage, inputs={}, figures=figures_of(stage, **figures))


def keys(cfg: RunConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Keys of the stages on records that stay the same: what a stage reads of the configuration itself."""
    made: dict[str, str] = {}
    label = ""

    def run_stage(
        _: RunRef, kind: type[Figures], schema: int, inputs: Mapping[str, Any], *__: Any, **___: Any
    ) -> Record[Any]:
        name = f"{kind.stage}{label}".replace("evaluate_checkpoint", "evaluate")
        made[name] = digest_json([kind.stage, schema, inputs])
        return record(kind.stage)

    suites = cfg.evaluation.suites
    inputs = {
        "data.path": "d",
        "policy.warm_start.path": "d",
        "policy.path/config.json": "p",
        **{suite_field(suite): "s" for suite in suites},
    }
    run = RunRef(name="run", config=cfg, token=1, inputs=inputs)
    data = record("validate_dataset", digest="d", suites={suite.name: "s" for suite in suites})
    policy, score = record("prepare_policy", digest="p"), record("evaluate_checkpoint")
    state = record("train_epoch", step=1, posterior_digest="q", checkpoint_digest="c", weights_digest="w")
    modules = {
        name: importlib.import_module(f"tasks.stages.{name}") for name in [*READS, "promote", "snapshot_posterior"]
    }
    for module in modules.values():
        monkeypatch.setattr(module, "run_stage", run_stage)
    monkeypatch.setattr(assemble, "_installed", lambda _: "1")  # whatever is installed here
    monkeypatch.setattr(modules["estimate_prior"], "find_snapshot", lambda *_: SimpleNamespace(md5="m"))
    monkeypatch.setattr(tokens, "architecture_file", lambda _: ARCHITECTURE)

    def noted(*args: Any) -> str:
        key = rows_key(*args)
        if label == " base":
            made["completions"] = made.get("completions", "") + key
        return key

    monkeypatch.setattr(modules["evaluate_checkpoint"], "rows_key", noted)
    stage = {name: getattr(module, name).__wrapped__ for name, module in modules.items()}
    stage["validate_dataset"](run)
    stage["prepare_policy"](run)
    stage["estimate_prior"](run, data, policy)
    stage["train_epoch"](run, 1, data, policy, state)
    label = " trained"
    stage["evaluate_checkpoint"](run, 1, data, policy, state)
    label = " base"
    stage["evaluate_checkpoint"](run, 0, data, policy, None)
    label = ""
    stage["promote"](run, policy, state, score, score)
    stage["snapshot_posterior"](run, 1, data, policy, state, None)
    return made


def expected(case: Case) -> set[str]:
    name = plain(case.path)
    table = READ_BY if case.mark is Mark.RESULT else MOVED
    fitting = [key for key in table if is_within(name, (key,))]
    assert fitting or case.mark is not Mark.RESULT, f"{name}: say in READ_BY which stages read it"
    read = table[max(fitting, key=len)] if fitting else set()
    # A snapshot's lineage tells the settings: it belongs to the run.
    return read | ({"snapshot_posterior"} if case.mark is Mark.RESULT else set())


@pytest.mark.parametrize("name", CHANGED)
def test_a_setting_changes_the_keys_of_the_stages_that_read_it(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    case = cases()[name]
    before, after = keys(case.before, monkeypatch), keys(case.after, monkeypatch)
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} == expected(case)


@pytest.mark.parametrize("name", CHANGED)
def test_a_run_is_named_after_what_decides_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases()[name]
    monkeypatch.setattr(opening, "inputs_of", lambda *_: {})
    names = [opening.identify(cfg).name.removeprefix(cfg.name) for cfg in (case.before, case.after)]
    assert (names[0] != names[1]) is (case.mark is Mark.RESULT)


def test_precision_is_in_every_key_that_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was in none: scores of another precision came back as cached."""
    both = [
        keys(
            RunConfig.model_validate({**BASE, "policy": {"type": "pretrained", "path": "f", "dtype": dtype}}),
            monkeypatch,
        )
        for dtype in ("float32", "bfloat16")
    ]
    same = {name for name, key in both[0].items() if both[1][name] == key}
    assert same == {"validate_dataset", "prepare_policy"}


MAY_CHANGE = {
    "curriculum": (
        "allocation.max_rollouts", "allocation.min_rollouts", "allocation.type", "explore", "group_size",
        "max_rollouts", "options", "probe", "prompts_per_step", "quotas.max", "quotas.min", "quotas.source",
        "rollouts_per_step", "signal", "steps_per_subset", "subsets", "temperature", "weighting.power",
        "weighting.temperature", "weighting.type",
    ),
    "evaluation": ("confidence", "resamples", "seed"),
    "promotion": ("margins", "max_contaminated_share", "max_unknown_share", "min_effect", "suites"),
    "rollout": ("decoding", "max_model_len", "max_new_tokens", "temperature", "top_p", "type"),
    "training": (
        "advantage", "betas", "clip_high", "clip_low", "grad_clip", "importance_bound", "kl_coef", "kl_estimator",
        "learning_rate", "length_norm", "loss_weight", "offload_optimizer", "offload_parameters", "overlong",
        "overlong.buffer_tokens", "overlong.penalty", "ratio", "solved_advantage", "truncated", "warmup_steps",
        "weight_decay",
    ),
}  # fmt: skip
"""Results that a run may go on with other values of, as a fork."""


def test_of_every_result_it_is_said_whether_it_may_change_while_a_run_goes_on() -> None:
    """A new one below `Ongoing` is to be thought about: it is `Settled`, or stands above."""
    found = {
        plain(leaf.path) for cfg in configs() for leaf in leaves(cfg) if leaf.mark is Mark.RESULT and not leaf.settled
    }
    named = {f"{section}.{name}" for section, names in MAY_CHANGE.items() for name in names}
    assert found == named | {"epochs", "promotion"}
    others = [leaf for cfg in configs() for leaf in leaves(cfg) if leaf.mark is not Mark.RESULT]
    assert [leaf.path for leaf in others if leaf.settled] == []


def test_the_key_of_a_promotion_holds_the_gate_as_it_was_written_first() -> None:
    """Keys of earlier versions hold all of the gate's settings in one table."""
    suites = {"suites": [SUITE, {**SUITE, "name": "quiz"}]}
    gate = {"model": "m", "suites": ["exam"], "margins": {"quiz": 0.1}}
    cfg = RunConfig.model_validate({**BASE, "evaluation": suites, "promotion": gate})
    assert cfg.promotion is not None
    assert gate_key(cfg.promotion) == cfg.promotion.model_dump(mode="json")


def test_a_policy_of_another_recipe_is_another_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = RunConfig.model_validate(BASE)
    before = keys(cfg, monkeypatch)
    monkeypatch.setattr(importlib.import_module("tasks.stages.prepare_policy"), "RECIPE", 0)
    after = keys(cfg, monkeypatch)
    assert {name for name in before if before[name] != after[name]} == {"prepare_policy"}


def test_what_changes_speed_alone_redoes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = (
        {
            "reward": {"type": "math", "workers": number},
            "training": {
                "learning_rate": 1e-3,
                "micro_batch_tokens": 64 * number,
                "gradient_checkpointing": number > 1,
            },
            "rollout": {"type": "hf", "max_new_tokens": 8, "batch_rows": number},
        }
        for number in (1, 4)
    )
    first, second = (keys(RunConfig.model_validate({**BASE, **options}), monkeypatch) for options in (slow, fast))
    assert first == second


@pytest.fixture
def validation_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """The key of `validate_dataset` for a policy with a `config.json` and files of these digests."""
    module = importlib.import_module("tasks.stages.validate_dataset")
    made: list[str] = []
    monkeypatch.setattr(
        module, "run_stage", lambda _, kind, n, inputs, *__: made.append(digest_json([kind.stage, n, inputs]))
    )
    monkeypatch.setattr(tokens, "architecture_file", lambda _: tmp_path / "config.json")

    def key(
        architecture: Mapping[str, Any],
        path: str = "folder",
        limit: int | None = None,
        rollout: Mapping[str, Any] = BASE["rollout"],
        **files: str,
    ) -> str:
        (tmp_path / "config.json").write_text(json.dumps(architecture))
        data = {"path": "train.jsonl", "max_problem_tokens": limit}
        policy = {"type": "pretrained", "path": path}
        cfg = RunConfig.model_validate({**BASE, "data": data, "policy": policy, "rollout": rollout})
        named = {f"policy.path/{name.replace('_', '.', 1)}": digest for name, digest in files.items()}
        inputs = {"data.path": "d", suite_field(cfg.evaluation.suites[0]): "s", **named}
        module.validate_dataset.__wrapped__(RunRef(name="run", config=cfg, token=1, inputs=inputs))
        return made[-1]

    return key


ENDLESS, SHORT, LONG = (
    {"model_type": "bloom"},
    {"model_type": "llama", "max_position_embeddings": 128},
    {"model_type": "llama", "max_position_embeddings": 2**20},
)


@pytest.mark.parametrize(("architecture", "limit"), [(ENDLESS, 50), (SHORT, None)])
def test_the_tokenizer_counts_where_it_counts(
    architecture: Mapping[str, Any], limit: int | None, validation_key: Callable[..., str]
) -> None:
    """Its content, not where it lies; and the weights beside it do not."""
    key = partial(validation_key, architecture, limit=limit)
    base = key(tokenizer_json="a", model_safetensors="w")
    assert key("moved", tokenizer_json="a", model_safetensors="w") == base
    assert key(tokenizer_json="a", model_safetensors="v") == base
    assert key(tokenizer_json="b", model_safetensors="w") != base


@pytest.mark.parametrize("architecture", [ENDLESS, LONG])
def test_where_no_prompt_can_be_too_long_keys_are_those_of_earlier_versions(
    architecture: Mapping[str, Any], validation_key: Callable[..., str]
) -> None:
    plain = validation_key(architecture, tokenizer_json="a")
    assert plain == validation_key(architecture, tokenizer_json="b", rollout={"max_new_tokens": 9})
    assert plain == "921c36acac7648b3dd76362cf8fa0a8e8f18608d39ecf8b389dde109dbce5cb2"


def test_what_leaves_prompts_the_same_room_changes_no_key(validation_key: Callable[..., str]) -> None:
    base = validation_key(SHORT, tokenizer_json="a")
    assert base != validation_key(SHORT, tokenizer_json="a", rollout={"max_new_tokens": 9})
    longer = {**SHORT, "max_position_embeddings": 129}
    assert base == validation_key(longer, tokenizer_json="a", rollout={"max_new_tokens": 9})


def test_one_suite_s_completions_do_not_depend_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("tasks.stages.evaluate_checkpoint")
    kept: list[str] = []

    def noted(*args: Any) -> str:
        kept.append(rows_key(*args))
        return kept[-1]

    monkeypatch.setattr(module, "rows_key", noted)
    monkeypatch.setattr(module, "run_stage", lambda *_, **__: None)
    for quiz in (1, 2):
        suites = [SUITE, {**SUITE, "name": "quiz", "samples": quiz}]
        cfg = RunConfig.model_validate({**BASE, "evaluation": {"suites": suites}})
        data = record("validate_dataset", suites={"exam": "s", "quiz": f"s{quiz}"})
        run = RunRef(name="run", config=cfg, token=1)
        module.evaluate_checkpoint.__wrapped__(run, 0, data, record("prepare_policy", digest="p"), None)
    exam, quiz_1, again, quiz_2 = kept
    assert exam == again
    assert quiz_1 != quiz_2


@pytest.mark.parametrize(
    ("changed", "package", "trained"),
    [
        ({}, None, True),
        ({"rollout": {"type": "vllm", "max_new_tokens": 8}}, "vllm", False),
        ({"rollout": SERVER}, "vllm", False),
        ({"rollout": {**SERVER, "endpoints": ["http://127.0.0.1:1"]}}, None, False),
        ({"reward": {"type": "reasoning_gym"}}, "reasoning-gym", False),
        ({"evaluation": {"suites": [{**SUITE, "reward": {"type": "reasoning_gym"}}]}}, "reasoning-gym", False),
        ({"reward": {"type": "verifiers", "environment": "own"}}, "verifiers", False),
        ({"training": {"learning_rate": 1e-3, "lora": {}}}, "peft", True),
        ({"training": {"learning_rate": 1e-3, "lora": {}}}, None, False),
    ],
)
def test_completions_are_found_again_while_the_packages_that_make_them_are_the_same(
    changed: Mapping[str, Any], package: str | None, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("tasks.stages.evaluate_checkpoint")
    monkeypatch.setattr(module, "run_stage", lambda *_, **__: None)
    monkeypatch.setattr(module, "keyed", lambda *_: {})
    monkeypatch.setattr(module, "answering", lambda *_: {})
    run = RunRef(name="run", config=RunConfig.model_validate({**BASE, **changed}), token=1)
    state = record("train_epoch", step=1, posterior_digest="q", checkpoint_digest="c", weights_digest="w")
    found: dict[str, list[str]] = {"now": [], "later": [], "before": []}
    for when, kept in found.items():

        def noted(*args: Any, when: str = when, kept: list[str] = kept) -> str:
            kept.append(rows_key(*args[:2]) if when == "before" else rows_key(*args))
            return kept[-1]

        def installed(names: tuple[str, ...], when: str = when) -> str:
            return "2" if when == "later" and names[0] == package else "1"

        monkeypatch.setattr(module, "rows_key", noted)
        monkeypatch.setattr(assemble, "_installed", installed)
        data, policy = record("validate_dataset", suites={"exam": "s"}), record("prepare_policy", digest="p")
        module.evaluate_checkpoint.__wrapped__(run, 0, data, policy, state if trained else None)
    assert (found["now"] != found["later"]) is (package is not None)
    assert (found["now"] == found["before"]) is (package is None)


def test_settings_that_came_later_are_in_no_key_at_their_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """What earlier versions have computed stays found."""
    cfg = RunConfig.model_validate({**BASE, "reward": {"type": "custom", "function": CODE}})
    silent = {leaf.path for leaf in leaves(cfg) if leaf.is_as_before}
    assert {"data.columns.verifier", "reward.threshold", "training.truncated", "training.overlong"} <= silent
    assert not silent & set(results(cfg))
    for stage in READS:
        assert not silent & set(settings(cfg, stage))
