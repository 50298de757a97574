"""Where a pretrained policy lies: here, or on the hub, which is not asked for what can only be here."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cures_core.config.policy import PretrainedPolicy
from cures_core.errors import MissingInput, StoreUnavailable, SystemRefused
from cures_core.policy.loading import load_policy, load_tokenizer
from tasks.inputs.pretrained import architecture_file, pretrained_files, pretrained_folder


@pytest.fixture(autouse=True)
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the hub was asked for, which has nothing. The working directory holds a folder."""
    names: list[str] = []

    def nothing(name: Any, *_: Any, **__: Any) -> None:
        names.append(str(name))
        raise OSError("not there")

    monkeypatch.setattr("huggingface_hub.snapshot_download", nothing)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", nothing)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", nothing)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", nothing)
    (tmp_path / "policies").mkdir()
    monkeypatch.chdir(tmp_path)
    return names


def of_config(look: Callable[[PretrainedPolicy], object]) -> Callable[[str], object]:
    return lambda path: look(PretrainedPolicy(path=path))


LOOKS = [
    *map(of_config, (pretrained_folder, pretrained_files, architecture_file)),
    load_tokenizer,
    lambda path: load_policy(path, torch.device("cpu")),
]


@pytest.mark.parametrize("path", ["models/smollm2", "./mine", "../mine", "/mine", "~/mine", "policies/x", "a/b/c"])
@pytest.mark.parametrize("look", LOOKS)
def test_the_hub_is_not_asked_for_a_folder_of_this_machine(
    path: str, look: Callable[[str], object], asked: list[str]
) -> None:
    with pytest.raises(MissingInput, match=rf"{path}: no folder .* `cures model fetch smollm2 --out \S*{path}"):
        look(path)
    assert asked == []


@pytest.mark.parametrize("path", ["owner/model", "gpt2"])
@pytest.mark.parametrize("look", LOOKS)
def test_it_is_asked_for_what_may_be_there(path: str, look: Callable[[str], object], asked: list[str]) -> None:
    with pytest.raises(MissingInput):
        look(path)
    assert asked == [path]


@pytest.mark.parametrize(
    ("number", "told"), [(errno.ENOSPC, "space"), (errno.EACCES, "[Pp]ermission"), (errno.EROFS, "[Rr]ead-only")]
)
@pytest.mark.parametrize("look", [pretrained_folder, architecture_file])
def test_a_place_that_takes_no_model_is_not_told_as_a_model_that_is_missing(
    number: int, told: str, look: Callable[[PretrainedPolicy], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "/cache/blobs/1")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refused)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    with pytest.raises((StoreUnavailable, SystemRefused), match=rf"/cache/blobs/1.*{told}|{told}.*/cache/blobs/1"):
        look(PretrainedPolicy(path="owner/model"))


def test_the_base_of_adapters_is_one_of_either_too(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "adapters").mkdir()
    for name, text in (("adapter_config.json", "{}"), ("adapter_model.safetensors", "")):
        (tmp_path / "adapters" / name).write_text(text)
    with pytest.raises(MissingInput, match=r"models/base: no folder"):
        pretrained_files(PretrainedPolicy(path="adapters", base="models/base"))
    assert asked == []
