"""Prompts that do not fit into the policy's context, which would end a run in its middle, are found before any work."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch

from cures_core.config.marks import Later, Operation, Result
from cures_core.config.rollout import PromptFormat
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, DataRejected
from cures_core.jobs.assemble import evaluation_rollout
from cures_core.policy.loading import Policy, load_policy, save_policy
from cures_core.prompts import PromptSet, make_prompt
from cures_core.rollout import build_engine
from cures_core.terms import Request
from tasks.runs.opening import open_run
from tasks.runs.records import files_of
from tasks.stages.validate_dataset import validate_dataset
from tasks.storage import open_store
from tasks.validation.tokens import Room, misfits, rooms, rooms_if_known
from tasks.validation.validator import DATA
from tests.cures_core.prompts.files import jsonl
from tests.cures_core.rollout.test_prompting import CHAT
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama

CPU = torch.device("cpu")
CONTEXT, NEW = 64, 8
REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT


def problem(length: int) -> str:
    """A problem of so many characters."""
    return f"{length}+1=".rjust(length, "9")


def rows(*lengths: int) -> list[dict[str, str]]:
    return [{"problem": problem(length), "answer": "1"} for length in lengths]


def saved(folder: Path, chat_template: str = CHAT) -> Path:
    """A policy of 64 positions that can be asked in chats."""
    tokenizer = character_tokenizer(chat_template=chat_template)
    save_policy(Policy(tiny_llama(max_position_embeddings=CONTEXT), tokenizer, CPU), folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("policy") / "model")


def config(folder: Path, *, train: tuple[int, ...] = (8, 9), exam: tuple[int, ...] = (), **more: Any) -> RunConfig:
    jsonl(folder / "train.jsonl", rows(*train))
    suites = []
    if exam:
        suites = [{"name": "exam", "path": str(jsonl(folder / "exam.jsonl", rows(*exam))), "max_reject_share": 0.9}]
    plain = {
        "data": {"path": str(folder / "train.jsonl"), "max_reject_share": 0.9, **more.pop("data", {})},
        "rollout": {"max_new_tokens": NEW},
        "training": {"learning_rate": 1e-3},
        "evaluation": {"suites": [{**suite, **more.pop("suite", {})} for suite in suites]},
        "store": {"url": str(folder / "store")},
        "device": {"type": "cpu"},
    }
    return RunConfig.model_validate({**plain, **more})


def pretrained(model: Path) -> dict[str, Any]:
    return {"type": "pretrained", "path": str(model)}


def validated(cfg: RunConfig) -> tuple[Path, Any]:
    """The files of the stage, and its figures."""
    with open_run(cfg) as run:
        record = validate_dataset.__wrapped__(run)  # type: ignore[attr-defined]
        return files_of(open_store(cfg.store), record), record.figures


def rejected(files: Path) -> list[tuple[str, int, str, str]]:
    """File, line, reason and detail."""
    lines = (files / "quarantine.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [(Path(d["file"]).name, d["line"], d["reason"], d["detail"]) for d in found]


def test_a_prompt_that_leaves_a_completion_no_room_is_rejected_before_any_work(tmp_path: Path) -> None:
    """The small policy has 64 positions, of which a completion takes 8."""
    files, figures = validated(config(tmp_path, train=(8, 56, 57), exam=(9, 57)))
    said = "57 tokens, 56 fit: context of 64 (the small policy's) less rollout.max_new_tokens = 8"
    assert rejected(files) == [("train.jsonl", 3, "no_room", said), ("exam.jsonl", 2, "no_room", said)]
    assert (figures.prompts, figures.rejected, figures.reasons) == (2, 1, {"no_room": 1})


def test_a_set_of_prompts_that_do_not_fit_is_refused_with_the_limit_and_what_to_do(tmp_path: Path) -> None:
    cfg = config(tmp_path, train=(8, 57), data={"max_reject_share": 0.05})
    with pytest.raises(DataRejected, match=r"train\.jsonl:2: .* 56 fit: context of 64 .* lower max_new_tokens"):
        validated(cfg)


def test_each_set_has_the_room_that_its_own_completions_leave(tmp_path: Path) -> None:
    files, _ = validated(config(tmp_path, train=(8, 56), exam=(44, 45), suite={"max_new_tokens": 20}))
    said = "45 tokens, 44 fit: context of 64 (the small policy's) less evaluation.suites.exam.max_new_tokens = 20"
    assert rejected(files) == [("exam.jsonl", 2, "no_room", said)]


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"template": "Q: {problem}\nA:"},
        {"chat": True},
        {"chat": True, "template": "say {problem}", "system": "be short"},
    ],
)
def test_what_the_engine_refuses_is_what_is_rejected(shown: dict[str, Any], model: Path, tmp_path: Path) -> None:
    """Template, chat template, system message and the tokens that the tokenizer adds count as they do in a rollout."""
    rollout, suite = {"max_new_tokens": NEW, "prompt_format": shown}, {"max_new_tokens": 12}
    cfg = config(tmp_path, exam=(8,), policy=pretrained(model), rollout=rollout, suite=suite)
    policy, find = load_policy(model, CPU), misfits(cfg, rooms(cfg))
    prompts = PromptSet.of(make_prompt(problem(length), "1") for length in range(6, CONTEXT))
    for name, asked in ((DATA, cfg.rollout), ("exam", evaluation_rollout(cfg, cfg.evaluation.suites[0], 1.0))):
        engine = build_engine(asked, policy.model, policy.tokenizer, CPU)
        refused = []
        for i, prompt in enumerate(prompts):
            try:
                engine.generate([Request("r", prompt, 0, 0)])
            except DataRejected:
                refused.append(i)
        assert [i for i, _ in find(name, prompts)] == refused
        assert 0 < len(refused) < len(prompts)


def test_a_prompt_that_the_chat_template_refuses_is_rejected_too(tmp_path: Path) -> None:
    chats = [
        {"messages": [{"role": "user", "content": "1+1="}], "answer": "2"},
        {"messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "1+2="}], "answer": "3"},
    ]
    data = {"problem_rule": "chat", "columns": {"problem": "messages"}}
    rollout = {"max_new_tokens": NEW, "prompt_format": {"chat": True}}
    cfg = config(tmp_path, policy=pretrained(saved(tmp_path / "model", REFUSING)), rollout=rollout, data=data)
    jsonl(tmp_path / "train.jsonl", chats)
    files, _ = validated(cfg)
    assert rejected(files) == [("train.jsonl", 2, "chat_refused", "no system")]


def test_a_limit_of_the_profile_s_own_holds_beside_that_of_the_context(tmp_path: Path) -> None:
    """Problems within it can be too long with what stands around them."""
    rollout = {"max_new_tokens": NEW, "prompt_format": {"template": "Q: {problem}"}}
    files, figures = validated(config(tmp_path, train=(8, 54, 60), data={"max_problem_tokens": 56}, rollout=rollout))
    assert figures.reasons == {"too_many_tokens": 1, "no_room": 1}
    assert rejected(files)[0][3].startswith("57 tokens, 56 fit")


def test_completions_that_leave_no_room_at_all_are_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.max_new_tokens = 64 leaves no room"):
        validated(config(tmp_path, rollout={"max_new_tokens": 64}))


@pytest.mark.parametrize("place", ["gone", "owner/gone"])
def test_without_the_policy_data_are_checked_all_the_same(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError("the hub")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", away)
    cfg = config(tmp_path, policy=pretrained(Path(place) if "/" in place else tmp_path / place))
    with caplog.at_level(logging.WARNING):
        assert rooms_if_known(cfg) == {}
    assert "is not checked" in caplog.text
    assert "gone" in caplog.text


CHATS = {"chat": True, "system": "Be brief.", "chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize("shown", [{}, {"template": "Q: {problem}", "stop": ["Q:"]}, CHATS])
def test_the_key_of_a_room_is_that_of_earlier_versions(shown: dict[str, Any]) -> None:
    fmt = PromptFormat.model_validate(shown)
    made = {"chat": False, "system": "", "chat_template_kwargs": {}, "template": "{problem}", **shown}
    made.pop("stop", None)
    assert Room(7, fmt, "said").keyed() == {"tokens": 7, "prompt_format": made}


class YoungerFormat(PromptFormat):
    """Of a version that can do more."""

    suffix: Annotated[Result[str], Later("")] = ""
    batch: Operation[int] = 1


def test_a_room_s_key_follows_the_marks() -> None:
    plain = Room(7, PromptFormat(), "said").keyed()
    assert Room(7, YoungerFormat(batch=2), "said").keyed() == plain
    assert Room(7, YoungerFormat(suffix="?"), "said").keyed() != plain


def test_a_context_without_a_limit_limits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("tasks.validation.tokens")
    cfg = config(tmp_path, exam=(8, 9), policy=pretrained(tmp_path / "model"))
    for architecture in ({"model_type": "bloom"}, {"model_type": "llama", "max_position_embeddings": 2**20}):
        (tmp_path / "config.json").write_text(json.dumps(architecture))
        monkeypatch.setattr(module, "architecture_file", lambda _: tmp_path / "config.json")
        assert rooms(cfg) == {}
