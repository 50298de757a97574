"""The code of docs/library.md runs as it stands there, and what the page names is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.cures_core.integrations import contracts

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "library.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_plain_loop_is_short_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    trained: list[Any] = []
    names: dict[str, Any] = {"roll_out": lambda _, n: rng.random(n).round().tolist(), "train": trained.append}
    assert len(BLOCKS[0].splitlines()) <= 20
    exec(BLOCKS[0], names)
    assert len(trained) == 20
    assert names["curriculum"].counts["asked"] == 20 * 64
    names["curriculum"].load("curriculum.safetensors")
    sampler = {**names, "rewards_of": lambda row: [1.0]}
    exec(BLOCKS[2], sampler)
    assert sampler["sampler"].draws.in_flight == []


def test_the_recipe_for_trl_runs(tmp_path: Path) -> None:
    from tests.cures_core.integrations.trl_run import correct, dataset, policy

    model, tokenizer = policy()
    names: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "dataset": dataset(), "correct": correct}
    small = "GRPOConfig(use_cpu=True, bf16=False, report_to=[], max_completion_length=4, "
    names["output_dir"], recipe = str(tmp_path), BLOCKS[1].replace("GRPOConfig(", small)
    exec(recipe, names)
    assert {"curriculum.safetensors", "posterior.parquet"} <= {p.name for p in (tmp_path / "checkpoint-4").iterdir()}


def test_the_launcher_for_prime_rl_puts_the_sampler_into_its_train_source(monkeypatch: pytest.MonkeyPatch) -> None:
    contracts.install(monkeypatch, "prime_rl.orchestrator.curriculum", TaskSampler=contracts.TaskSampler)
    monkeypatch.delitem(sys.modules, "cures_core.integrations.prime_rl", raising=False)
    tasks = [contracts.Task(f"t{i}") for i in range(8)]
    env = SimpleNamespace(name="sums", tasks=iter(tasks), config=SimpleNamespace(group_size=4))
    made: list[Any] = []
    orchestrator = ModuleType("prime_rl.orchestrator.orchestrator")

    def main() -> None:
        made.append(vars(orchestrator)["TrainSource"]([env]))  # by its name in the module, as prime-rl does

    vars(orchestrator).update(TrainSource=contracts.TrainSource, main=main)
    monkeypatch.setattr(sys.modules["prime_rl.orchestrator"], "orchestrator", orchestrator, raising=False)
    monkeypatch.setitem(sys.modules, orchestrator.__name__, orchestrator)
    exec(BLOCKS[3], {})
    [source] = made
    assert source.next_task() in tasks
    assert source.curricula["sums"].sampler.metrics()["rollouts/asked"] == 8 * 4


def test_files_modules_and_links_that_the_page_names_exist() -> None:
    import cures_core.curriculum as library

    for name in re.findall(r"\]\(([\w/.-]+)(?:#[\w-]+)?\)", PAGE):
        assert (ROOT / "docs" / name).exists(), name
    for name in re.findall(r"`(tests/[\w/.]+|docs/[\w/.]+)`", PAGE):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"Curriculum\.(\w+)\(", PAGE):
        assert hasattr(library.Curriculum, name), name
    first_screen = (ROOT / "README.md").read_text().splitlines()[:22]
    assert any("(docs/library.md)" in line for line in first_screen)
