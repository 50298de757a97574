"""What the product never does: run code that comes with a model, read pickles, evaluate text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("cures_core", "tasks", "flows", "benchmarks")
LOADERS = {"from_pretrained", "from_config", "load_dataset", "pipeline", "LLM", "EngineArgs", "AsyncEngineArgs"}
"""Functions of transformers, vLLM and datasets that can run a model's own code."""
PICKLES = {"cures_core/prompts/language.py"}
"""Reads data alone: `_DataOnly` finds no code."""
RUNS_PROGRAMS = {"cures_core/rewards/sandbox/runner.py"}
"""What it is for; it runs them in a process that is confined (tests/cures_core/rewards/test_code.py)."""


def trees(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    for package in packages:
        for path in sorted(Path(package).rglob("*.py")):
            yield path.as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def calls(name: str, tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield f"{name}:{node.lineno}", node


def test_every_load_of_a_model_says_that_its_code_is_not_run() -> None:
    found, called = 0, set()
    for name, tree in trees(*PACKAGES, "tests"):
        for place, call in calls(name, tree):
            if name_of(call.func) in LOADERS:
                found += 1
                called.add(id(call.func))
                said = {k.arg: k.value for k in call.keywords}.get("trust_remote_code")
                assert isinstance(said, ast.Constant), f"{place}: say trust_remote_code=False"
                assert said.value is False, f"{place}: say trust_remote_code=False"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("from_pretrained", "from_config"):
                assert id(node) in called, f"{name}:{node.lineno}: call it here, so that this test sees its arguments"
    assert found >= 6


def test_a_server_is_told_so_too() -> None:
    from cures_core.config.rollout import VllmServerRolloutConfig
    from cures_core.rollout.vllm.local_server import server_command

    for on_gpu in (False, True):
        words = server_command(VllmServerRolloutConfig(), Path("model"), "float32", 1, on_gpu)
        assert "--no-trust-remote-code" in words
        assert "--trust-remote-code" not in words


def test_nothing_is_evaluated_and_no_pickle_is_read() -> None:
    for name, tree in trees(*PACKAGES):
        for place, call in calls(name, tree):
            if isinstance(call.func, ast.Name):
                allowed = {"exec", "compile"} if name in RUNS_PROGRAMS else set()
                assert call.func.id not in {"eval", "exec", "compile", "__import__"} - allowed, place
            said = {k.arg: k.value for k in call.keywords}.get("weights_only")
            assert said is None or (isinstance(said, ast.Constant) and said.value is True), place
            assert not any(k.arg == "shell" and getattr(k.value, "value", None) for k in call.keywords), place
        for node in ast.walk(tree):
            modules = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if {m.split(".")[0] for m in modules} & {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}:
                assert name in PICKLES, f"{name}:{node.lineno}"


@pytest.mark.parametrize("extra", [{"auto_map": {"AutoModelForCausalLM": "evil.Evil"}}])
def test_a_model_that_brings_code_of_its_own_is_loaded_without_it_or_refused(
    extra: dict[str, object], tmp_path: Path
) -> None:
    import json

    import torch

    from cures_core.config.policy import WarmStartPolicy
    from cures_core.policy.characters import character_model, character_tokenizer
    from cures_core.policy.loading import load_policy

    folder, ran = tmp_path / "model", tmp_path / "ran"
    tokenizer = character_tokenizer()
    character_model(WarmStartPolicy(hidden_size=16, layers=1, heads=1), tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: ...\n")
    values = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**values, **extra}))
    load_policy(folder, torch.device("cpu"))
    assert not ran.exists()


def test_weights_in_a_pickle_are_refused(tmp_path: Path) -> None:
    import torch

    from cures_core.config.policy import WarmStartPolicy
    from cures_core.errors import MissingInput
    from cures_core.policy.characters import character_model, character_tokenizer
    from cures_core.policy.loading import load_policy

    tokenizer = character_tokenizer()
    model = character_model(WarmStartPolicy(hidden_size=16, layers=1, heads=1), tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(MissingInput, match=r"model\.safetensors"):
        load_policy(tmp_path, torch.device("cpu"))
