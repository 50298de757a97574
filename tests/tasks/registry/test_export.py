"""A registered model leaves the store as a folder that transformers loads alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cures_core.checkpoints.checkpoint import Checkpoint, save_checkpoint
from cures_core.config.run import RunConfig
from cures_core.evaluation.scores import Estimate, SuiteScore
from cures_core.files import canonical_json
from cures_core.policy.loading import Policy, load_policy, save_policy
from tasks.registry.export import export_model
from tasks.registry.history import by_a_person, move
from tasks.runs.records import Record
from tasks.storage.local import LocalStore
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama
from tests.tasks.stages.figures import figures_of


def put(store: LocalStore, stage: str, folder: Path | None = None, **figures: Any) -> str:
    """A committed record; returns its id."""
    record = Record(stage=stage, key="k", inputs={}, figures=figures_of(stage, **figures), versions={"torch": "2"})
    if folder is not None:
        manifest = store.publish_files(f"artifacts/{stage}/k/r-1", folder)
        record = record.model_copy(update={"files": f"artifacts/{stage}/k/r-1", "manifest": manifest})
    store.put(f"stages/{stage}/k.json", canonical_json(record.model_dump(mode="json")))
    return record.id


def logits(model: Any, ids: Any) -> Any:
    with torch.no_grad():
        return model(ids).logits


def test_adapters_are_merged_and_the_folder_needs_nothing_of_ours(tmp_path: Path) -> None:
    base = tmp_path / "base"
    save_policy(Policy(tiny_llama(), character_tokenizer(), torch.device("cpu")), base)
    config = RunConfig.model_validate(
        {
            "data": {"path": "t.jsonl"},
            "policy": {"type": "pretrained", "path": str(base)},
            "rollout": {"max_new_tokens": 4},
            "training": {"learning_rate": 1e-3, "lora": {"rank": 2, "alpha": 8}},
            "device": {"type": "cpu"},
        }
    )
    trained = load_policy(base, torch.device("cpu"), lora=config.training.lora)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained.trainable().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    save_checkpoint(Checkpoint(trained.trainable(), {}, {}, {"step": 1}), tmp_path / "state" / "checkpoint")
    (tmp_path / "scores").mkdir()
    half = Estimate(value=0.5, low=0.4, high=0.6)
    shares = {"unknown_share": 0.0, "truncated_share": 0.0, "tokens_mean": 2.0}
    score = SuiteScore(suite="exam", n=10, k=1, avg=half, pass_at={}, settings={"seed": 1}, **shares)
    (tmp_path / "scores" / "scores.json").write_bytes(canonical_json([score.model_dump(mode="json")]))
    store = LocalStore(tmp_path / "store")
    store.put("runs/demo/run.json", canonical_json({"config": config.model_dump(mode="json")}))
    entry = {
        "run": "demo",
        "policy": put(store, "prepare_policy", digest="d"),
        "state": put(store, "train_epoch", tmp_path / "state", rollouts=64),
        "evaluation": put(store, "evaluate_checkpoint", tmp_path / "scores"),
    }
    assert move(by_a_person(store), "m", None, entry) is not None

    export_model(store, "m", None, tmp_path / "out")
    assert not list((tmp_path / "out").glob("adapter*"))
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=False)("1+2=")["input_ids"]])
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=False)
    torch.testing.assert_close(logits(alone, ids), logits(trained.model, ids), rtol=1e-4, atol=1e-4)
    before = logits(AutoModelForCausalLM.from_pretrained(base, trust_remote_code=False), ids)
    assert (logits(alone, ids) - before).abs().max() > 0.1
    card = (tmp_path / "out" / "README.md").read_text()
    assert "adapters: LoRA of rank 2, merged" in card
    assert "| exam | avg@1 | 0.500 | 0.400 to 0.600 | 10 | 1 |" in card
