"""Folders that look like a policy and are not quite: refused with the names of what is wrong, before any rollout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from cures_core.config.training import LoraConfig
from cures_core.errors import ConfigError, CuresError, MissingInput
from cures_core.policy.accounting import load_weights, require_whole
from cures_core.policy.loading import Policy, load_policy, save_policy
from tasks.readiness import check_run
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama
from tests.tasks.test_readiness import config

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "whole"
    save_policy(Policy(tiny_llama(tie_word_embeddings=False), character_tokenizer(), CPU), folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "policy"))


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    held = load_file(folder / WEIGHTS)
    change(held)
    save_file(held, folder / WEIGHTS, metadata={"format": "pt"})


def without_head(folder: Path) -> None:
    tensors(folder, lambda held: held.pop("lm_head.weight"))


def with_value_head(folder: Path) -> None:
    tensors(folder, lambda held: held.update({"v_head.weight": torch.zeros(1, 4)}))


def reshaped(folder: Path) -> None:
    tensors(folder, lambda held: held.update({"model.norm.weight": torch.zeros(3)}))


def cut(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def in_shards(folder: Path) -> list[Path]:
    model = load_policy(folder, CPU).model
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="4KB")
    return sorted(folder.glob("model-*.safetensors"))


def without_shard(folder: Path) -> None:
    in_shards(folder)[1].unlink()


def with_shard_elsewhere(folder: Path) -> None:
    in_shards(folder)[1].rename(folder.parent / "x.safetensors")
    name_shard(folder, "../x.safetensors")


def with_absolute_shard(folder: Path) -> None:
    name_shard(folder, str(in_shards(folder)[1]))


def with_hidden_shard(folder: Path) -> None:
    in_shards(folder)[1].rename(folder / ".x.safetensors")
    name_shard(folder, ".x.safetensors")


def name_shard(folder: Path, name: str) -> None:
    index = folder / "model.safetensors.index.json"
    held = json.loads(index.read_bytes())
    second = sorted(set(held["weight_map"].values()))[1]
    held["weight_map"] = {key: name if file == second else file for key, file in held["weight_map"].items()}
    index.write_text(json.dumps(held))


def with_cut_shard(folder: Path) -> None:
    shard = in_shards(folder)[1]
    shard.write_bytes(shard.read_bytes()[:-8])


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def with_a_larger_vocabulary(folder: Path) -> None:
    tokenizer = character_tokenizer()
    tokenizer.add_tokens([f"<{i}>" for i in range(1000)])
    tokenizer.save_pretrained(folder)


def with_a_smaller_vocabulary(folder: Path) -> None:
    """As of another model: all of its numbers have an embedding, which says nothing of these tokens."""
    place = folder / "tokenizer.json"
    held = json.loads(place.read_bytes())
    held["model"]["vocab"] = dict(list(held["model"]["vocab"].items())[:8])
    place.write_text(json.dumps(held))


def adapters(folder: Path) -> None:
    model: Any = load_policy(folder, CPU, lora=LoraConfig(rank=2, alpha=4, targets=("q_proj",))).model
    for name in ("config.json", WEIGHTS):
        (folder / name).unlink()
    model.save_pretrained(folder)


def adapters_on_top(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))


CASES: list[tuple[Callable[[Path], object], type[CuresError], list[str]]] = [
    (without_head, ConfigError, ["the files lack lm_head.weight"]),
    (with_value_head, ConfigError, ["the model has no v_head.weight"]),
    (reshaped, ConfigError, ["of another shape: model.norm.weight (3,) instead of ("]),
    (cut, ConfigError, [f"{WEIGHTS}: damaged"]),
    (without_shard, MissingInput, ["model-00002-of-", "shards missing"]),
    (with_cut_shard, ConfigError, ["model-00002-of-", "damaged"]),
    (with_shard_elsewhere, ConfigError, ["index.json", "../x.safetensors", "rename it there"]),
    (with_absolute_shard, ConfigError, ["index.json", "is absolute"]),
    (with_hidden_shard, ConfigError, ["index.json", "hidden file '.x.safetensors'"]),
    (without_tokenizer, MissingInput, ["no tokenizer there"]),
    (with_a_larger_vocabulary, ConfigError, ["tokens, the model embeddings of"]),
    (with_a_smaller_vocabulary, ConfigError, ["tokens, the model embeddings of"]),
    (adapters, ConfigError, ["is a folder of adapters too", "policy.base"]),
    (adapters_on_top, MissingInput, ["adapter_config.json without adapter_model.safetensors"]),
]


@pytest.mark.parametrize(("spoil", "kind", "words"), CASES)
def test_what_is_not_whole_is_refused_by_name(
    spoil: Callable[[Path], object], kind: type[CuresError], words: list[str], folder: Path, tmp_path: Path
) -> None:
    spoil(folder)
    cfg = config(tmp_path, policy={"type": "pretrained", "path": str(folder)})
    checked = next(checked.error for checked in check_run(cfg) if checked.finding.name == "policy")
    for look in (require_whole, lambda place: load_policy(place, CPU)):
        with pytest.raises(kind) as caught:
            look(folder)
        assert all(word in str(caught.value) for word in words), str(caught.value)
        assert caught.value.exit_code == 2
        assert str(caught.value) == str(checked)


def test_what_is_whole_passes(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    require_whole(folder)
    in_shards(folder)
    require_whole(folder)
    assert "Loading weights" not in capfd.readouterr().err


def test_loaded_by_threads_at_once_the_next_model_is_whole_as_well(tmp_path: Path) -> None:
    before = PreTrainedModel.tie_weights
    save_policy(Policy(tiny_llama(), character_tokenizer(), CPU), tmp_path / "policy")
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: load_weights(tmp_path / "policy"), range(24)))
        assert PreTrainedModel.tie_weights is before
    finally:
        PreTrainedModel.tie_weights = before  # type: ignore[method-assign]


def test_tied_weights_are_there_once(tmp_path: Path) -> None:
    save_policy(Policy(tiny_llama(tie_word_embeddings=True), character_tokenizer(), CPU), tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / WEIGHTS)
    require_whole(tmp_path / "tied")


def test_the_weights_themselves_are_not_read(folder: Path) -> None:
    """A model of many gigabytes is accounted for in seconds."""
    model = load_weights(folder, device_map="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
