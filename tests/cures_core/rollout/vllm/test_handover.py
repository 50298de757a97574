"""Weights handed to another process: whole, merged, and gone when their owner is."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cures_core.errors import EngineFailed
from cures_core.policy.accounting import shapes_in
from cures_core.rollout.vllm import handover as module
from cures_core.rollout.vllm.handover import Handover, merged_state
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama

TOKENIZER = character_tokenizer()


def test_the_newest_weights_lie_there_alone_and_can_be_loaded(tmp_path: Path) -> None:
    handover, model = Handover(tmp_path), tiny_llama()
    first = handover.put(model, TOKENIZER)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved.lm_head.weight.add_(1)
    second = handover.put(moved, TOKENIZER)
    assert not first.exists()
    loaded = AutoModelForCausalLM.from_pretrained(second, trust_remote_code=False)
    assert torch.equal(loaded.lm_head.weight, moved.lm_head.weight)
    handover.close()
    assert list(tmp_path.iterdir()) == []


def test_every_rank_has_a_whole_copy(tmp_path: Path) -> None:
    """transformers itself writes on rank 0 alone."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    model = tiny_llama()
    torch.distributed.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        folder = Handover(tmp_path).put(model, TOKENIZER)
        (tmp_path / "plain").mkdir()
        model.save_pretrained(tmp_path / "plain")
    finally:
        torch.distributed.destroy_process_group()
    assert list((tmp_path / "plain").iterdir()) == []
    loaded = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_adapters_are_merged_into_copies() -> None:
    from peft import LoraConfig, get_peft_model

    plain = tiny_llama()
    base = copy.deepcopy(plain)
    model = get_peft_model(plain, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = merged_state(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(state) == set(base.state_dict())
    base.load_state_dict(state)
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        assert torch.allclose(base(ids).logits, model.eval()(ids).logits, atol=1e-4)


Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
NAME = "model.layers.0.mlp.up_proj.weight"
CHANGES: dict[str, Change] = {
    f"the files lack {NAME}": lambda state: {name: value for name, value in state.items() if name != NAME},
    f"the model has no {NAME}.base_layer": lambda state: {**state, f"{NAME}.base_layer": state[NAME].clone()},
    f"of another shape: {NAME} ": lambda state: {**state, NAME: state[NAME][:, 1:].clone()},
}


@pytest.mark.parametrize("words", CHANGES)
@pytest.mark.parametrize("earlier", [0, 1])
def test_what_is_handed_over_is_every_tensor_of_the_model_and_no_other(
    words: str, earlier: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first hand-over and at later ones. What was handed over before stays."""
    handover, model = Handover(tmp_path), tiny_llama()
    before = [handover.put(model, TOKENIZER) for _ in range(earlier)]
    monkeypatch.setattr(module, "merged_state", lambda model: CHANGES[words](merged_state(model)))
    with pytest.raises(EngineFailed, match=f"weight sync: .* not the whole policy: {re.escape(words)}"):
        handover.put(model, TOKENIZER)
    assert list(tmp_path.glob("*/*")) == before
    assert handover.folder == [*tmp_path.iterdir(), *before][-1]


def test_weights_that_share_a_tensor_are_handed_over_once(tmp_path: Path) -> None:
    model = tiny_llama()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    handover = Handover(tmp_path)
    for _ in range(2):
        folder = handover.put(model, TOKENIZER)
    loaded = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    assert torch.equal(loaded.lm_head.weight, model.model.embed_tokens.weight)


def test_merged_adapters_are_the_tensors_of_the_plain_model(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    plain = tiny_llama()
    model = get_peft_model(copy.deepcopy(plain), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    folder = Handover(tmp_path).put(model, TOKENIZER)
    assert set(shapes_in(folder)) == set(plain.state_dict())


def test_what_a_dead_process_left_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from cures_core.rollout.vllm.handover import Handover
Handover(Path({str(tmp_path)!r}))
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    [left] = tmp_path.iterdir()
    alive = Handover(tmp_path)
    assert not left.exists()
    other = Handover(tmp_path)
    assert alive.folder.exists()
    assert set(tmp_path.iterdir()) == {alive.folder, other.folder}


@pytest.mark.parametrize("name", ["cures-weights-notes", "weights-999999999-x"])
def test_other_folders_are_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    Handover(tmp_path).close()
    assert (tmp_path / name).exists()


def test_what_a_process_of_another_machine_owns_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process here has the number of one that lives there."""
    monkeypatch.setattr(module.os, "getpid", lambda: 2**22 + 1)  # above the largest that Linux gives
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(module, "machine_id", lambda: "another")
        theirs = Handover(tmp_path)
    here = Handover(tmp_path)
    assert theirs.folder.exists()
    Handover(tmp_path)
    assert theirs.folder.exists()
    assert not here.folder.exists()
