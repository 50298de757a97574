"""The points that `cures_core/faults.py` lists are those where the product calls it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from cures_core import faults
from tests.end_to_end.pipeline import PROJECT


def test_every_point_is_listed_and_no_other() -> None:
    rows = [line.split("|") for line in (faults.__doc__ or "").splitlines() if line.startswith("| `")]
    assert {point for row in rows for point in re.findall(r"`(.+?)`", row[1])} == set(points())


def points() -> Iterator[str]:
    """Of `fault_point(NAME, ...)`, and of `in_chunks(..., NAME)`, which makes NAME.chunk of it."""
    for package in ("cures_core", "tasks", "flows"):
        for path in (PROJECT / package).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_bytes())):
                match call:
                    case ast.Call(func=ast.Name(id="fault_point"), args=[ast.Constant(value=str(name)), *_]):
                        yield name
                    case ast.Call(func=ast.Name(id="in_chunks"), args=[*_, ast.Constant(value=str(name))]):
                        yield f"{name}.chunk"
                    case ast.Call(func=ast.Name(id="fault_point"), args=[name, *_]):
                        assert ast.unparse(name) == "f'{name}.chunk'", f"{path}: a point that this test cannot name"
