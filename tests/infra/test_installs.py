"""Locks and slices: what is pinned, what a slice can do without the others, and what is said where one is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from cures_core.config.loading import load_config
from cures_core.config.rewards import MathConfig
from cures_core.errors import MissingExtra
from cures_core.extras import MODULES, require_extras
from cures_core.rewards import make_verifier
from flows.train import run_stages
from tests.cures_core.jobs.epochs import make_job, outcome
from tests.end_to_end.pipeline import PROJECT, write_profile

REQUIREMENTS = PROJECT / "requirements"
LOCKS = sorted(path.stem for path in REQUIREMENTS.glob("*.txt") if path.stem != "torch-cpu")  # that one is no slice
SITE = Path(__file__).parent / "site"
PACKAGE = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")


def pins(lock: str) -> dict[str, set[str]]:
    """What a lock and those that it includes pin: package -> versions."""
    found: dict[str, set[str]] = {}
    for line in (REQUIREMENTS / f"{lock}.txt").read_text().splitlines():
        if line.startswith("-r "):
            for name, versions in pins(line.removeprefix("-r ").removesuffix(".txt")).items():
                found.setdefault(name, set()).update(versions)
        elif re.match(r"[a-z0-9]", line):
            pinned = Requirement(line.removesuffix(" \\"))
            found.setdefault(pinned.name, set()).add(str(pinned.specifier).removeprefix("=="))
    return found


def asked_for(extra: str) -> list[Requirement]:
    """What the package asks for with an extra, other extras that it names resolved."""
    listed = PACKAGE["dependencies"] if extra == "base" else PACKAGE["optional-dependencies"][extra]
    found = []
    for requirement in map(Requirement, listed):
        if requirement.name == "cures":
            found += [one for other in requirement.extras for one in asked_for(other)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_address(lock: str) -> None:
    text = (REQUIREMENTS / f"{lock}.txt").read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=[^\s-])", text):
        if "==" in block.splitlines()[0]:
            assert "--hash=sha256:" in block, block.splitlines()[0]


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock != "cuda"])
def test_a_lock_pins_what_the_package_asks_for(lock: str) -> None:
    pinned = pins(lock)
    for requirement in asked_for(lock):
        versions = pinned.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement} is not in requirements/{lock}.txt: make lock"
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_the_cpu_build_of_torch_has_the_version_of_the_others() -> None:
    assert {f"{version}+cpu" for version in pins("train")["torch"]} == pins("torch-cpu")["torch"]


def test_locks_agree() -> None:
    """One version of a package for each Python, whatever is installed together."""
    by_python: dict[tuple[str, str], set[str]] = {}
    for lock in LOCKS:
        for line in (REQUIREMENTS / f"{lock}.txt").read_text().splitlines():
            if not re.match(r"[a-z0-9]", line):
                continue
            pinned = Requirement(line.removesuffix(" \\"))
            for python in PYTHONS:
                environment = {"python_full_version": f"{python}.9", "python_version": python}
                if pinned.marker is None or pinned.marker.evaluate(environment):
                    by_python.setdefault((pinned.name, python), set()).add(str(pinned.specifier))
    assert {key: versions for key, versions in by_python.items() if len(versions) > 1} == {}


def test_the_same_pythons_are_named_everywhere() -> None:
    supported = SpecifierSet(PACKAGE["requires-python"])
    assert [f"3.{i}" for i in range(8, 20) if supported.contains(Version(f"3.{i}.9"))] == list(PYTHONS)
    for path in (PROJECT / "README.md", PROJECT / "tasks" / "doctor.py"):
        assert all(python in path.read_text() for python in PYTHONS), path
    for path in (PROJECT / "infra").rglob("*"):
        for named in re.findall(r"(?:python:|python-version: \")(3\.\d+)", path.read_text() if path.is_file() else ""):
            assert named in PYTHONS, path


def test_whatever_installs_names_locks_that_are_there() -> None:
    named = re.findall(r"^\t\$\(LOCKED\) (.*)$", (PROJECT / "Makefile").read_text(), re.M)
    files = [path for folder in ("infra", "docs") for path in (PROJECT / folder).rglob("*") if path.is_file()]
    for path in [*files, PROJECT / "README.md"]:
        if path.suffix not in (".png", ".webp", ".gif"):
            named += re.findall(r"requirements/install\.sh \S+ ([a-z0-9 -]+)", path.read_text())
    assert len(named) >= 9
    assert {name for words in named for name in words.split()} <= set(LOCKS)


PIP = """#!/bin/sh
case "$*" in
    -c*) exit 1 ;;
    *torch-cpu*) echo "ERROR: no matching distribution" >&2; exit 1 ;;
    *) printf "%s\\n" "Collecting a==1" "  Downloading a-1-py3.whl (71 kB)" "Downloading torch-2.whl (104.3 MB)" \\
        "Requirement already satisfied: b" "Installing collected packages: a, torch" "Successfully installed a-1"
        echo "$PIP_FAILS" >&2; exit ${#PIP_FAILS} ;;
esac
"""


def installed(folder: Path, **env: str) -> tuple[int, list[str]]:
    """Exit code and lines of an installation by a pip that says what pip says."""
    (folder / "python").write_text(PIP)
    (folder / "python").chmod(0o755)
    command = [REQUIREMENTS / "install.sh", folder / "python", "train", "pipeline"]
    plain = {"PATH": os.environ["PATH"], "PIP_FAILS": "", **env}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.returncode, [line for line in done.stderr.splitlines() if line]


def test_an_installation_tells_what_takes_time(tmp_path: Path) -> None:
    told = [
        f"installing train pipeline for {tmp_path}/python, which takes minutes; large downloads are named as they "
        "begin",
        "  torch: PyTorch's CPU build, 0.2 GB, where the indexes have it",
        "  Downloading torch-2.whl (104.3 MB)",
        "  unpacking",
    ]
    assert installed(tmp_path) == (0, told)
    assert installed(tmp_path, MAKEFLAGS=" --jobserver-auth=3,4 -j2") == (0, told)
    code, lines = installed(tmp_path, PIP_FAILS="hash")
    assert (code, sorted(lines)) == (4, sorted([*told, "hash"]))


@pytest.mark.parametrize("quiet", [{"MAKEFLAGS": "ks -j2"}, {"PIP_QUIET": "1"}])
def test_a_quiet_installation_tells_errors_alone(quiet: dict[str, str], tmp_path: Path) -> None:
    assert installed(tmp_path, **quiet) == (0, [])
    assert installed(tmp_path, **quiet, PIP_FAILS="hash") == (4, ["hash"])


@cache
def absent(*slices: str) -> str:
    """The modules of this environment that an installation with only some slices would not have."""
    allowed = {name for lock in slices for name in pins(lock)} | {"cures"}
    found = packages_distributions()
    return ",".join(
        module for module, owners in found.items() if not {canonicalize_name(owner) for owner in owners} & allowed
    )


def python(*arguments: object, without: str, cwd: Path, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """A Python process in an installation that lacks modules."""
    path = os.pathsep.join([str(SITE), str(PROJECT)])
    kept_open, parent = os.pipe()  # a job ends itself when its parent's end is closed
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        stdin=kept_open,
        env={**os.environ, "PYTHONPATH": path, "CURES_TEST_ABSENT": without, **(env or {})},
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
    )
    os.close(kept_open)
    os.close(parent)
    return done.returncode, done.stdout, done.stderr


def test_what_only_some_settings_need_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile = write_profile(tmp_path)
    find = importlib.util.find_spec
    gone = ("vllm", "deepspeed", "ray", "prefect_ray")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else find(name))
    require_extras(load_config(profile, []))
    require_extras(load_config(profile, ['evaluation.sharding.runner="ray"']))  # one shard needs nobody
    for extra, *settings in (
        ("vllm", 'rollout.type="vllm"'),
        ("vllm", 'rollout.type="vllm_server"'),
        ("deepspeed", 'training.type="deepspeed"'),
        ("ray", 'evaluation.sharding.runner="ray"', "evaluation.sharding.shards=2"),
    ):
        with pytest.raises(MissingExtra, match=rf"pip install 'cures\[{extra}\]'"):
            run_stages(load_config(profile, settings))


def test_gold_answers_that_need_math_verify_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with make_verifier(MathConfig()) as verifier:
        assert verifier.check_gold("4") is None
        with pytest.raises(MissingExtra, match=r"pip install 'cures\[train\]'"):
            verifier.check_gold(r"\frac{x}{2} + \sin y")


IMPORT_ALL = """
import importlib, pathlib, sys
root, left_out = pathlib.Path(sys.argv[1]), sys.argv[2].split()
for path in sorted(root.glob("cures_core/**/*.py")):
    name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    if not name.endswith("__main__") and not any(name.startswith("cures_core." + part) for part in left_out):
        importlib.import_module(name)
"""


def test_the_curriculum_configuration_and_prompts_need_the_base_alone(tmp_path: Path) -> None:
    names = "cures_core.curriculum, cures_core.config.loading, cures_core.prompts.loading, cures_core.extras"
    code, _, err = python("-c", f"import {names}", without=absent("base"), cwd=tmp_path)
    assert code == 0, err


def test_what_a_job_imports_is_in_the_slice_train(tmp_path: Path) -> None:
    left_out = "integrations.trl integrations.verl integrations.prime_rl testing"  # exams run under pytest
    code, _, err = python("-c", IMPORT_ALL, PROJECT, left_out, without=absent("train"), cwd=tmp_path)
    assert code == 0, err


def test_a_job_without_the_slice_train_names_it(tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", {"type": "torch"})
    spec = tmp_path / "job.json"
    spec.write_text(job.model_dump_json())
    code, _, err = python("-m", "cures_core.jobs", spec, without=absent("base"), cwd=tmp_path)
    assert code == MissingExtra.exit_code, err
    assert "pip install 'cures[train]'" in (tmp_path / "error.json").read_text()


def test_the_command_without_the_slice_pipeline_names_it(tmp_path: Path) -> None:
    start = "from flows.command import main; main()"
    code, _, err = python("-c", start, without=absent("train") + ",typer", cwd=tmp_path)
    assert (code, err.count("\n")) == (MissingExtra.exit_code, 1), err
    assert "pip install 'cures[pipeline]'" in err


def test_the_command_without_the_slice_train_names_it_before_any_work(tmp_path: Path) -> None:
    without = absent("base", "pipeline")
    code, _, err = python(
        "-m", "flows.cli.main", "run", "--config", write_profile(tmp_path), without=without, cwd=tmp_path
    )
    assert code == MissingExtra.exit_code, err
    assert "pip install 'cures[train]'" in err
    assert not list(tmp_path.rglob("stages"))
    code, out, _ = python("-m", "flows.cli.main", "doctor", without=without, cwd=tmp_path)
    assert code == 1
    assert re.search(r"missing +train +without torch, .*  -> pip install 'cures\[train\]'", out)
    assert re.search(r"ok +pipeline ", out)


@pytest.mark.parametrize("extra", [extra for extra in MODULES if extra in LOCKS])
def test_a_module_is_told_to_come_with_an_extra_that_brings_it(extra: str) -> None:
    brought = packages_distributions()
    pinned = {name for lock in (extra, f"{extra}-cpu") if lock in LOCKS for name in pins(lock)}
    for module in MODULES[extra]:
        for owner in brought.get(module, ()):
            assert canonicalize_name(owner) in pinned, f"{module} is not in {extra}"


@pytest.mark.end_to_end
def test_a_machine_with_the_slice_train_alone_trains_without_a_network(tmp_path: Path) -> None:
    subprocess.run(["make", "install-train", f"VENV={tmp_path / 'venv'}"], cwd=PROJECT, check=True, timeout=1800)
    interpreter = tmp_path / "venv" / "bin" / "python"
    assert subprocess.run([interpreter, "-c", "import prefect"], capture_output=True, check=False).returncode == 1
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SITE), str(PROJECT)]),
        "CURES_TEST_NO_NETWORK": "1",
        "CURES_PLUGINS": "tests.own_verifiers",
        "HF_HUB_OFFLINE": "1",
    }
    kinds = {
        "all-weights": ({"type": "torch"}, {}),
        "adapters": ({"lora": {"targets": ["c_attn"]}}, {"reward": {"type": "math"}}),
    }
    kept_open, _ = os.pipe()
    for name, (training, options) in kinds.items():
        job = make_job(tmp_path / name, training, **options)
        job.scratch.mkdir()
        spec = job.scratch / "job.json"
        spec.write_text(job.model_dump_json())
        done = subprocess.run(
            [interpreter, "-m", "cures_core.jobs", spec],
            env=env,
            cwd=tmp_path,
            stdin=kept_open,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert outcome(job)[0].step == 4


def test_a_wheel_holds_templates_licences_and_types(tmp_path: Path) -> None:
    for name in ("cures_core", "tasks", "flows"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, tmp_path)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "made", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "made").glob("cures-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    wanted = {name for name in kept if name.split("/")[0] in ("cures_core", "tasks", "flows")}
    assert wanted - held == set()
    assert "cures_core/py.typed" in held  # what tells a user's type checker to look
