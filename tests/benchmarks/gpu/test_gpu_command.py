"""`benchmarks/gpu`: what travels, what is asked in which order, and all of it once in small on CPU."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.curriculum.arm import Arm
from benchmarks.gpu import __main__ as command
from benchmarks.gpu.__main__ import units
from benchmarks.gpu.machine import describe, source_digest
from benchmarks.gpu.session import Session
from benchmarks.gpu.stand_in import write_stand_in
from benchmarks.gpu.work import _random_model
from cures_core.policy.loading import load_policy, load_tokenizer
from tests.end_to_end.pipeline import PROJECT

GPU = PROJECT / "benchmarks" / "gpu"


def test_units_of_a_gpu_are_all_different_and_arms_are_whole() -> None:
    found = units("models/smollm2", "cuda", small=False, seeds=2)
    assert len({unit.name for unit in found}) == len(found)
    kinds = [unit.name.split("-")[0] for unit in found]
    assert kinds == sorted(kinds, key=["exam", "throughput", "step", "plan", "arm"].index)
    arms = [Arm.model_validate(unit.spec) for unit in found if unit.side_by_side]
    assert {arm.pool for arm in arms} == {"waste", "mixed", "healthy"}
    assert len(arms) == 2 * 3 * 4
    assert all(arm.budget == 20_480 and arm.dtype == "bfloat16" for arm in arms)


def test_results_hold_the_name_of_a_model_and_not_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, Any]] = []
    monkeypatch.setattr(Session, "run", lambda self, units: begun.extend([self.models, *(u.spec for u in units)]))
    command.main(1, tmp_path / "out", device="cpu", model="/place/of/smollm2", jobs=1, seeds=1, only="", small=True)
    models, *specs = begun
    assert models == {"smollm2": "/place/of/smollm2"}
    assert specs
    assert "/place" not in json.dumps(specs)


def test_a_random_model_of_a_larger_vocabulary_has_a_tokenizer_that_belongs_to_it(tmp_path: Path) -> None:
    """As Qwen's architecture with the tokenizer at hand, which has a third of its tokens."""
    source = write_stand_in(tmp_path / "source")
    (plan,) = (unit for unit in units(str(source), "cpu", small=True, seeds=1) if unit.name == "plan-qwen2.5-1.5b")
    spec = {**plan.spec, "smaller": {**plan.spec["smaller"], "vocab_size": 1000}}
    policy = load_policy(_random_model(spec, tmp_path / "model"), torch.device("cpu"))
    assert policy.tokenizer("7+5=")["input_ids"] == load_tokenizer(source)("7+5=")["input_ids"]


def test_the_machine_is_described() -> None:
    found = describe("cpu")
    assert found["device"] == "cpu"
    assert found["versions"]["torch"]
    assert found["source"] == source_digest()
    assert len(found["source"]) == 12


def test_everything_that_travels_is_named_with_its_version() -> None:
    for bundle in GPU.glob("wheels/*.txt"):
        lines = [line.split("#")[0].strip() for line in bundle.read_text().splitlines()]
        assert all("==" in line for line in lines if line), bundle


def make_bundle(parts: Path, module: str) -> None:
    """A bundle `base` with a wheel of one module, in parts of 300 bytes."""
    wheel = parts / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{module}.py", "ANSWER = 42\n" + "# long enough for some parts\n" * 40)
        archive.writestr(f"{module}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        archive.writestr(
            f"{module}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{module}-1.0.dist-info/RECORD", "")
    tar = subprocess.run(["tar", "-cf", "-", "-C", parts, wheel.name], capture_output=True, check=True).stdout
    wheel.unlink()
    lines = []
    for number, at in enumerate(range(0, len(tar), 3000)):
        part = tar[at : at + 3000]
        (parts / f"base.tar.{number:02d}").write_bytes(part)
        lines.append(f"{hashlib.sha256(part).hexdigest()}  base.tar.{number:02d}\n")
    (parts / "base.sha256").write_text("".join(lines))


def unpack(parts: Path, scratch: Path) -> str:
    done = subprocess.run(
        ["bash", GPU / "unpack.sh", parts, scratch], cwd=PROJECT, capture_output=True, text=True, check=True,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    return done.stdout + done.stderr


def test_parts_may_arrive_one_after_another_and_damaged_ones_wait(tmp_path: Path) -> None:
    parts, scratch, later = tmp_path / "parts", tmp_path / "scratch", tmp_path / "later"
    parts.mkdir()
    later.mkdir()
    make_bundle(parts, "carried_module")
    (parts / "base.tar.01").rename(later / "base.tar.01")
    assert "base.tar.01" in unpack(parts, scratch)
    assert not list((scratch / "site").iterdir())
    whole = (later / "base.tar.01").read_bytes()
    (later / "base.tar.01").write_bytes(b"x" + whole[1:])
    assert "missing or damaged" in unpack(later, scratch)
    (later / "base.tar.01").write_bytes(whole)
    assert "bundle base: installed" in unpack(later, scratch)
    assert (scratch / "site" / "carried_module.py").exists()
    assert unpack(parts, scratch) == ""  # nothing is done twice


@pytest.mark.slow
def test_a_rehearsal_on_cpu_measures_everything_once_and_then_nothing(tmp_path: Path) -> None:
    command = ["bash", GPU / "run.sh", "6", tmp_path / "out", "--device", "cpu", "--small", "--jobs", "2"]
    environment = {
        "PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "PARTS": str(tmp_path / "none"), "HOME": str(tmp_path),
        "CURES_GPU_SCRATCH": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "results.json").read_bytes())
    broken = {name: u["result"] for name, u in found["units"].items() if not u["result"].get("done")}
    assert not broken
    assert {name.split("-")[0] for name in found["units"]} == {"exam", "throughput", "step", "plan", "arm"}
    assert all(case["tokens_per_s"] > 0 for case in found["units"]["throughput"]["result"]["cases"].values())
    [arm] = [u["result"] for name, u in found["units"].items() if name == "arm-mixed-uniform-1"]
    accounts = {"step", "rollouts", "tokens", "updates", "seconds", "processor_seconds"}
    assert accounts | {"avg_at_1", "pass_at_2", "greedy", "entropy"} <= set(arm["points"][0])
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "begun" not in again.stdout


def test_a_session_needs_neither_prefect_nor_what_is_built_on_it() -> None:
    """What a GPU machine is asked runs on its own torch and transformers, without the pipeline."""
    modules = "benchmarks.gpu.__main__ benchmarks.gpu.work benchmarks.curriculum.arm benchmarks.step.training_step"
    code = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]; print(*sys.modules, sep='\\n')"
    command = [
        sys.executable,
        "-c",
        code,
        *modules.split(),
        "cures_core.jobs.measure",
        "cures_core.planning.device_memory",
    ]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"prefect", "flows", "tasks", "great_expectations", "dvc", "boto3"}
