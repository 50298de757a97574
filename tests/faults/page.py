"""docs/reliability.md from what drills have left: `python -m tests.faults.page OUT` keeps it and writes the page."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from cures_core.config.base import Strict
from cures_core.files import write_atomic
from tests.faults.harness import PROJECT, Tally, command_of, read_tallies
from tests.faults.matrix import MATRIX, ROWS

KEPT = Path(__file__).with_name("reliability.json")
PAGE = PROJECT / "docs" / "reliability.md"
_BLOCK = re.compile(r"(<!-- drills: (\w+) -->\n).*?(<!-- end of drills -->\n)", re.DOTALL)


class Kept(Strict):
    """The drills whose figures the page tells."""

    python: str
    system: str
    cores: int
    beside: str
    """What else the machine did."""
    tallies: tuple[Tally, ...]


def load_kept() -> Kept:
    return Kept.model_validate_json(KEPT.read_bytes())


def page(text: str, kept: Kept) -> str:
    """The page with every block written anew."""
    blocks = {"matrix": _matrix(kept), "runs": _runs(kept), "failures": _failures(kept)}
    return _BLOCK.sub(lambda found: f"{found[1]}\n{blocks[found[2]]}\n{found[3]}", text)


def _matrix(kept: Kept) -> str:
    """A line for each drill, in the order of the matrix; a drill of several rows stands at its first one."""
    by_name = {tally.fault: tally for tally in kept.tallies}
    lines = ["| fault | drill | what is done | what must hold | held / tried | goal |", "|---|---|---|---|---|---|"]
    for row, title in ROWS.items():
        drills = [fault for fault in MATRIX if fault.rows[0] == row]
        also = [fault.name for fault in MATRIX if row in fault.rows[1:]]
        if not drills:
            lines.append(f"| {row} {title} | see {', '.join(f'`{name}`' for name in also)} | | | | |")
        for i, fault in enumerate(drills):
            name = f"{row} {title}" if i == 0 else ""
            told = _told(by_name.get(fault.name))
            lines.append(
                f"| {name} | `{fault.name}` ({fault.form}) | {fault.injected} | {fault.expected} | {told} "
                f"| {fault.goal:,} |"
            )
    return "\n".join(lines) + "\n"


def _told(tally: Tally | None) -> str:
    if tally is None or (not tally.tries and not tally.skipped):
        return "not run"
    return f"not run: {tally.skipped}" if tally.skipped else f"{tally.held:,} / {tally.tries:,}"


def _runs(kept: Kept) -> str:
    """What each drill did in its tries, and the command that does the same."""
    lines = ["| drill | its tries, in figures | minutes | command | source |", "|---|---|---|---|---|"]
    for tally in _in_order(kept):
        if tally.tries:
            counts = ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in _counts(tally).items())
            again = command_of(tally.fault, tally.seed, tally.tries)
            lines.append(
                f"| `{tally.fault}` | {counts} | {tally.seconds / 60:.1f} | `{again}` | {', '.join(tally.sources)} |"
            )
    names = dict.fromkeys(name for tally in kept.tallies for name in tally.versions)
    versions = ", ".join(f"{name} {_said(tally.versions.get(name, '') for tally in kept.tallies)}" for name in names)
    processors = _said(tally.processor for tally in kept.tallies)
    machine = f"{processors}, {kept.cores} cores, {kept.beside}; {kept.system}, Python {kept.python}; {versions}."
    return "\n".join([*lines, "", machine]) + "\n"


def _said(values: Iterable[str]) -> str:
    """The values that drills of several days have, each once."""
    return " and ".join(sorted({value for value in values if value}))


def _counts(tally: Tally) -> Mapping[str, int]:
    return dict(sorted(tally.counts.items()))


def _failures(kept: Kept) -> str:
    lines = [
        f"- `{tally.fault}`: {failure.error.splitlines()[0]}; `{failure.command}`"
        for tally in _in_order(kept)
        for failure in tally.failures
    ]
    return "\n".join(lines or ["None."]) + "\n"


def _in_order(kept: Kept) -> list[Tally]:
    order = [fault.name for fault in MATRIX]
    return sorted((t for t in kept.tallies if t.fault in order), key=lambda tally: order.index(tally.fault))


def main(out: Path, cores: int, beside: str) -> None:
    tallies = tuple(read_tallies(out).values())
    kept = Kept(python=platform.python_version(), system=platform.system(), cores=cores, beside=beside, tallies=tallies)
    write_atomic(KEPT, kept.model_dump_json(indent=1).encode() + b"\n")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), kept), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
