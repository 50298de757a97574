"""`benchmarks/gpu`: what travels, what is asked in which order, and all of it once in small on CPU."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer

from benchmarks.curriculum.arm import Arm
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import work
from benchmarks.gpu.__main__ import units
from benchmarks.gpu.machine import describe, source_digest
from benchmarks.gpu.session import Session
from benchmarks.gpu.stand_in import write_stand_in
from benchmarks.gpu.work import _random_model, exam
from cures_core import rollout
from cures_core.config.rollout import HfRolloutConfig, VllmRolloutConfig
from cures_core.policy.loading import load_policy, load_tokenizer
from tests.end_to_end.pipeline import PROJECT

GPU = PROJECT / "benchmarks" / "gpu"


def test_units_of_a_gpu_are_all_different_and_arms_are_whole() -> None:
    found = units("models/smollm2", "cuda", small=False, seeds=2)
    assert len({unit.name for unit in found}) == len(found)
    first = [unit.name for unit in found].index("arm-waste-uniform-1")
    assert [unit.name for unit in found[:first]] == [
        "exam-kernels", "throughput", "step-cures", "step-trl", "exam-hf", "plan-smollm2",
    ]  # fmt: skip
    assert sum(unit.most_s for unit in found[:first]) <= 450  # the arms have a part of fifteen minutes
    arms = [Arm.model_validate(unit.spec) for unit in found if unit.side_by_side]
    assert {arm.pool for arm in arms} == {"waste", "mixed", "healthy"}
    assert len(arms) == 2 * 3 * 6
    assert all(arm.budget == 20_480 and arm.dtype == "bfloat16" for arm in arms)


def test_a_gpu_is_not_asked_about_a_random_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        command.main(1, tmp_path / "out", device="cuda", model="", jobs=1, seeds=1, only="", small=False)
    assert ended.value.exit_code == 2
    assert "--model" in capsys.readouterr().err


def exam_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, **spec: Any) -> dict[str, Any]:
    """What `exam` makes of a file of tests."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_pretended.py").write_text(f"import time, pytest\n{body}")
    monkeypatch.setattr(work, "ROOT", tmp_path)
    found: list[Any] = []
    exam({"arguments": ["tests/test_pretended.py"], "limit_s": 60, **spec}, found.append)
    return dict(found[-1])


SKIPPED = "def test_a(): pass\n@pytest.mark.parametrize('a', ['x y'])\ndef test_b(a): pytest.skip('not here')\n"


def test_an_exam_counts_what_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "def test_a(capsys):\n    with capsys.disabled(): print('\\n5 tokens/s')\ndef test_b(): assert False\n"
    found = exam_of(tmp_path, monkeypatch, body)
    assert (found["passed"], found["failed"], found["failures"]) == (1, 1, ["tests/test_pretended.py::test_b"])
    assert found["said"] == ["5 tokens/s"]
    assert not found["done"]


@pytest.mark.parametrize("all_must_run", [False, True])
def test_an_exam_whose_tests_were_skipped_may_not_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, all_must_run: bool
) -> None:
    found = exam_of(tmp_path, monkeypatch, SKIPPED, all_must_run=all_must_run)
    assert (found["passed"], found["skipped"], found["done"]) == (1, 1, not all_must_run)


def test_an_exam_whose_time_is_over_says_how_far_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "def test_a(): pass\ndef test_b(): time.sleep(600)\n"
    found = exam_of(tmp_path, monkeypatch, body, limit_s=10)
    assert (found["passed"], found["code"], found["done"]) == (1, None, False)


def test_a_case_that_failed_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (unit,) = (unit for unit in units("stand-in", "cpu", small=True, seeds=1) if unit.name == "throughput")
    spec = {**unit.spec, "model": str(write_stand_in(tmp_path / "model")), "limit_s": 60}
    rate, found = work._rate, []

    def failing(case: dict[str, Any], *rest: Any) -> dict[str, Any]:
        if case["decoding"] == "eager":
            raise RuntimeError("not here")
        return rate(case, *rest)

    monkeypatch.setattr(work, "_rate", failing)
    work.throughput(spec, found.append)
    assert not found[-1]["done"]
    assert found[-1]["cases"]["hf-eager-4"]["error"] == "RuntimeError: not here"
    static = found[-1]["cases"]["hf-static-4"]
    assert (static["static"], static["captured"]) == (1, 0)  # on CPU nothing is captured
    monkeypatch.setattr(work, "_rate", rate)
    work.throughput({**spec, "former": found[-1]}, found.append)
    assert found[-1]["done"]
    assert found[-1]["cases"]["hf-static-4"] == static


def test_one_engine_of_vllm_serves_cases_of_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Engine:
        def close(self) -> None:
            made.append("closed")

    def build(cfg: Any, *_: Any) -> Engine:
        made.append(cfg.type)
        return Engine()

    monkeypatch.setattr(rollout, "build_engine", build)
    engines = work._Engines(SimpleNamespace(model=None, tokenizer=None, device=None))
    for cfg in (HfRolloutConfig(), HfRolloutConfig(), VllmRolloutConfig(), VllmRolloutConfig()):
        engines.of(cfg)
    engines.close()
    assert made == ["hf", "closed", "hf", "closed", "vllm", "closed"]


def test_time_of_a_plan_is_that_of_steps_that_update(tmp_path: Path) -> None:
    (unit,) = (unit for unit in units("stand-in", "cpu", small=True, seeds=1) if unit.kind == "plan")
    found: list[Any] = []
    model = str(write_stand_in(tmp_path / "model"))
    overrides = [*unit.spec["overrides"], "curriculum.prompts_per_step=8", "curriculum.rollouts_per_step=64"]
    work.plan({**unit.spec, "model": model, "overrides": overrides, "steps": 2}, found.append)
    assert found[-1]["updates"] == 2


def test_the_commit_of_a_source_tree_that_travelled_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURES_COMMIT", "0123456789abcdef")
    assert describe("cpu")["commit"] == "0123456789ab"


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


@pytest.mark.parametrize("named", [False, True])
def test_the_model_that_cures_model_fetch_has_put_there_is_taken(named: bool, tmp_path: Path) -> None:
    for name in ("run.sh", "unpack.sh"):
        (tmp_path / "benchmarks/gpu").mkdir(parents=True, exist_ok=True)
        shutil.copy(GPU / name, tmp_path / "benchmarks/gpu")
    (tmp_path / "models/smollm2").mkdir(parents=True)
    (tmp_path / "models/smollm2/config.json").write_text("{}")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\necho "$@"\n')
    python.chmod(0o755)
    own = ["--model", "elsewhere"] if named else []
    environment = {"PYTHON": str(python), "PATH": "/usr/bin:/bin", "CURES_GPU_SCRATCH": str(tmp_path / "scratch")}
    command = ["bash", tmp_path / "benchmarks/gpu/run.sh", "9", tmp_path / "out", *own]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["--model", "elsewhere" if named else "models/smollm2"]


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
