"""Mutation tests: are the tests of a package able to fail? For every small fault that mutmut puts into it, some must.

    python -m tests.mutants PACKAGE            # or: make mutants PACKAGE=losses
    python -m tests.mutants PACKAGE NAME ...   # these mutants alone, by the names that a run prints

Prints what survived, with the change that no test noticed, and ends with 1 below `GOAL`. Survivors that are left stand
in tests/mutants.md with the reason. `PACKAGES` is the one table of what is mutated, and by which tests it is judged.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOAL = 0.90
"""Share of the mutants that the tests of the neighbourhood must kill."""


@dataclass(frozen=True)
class Package:
    """Sources to mutate, as patterns from the root of the repository, and the default tests that have to notice."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()
    """Tests that are too slow for every mutant, or that a mutated copy cannot pass (time of import)."""


_CORE, _TASKS = "tests/cures_core", "tests/tasks"
_STRATEGIES = ("strategy", "cures", "uniform", "custom", "dapo", "paper")
_OF_STRATEGIES = (
    (
        f"{_CORE}/curriculum/test_strategies.py",
        f"{_CORE}/curriculum/test_rounds.py",
        f"{_CORE}/curriculum/test_custom.py",
        f"{_CORE}/curriculum/test_dapo_and_paper.py",
        f"{_CORE}/curriculum/test_library.py",
        "tests/recorded/test_strategies.py",
    ),
    (f"{_CORE}/curriculum/test_library.py::test_importing_it_is_quick_and_loads_nothing_heavy",),
)
_OF_STORAGE = (
    (f"{_TASKS}/storage", f"{_TASKS}/inputs/test_prompt_files.py"),
    (
        f"{_TASKS}/storage/test_schedules.py::test_no_double_commit_in_a_thousand_schedules",
        f"{_TASKS}/storage/test_local.py::test_every_flipped_byte_and_truncation_is_found",
        f"{_TASKS}/storage/test_local.py::test_killed_at_random_instants_values_and_files_are_whole",
        f"{_TASKS}/storage/test_lease.py::test_stopped_past_its_lease_before_any_operation_only_one_commits",
        f"{_TASKS}/storage/test_s3_exam.py::TestOnMoto::test_concurrent_swaps_lose_no_increment",
    ),
)
PACKAGES = {
    "epoch": Package(("cures_core/epoch.py",), (f"{_CORE}/test_epoch.py",)),
    "advantages": Package(("cures_core/training/advantages.py",), (f"{_CORE}/training/test_advantages.py",)),
    "losses": Package(("cures_core/training/losses.py",), (f"{_CORE}/training/test_losses.py",)),
    "packing": Package(("cures_core/training/packing.py",), (f"{_CORE}/training/test_packing.py",)),
    "promotion": Package(("cures_core/evaluation/promotion.py",), (f"{_CORE}/evaluation/test_promotion.py",)),
    "strategies": Package(
        tuple(f"cures_core/curriculum/strategies/{name}.py" for name in _STRATEGIES),
        *_OF_STRATEGIES,
    ),
    "rivals": Package(
        ("benchmarks/curriculum/rivals/*.py",),
        ("tests/benchmarks/curriculum/test_rivals.py", "tests/recorded/test_strategies.py"),
    ),
    "stage": Package(
        ("tasks/stages/stage.py",),
        tuple(f"{_TASKS}/stages/test_{name}.py" for name in ("stage", "as_stage", "keys", "at_once")),
        tuple(
            f"{_TASKS}/stages/test_at_once.py::test_{name}"
            for name in (
                "twenty_starts",
                "a_job_whose_parent",
                "the_job_of_a_holder",
                "a_holder_that_stood",
                "where_only",
            )
        ),
    ),
    "storage": Package(
        tuple(
            f"tasks/storage/{name}.py"
            for name in ("__init__", "base", "fencing", "lease", "local", "published", "values")
        ),
        *_OF_STORAGE,
    ),
    "s3": Package(("tasks/storage/s3.py", "tasks/storage/s3_client.py"), *_OF_STORAGE),
}

_SETTINGS = """
[tool.mutmut]
source_paths = ["cures_core", "tasks", "flows", "benchmarks"]
only_mutate = {sources}
also_copy = ["configs", "docs", "README.md", "CONTRIBUTING.md"]
pytest_add_cli_args = {options}
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver"  # torch does not bear a fork of a process that has used it
"""


def main(name: str, mutants: list[str]) -> int:
    """Run mutmut on the package in a folder of its own. 0 where enough of its mutants are killed."""
    folder = ROOT / ".mutants" / name
    _prepare(folder, PACKAGES[name])
    environment = {
        **os.environ,
        # The mutated copy comes before any other, also for processes that tests start.
        "PYTHONPATH": os.pathsep.join([str(folder / "mutants"), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
    }
    mutmut = [sys.executable, "-m", "mutmut"]
    if code := subprocess.run([*mutmut, "run", *mutants], cwd=folder, env=environment).returncode:
        print(f"\nmutmut ended with {code}")
        return 1
    subprocess.run([*mutmut, "export-cicd-stats"], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    counts = json.loads((folder / "mutants" / "mutmut-cicd-stats.json").read_bytes())
    listed = subprocess.run(
        [*mutmut, "results"], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    for line in listed.stdout.splitlines():
        mutant, _, status = line.strip().partition(": ")
        if status and status not in ("killed", "timeout", "not checked"):
            shown = subprocess.run(
                [*mutmut, "show", mutant], cwd=folder, env=environment, capture_output=True, text=True
            )
            print(f"\n{mutant}: {status}\n{shown.stdout}")
    return _verdict(name, counts)


def _verdict(name: str, counts: dict[str, int]) -> int:
    """Mutants that no test reaches count as survivors; one that never ends is killed by the clock."""
    killed = counts["killed"] + counts["timeout"]
    tried = counts["total"] - counts.get("not_checked", 0)
    share = killed / tried if tried else 0.0
    print(f"{name}: {killed} of {tried} mutants killed, {100 * share:.1f} % (goal {100 * GOAL:.0f} %)")
    return 0 if share >= GOAL else 1


def _prepare(folder: Path, package: Package) -> None:
    """The repository as links, and its settings with mutmut's beside: what mutmut writes stays in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "mutants").mkdir(parents=True)  # before any interpreter starts: it would remember that the path is none
    for place in ROOT.iterdir():
        if place.name not in (".git", ".mutants", "pyproject.toml") and not place.name.startswith(".venv"):
            (folder / place.name).symlink_to(place)
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", *(f"--deselect={name}" for name in package.without)]
    settings = _SETTINGS.format(
        sources=json.dumps(package.sources), tests=json.dumps(package.tests), options=json.dumps(options)
    )
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8") + settings)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PACKAGES:
        sys.exit(f"python -m tests.mutants PACKAGE [MUTANT ...], with a package of {', '.join(PACKAGES)}")
    sys.exit(main(sys.argv[1], sys.argv[2:]))
