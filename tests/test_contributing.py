"""CONTRIBUTING.md's walks name files that are there, and no more than three of the product."""

from __future__ import annotations

import re

import pytest

from tests.end_to_end.pipeline import PROJECT

WALKS = [
    (walk[1].strip(), re.findall(r"`((?:cures_core|tasks|flows|configs)/[^`]*)`", walk[2]))
    for walk in re.finditer(r"^\| ([a-z][^|]*)\|([^|]*)\|$", (PROJECT / "CONTRIBUTING.md").read_text(), re.M)
    if walk[1].strip() != "you want to"
]


def test_there_are_nine_walks() -> None:
    assert len(WALKS) == 9


@pytest.mark.parametrize(("walk", "names"), WALKS, ids=[walk for walk, _ in WALKS])
def test_a_walk_names_what_is_there(walk: str, names: list[str]) -> None:
    touched = [name for name in names if not name.startswith("cures_core/testing/")]
    assert 1 <= len(touched) <= 3, f"{walk}: {touched}"
    for name in names:
        made = (PROJECT / name).parent if "NAME" in name else PROJECT / name
        assert made.exists(), f"{walk}: {name}"


def test_every_folder_that_is_named_is_there() -> None:
    top = ""
    for line in map_of_folders():
        for name in re.findall(r"(?<![\w/])([a-z_]+/)(?= |$)", line):
            if line.startswith(name):
                top = name
            elif not (PROJECT / top / name).is_dir():
                pytest.fail(f"{top}{name} is not there")


def test_every_folder_of_the_product_is_named() -> None:
    named = {name for line in map_of_folders() for name in re.findall(r"(?<![\w/])([a-z_]+)/(?= |$)", line)}
    for package in ("cures_core", "tasks", "flows"):
        folders = {init.parent.name for init in (PROJECT / package).glob("*/__init__.py")}
        assert folders <= named, package


def map_of_folders() -> list[str]:
    plan = re.search(r"```\n(.*?)```", (PROJECT / "CONTRIBUTING.md").read_text(), re.S)
    assert plan is not None
    return plan[1].splitlines()
