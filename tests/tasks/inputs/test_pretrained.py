"""Where a pretrained policy lies: here, or on the hub, which is not asked for what can only be here."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from cures_core.config.policy import PretrainedPolicy
from cures_core.errors import MissingInput, ServerUnavailable, StoreUnavailable, SystemRefused
from cures_core.policy.accounting import no_model
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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """Makes huggingface_hub ask a hub that gives every question one answer: a status, with a code; 0: there is none."""
    from huggingface_hub import _snapshot_download, constants, file_download

    address = "http://127.0.0.1:9"
    places: dict[str, Any] = {"endpoint": address, "cache_dir": tmp_path / "cache", "etag_timeout": 5}
    for module, name in ((_snapshot_download, "snapshot_download"), (file_download, "hf_hub_download")):
        asking = getattr(module, name)
        monkeypatch.setattr(f"huggingface_hub.{name}", lambda *a, asking=asking, **k: asking(*a, **k, **places))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the attempts that are huggingface_hub's own

    def answer(status: int, code: str = "") -> None:
        def send(self: httpx2.Client, request: httpx2.Request, **_: Any) -> httpx2.Response:
            if not status:
                raise httpx2.ConnectError("refused", request=request)
            return httpx2.Response(status, headers={"X-Error-Code": code} if code else {}, request=request)

        monkeypatch.setattr(httpx2.Client, "send", send)

    return answer


@pytest.mark.parametrize("status", [0, 429, 500, 503])
@pytest.mark.parametrize("look", [pretrained_folder, architecture_file])
def test_a_hub_that_is_away_is_no_missing_model(
    look: Callable[[PretrainedPolicy], object], status: int, hub: Callable[[int], None]
) -> None:
    hub(status)
    with pytest.raises(ServerUnavailable, match=r"owner/model: .*the hub does not answer \("):
        look(PretrainedPolicy(path="owner/model"))


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (404, "RepoNotFound", "no model of that name on the hub .*Set policy.path"),
        (401, "", "no model of that name on the hub"),
        (404, "RevisionNotFound", "has no revision 'v2' on the hub. Correct policy.revision"),
        (403, "GatedRepo", "is gated on the hub.*set HF_TOKEN"),
    ],
)
@pytest.mark.parametrize("look", [pretrained_folder, architecture_file])
def test_a_hub_that_has_no_such_model_says_so(
    look: Callable[[PretrainedPolicy], object], status: int, code: str, says: str, hub: Callable[[int, str], None]
) -> None:
    hub(status, code)
    with pytest.raises(MissingInput, match=f"owner/model: .*{says}"):
        look(PretrainedPolicy(path="owner/model", revision="v2"))


@pytest.mark.parametrize("look", [pretrained_folder, architecture_file])
def test_a_hub_that_is_not_to_be_asked_is_not_away(
    look: Callable[[PretrainedPolicy], object], hub: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingInput, match=r"owner/model: .*HF_HUB_OFFLINE forbids to ask the hub for one. Unset it"):
        look(PretrainedPolicy(path="owner/model"))


def test_a_connection_that_breaks_off_in_a_download_is_the_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise httpx2.RemoteProtocolError("peer closed connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    with pytest.raises(ServerUnavailable, match=r"owner/model: .*\(peer closed connection\)"):
        pretrained_folder(PretrainedPolicy(path="owner/model"))


def test_transformers_that_found_the_hub_away_say_so_too() -> None:
    for error, told in ((httpx2.ConnectError("refused"), ServerUnavailable), (OSError("no such file"), MissingInput)):
        outer = OSError("We couldn't connect to the hub")
        outer.__cause__ = error
        assert type(no_model("owner/model", outer)) is told
