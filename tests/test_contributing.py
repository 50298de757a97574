"""CONTRIBUTING.md's walks name files and code that are there, and as few files of the product as it says; its list of
targets is that of the Makefile."""

from __future__ import annotations

import re

import pytest

from tests.end_to_end.pipeline import PROJECT

TEXT = (PROJECT / "CONTRIBUTING.md").read_text()
WALKS = [
    (walk[1].strip(), re.findall(r"`((?:cures_core|tasks|flows|configs)/[^`]*)`", walk[2]), walk[2])
    for walk in re.finditer(r"^\| ([a-z][^|]*)\|([^|]*)\|$", TEXT, re.M)
    if walk[1].strip() != "you want to"
]


def test_there_are_nine_walks() -> None:
    assert len(WALKS) == 9


MORE = {"add a strategy": 4, "add a chart to the report": 5, "change what goes into a key": 4}
"""Walks of more than three files. One change of a key touches two of its four at most."""


@pytest.mark.parametrize(("walk", "names", "text"), WALKS, ids=[walk for walk, *_ in WALKS])
def test_a_walk_names_what_is_there(walk: str, names: list[str], text: str) -> None:
    touched = [name for name in names if not name.startswith("cures_core/testing/")]
    assert 1 <= len(touched) <= MORE.get(walk, 3), f"{walk}: {touched}"
    places = [(PROJECT / name).parent if "NAME" in name else PROJECT / name for name in names]
    for name, place in zip(names, places, strict=True):
        assert place.exists(), f"{walk}: {name}"
    modules = [module for place in places for module in (place.glob("*.py") if place.is_dir() else [place])]
    code = "\n".join(module.read_text() for module in modules)
    for name in re.findall(r"`(\w+)`", text):
        assert re.search(rf"^ *((def|class) {name}\b|{name}(: | = ))", code, re.M), f"{walk}: nothing defines {name}"


def test_every_target_is_listed() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (PROJECT / "Makefile").read_text(), re.M)
    assert targets is not None
    listed = re.findall(r"^    make ([\w-]+)", TEXT, re.M)
    assert sorted(listed) == sorted(set(targets[1].split()) - {"run"})  # README begins with that one


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
    plan = re.search(r"```\n(.*?)```", TEXT, re.S)
    assert plan is not None
    return plan[1].splitlines()
