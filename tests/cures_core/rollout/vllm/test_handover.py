"""Weights handed to another process: whole, merged, and gone when their owner is."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

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
    loaded = AutoModelForCausalLM.from_pretrained(second)
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
    loaded = AutoModelForCausalLM.from_pretrained(folder)
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
