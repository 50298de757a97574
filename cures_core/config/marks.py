"""Says of every setting whether it changes a result: the one truth that keys, identity and comparisons derive from.

A leaf of the configuration (a field that holds no other model) carries one mark: `Result[float]`, `Operation[int]` or
`Placement[str]`. A discriminator (`type`, one literal) is a result without saying so. What may change while a run goes
on stands beside the declaration too (`Ongoing`, `Settled`).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo


class Mark(StrEnum):
    """What another value of a setting changes."""

    RESULT = "result"
    """What is computed. It is in the keys of the stages that read it, and in the run's name."""
    OPERATION = "operation"
    """How it is computed: time, memory, patience. Results stay, but for the rounding of sums in another order."""
    PLACEMENT = "placement"
    """Where something is, or runs. Where its content matters, a digest of the content is in the keys."""


T = TypeVar("T")
Result = Annotated[T, Mark.RESULT]
Operation = Annotated[T, Mark.OPERATION]
Placement = Annotated[T, Mark.PLACEMENT]


class Code:
    """Marks a leaf that names code of the user's, `package.module:name`, whose text is part of the result too."""


@dataclass(frozen=True)
class Later:
    """Marks a result that is younger than records which are kept: at `before` it says that all is as it was without it,
    so it is then in no key, and what was computed stays."""

    before: JsonValue = None


@dataclass(frozen=True)
class Ongoing:
    """Marks a setting, or the settings below it, that may change while a run goes on, though they are results: the run
    is then a fork of what it was."""

    kind: str = ""
    """Why the choice of its `type` may not change all the same; empty: it may."""


@dataclass(frozen=True)
class Settled:
    """Marks a setting, or the settings below it, inside of one that is `Ongoing`, whose results may not change, and
    why."""

    why: str


EVERYTHING = "everything it has done follows from it"
"""Why a result may not change that no declaration says more of."""


@dataclass(frozen=True)
class Leaf:
    """A setting with its value."""

    path: str
    """Dotted key, as for `--set`; elements of a list have their index in it."""
    mark: Mark
    value: JsonValue
    is_code: bool = False
    """Does it name code of the user's?"""
    is_as_before: bool = False
    """Is it a younger setting that says what held before there was one?"""
    settled: str = ""
    """Why another value is none for a run that goes on; empty: it may be."""


def leaves(model: BaseModel, *, of: type[BaseModel] | None = None) -> Iterator[Leaf]:
    """All settings of a model and of the models in it. `of`: only the fields that this base class of it has.

    Raises `TypeError` for a setting without a mark.
    """
    dumped = model.model_dump(mode="json")
    for name, field in _fields(type(model)).items():
        if of is None or name in of.model_fields:
            yield from _below(name, field, getattr(model, name), dumped[name], EVERYTHING)


def results(model: BaseModel) -> dict[str, JsonValue]:
    """What of a model decides results: value by dotted key. A younger setting that changes nothing is left out."""
    return {leaf.path: leaf.value for leaf in leaves(model) if decides(leaf)}


def decides(leaf: Leaf) -> bool:
    """Is a setting part of what names a result?"""
    return leaf.mark is Mark.RESULT and not leaf.is_as_before


M = TypeVar("M", bound=BaseModel)


def parts(model: BaseModel, kind: type[M]) -> Iterator[M]:
    """The models of a kind inside a model, in the order of its fields."""
    waiting: list[object] = [model]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, kind):
            yield value
        if isinstance(value, BaseModel):
            waiting[:0] = [getattr(value, name) for name in type(value).model_fields]
        elif isinstance(value, dict):
            waiting[:0] = value.values()
        elif isinstance(value, tuple | list):
            waiting[:0] = value


@dataclass(frozen=True)
class Change:
    """A setting that is not the same in two configurations; None on the side that has no such setting."""

    path: str
    mark: Mark
    before: JsonValue
    after: JsonValue
    settled: str = ""
    """Why it may not be for a run that goes on; empty: it may."""


def changes(before: BaseModel, after: BaseModel) -> list[Change]:
    """The settings whose values differ, in the order of the configuration."""
    old, new = ({leaf.path: leaf for leaf in leaves(model)} for model in (before, after))
    found = []
    for path in dict.fromkeys([*new, *old]):
        ours, theirs = new.get(path), old.get(path)
        if ours is None or theirs is None or ours.value != theirs.value:
            one = ours or theirs
            assert one is not None
            was, now = (None if leaf is None else leaf.value for leaf in (theirs, ours))
            found.append(Change(path, one.mark, was, now, one.settled))
    return found


def is_within(key: str, sections: Collection[str]) -> bool:
    """Is a dotted key one of `sections`, or below one?"""
    return any(key == name or key.startswith(f"{name}.") for name in sections)


def marked_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, tuple[Mark, ...]]]:
    """Dotted key and marks of every leaf that a model, and the models inside it, may have."""
    for name, field in model.model_fields.items():
        inner = list(models_in(field.annotation))
        for below in inner:
            yield from marked_fields(below, f"{prefix}{name}.")
        if not inner:
            yield prefix + name, marks_of(name, field)


def marks_of(name: str, field: FieldInfo) -> tuple[Mark, ...]:
    """The marks of a leaf: one, where the declaration is right."""
    found = tuple(item for item in field.metadata if isinstance(item, Mark))
    is_discriminator = name == "type" and len(typing.get_args(field.annotation)) == 1
    return found or ((Mark.RESULT,) if is_discriminator and typing.get_origin(field.annotation) is Literal else ())


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, through unions, optional values and containers."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, list, tuple, dict, Annotated):
        for argument in typing.get_args(annotation):
            yield from models_in(argument)


@dataclass(frozen=True)
class _Field:
    """What a declaration says."""

    marks: tuple[Mark, ...]
    is_code: bool
    holds_models: bool
    later: Later | None
    resuming: Ongoing | Settled | None


@cache
def _fields(model: type[BaseModel]) -> dict[str, _Field]:
    found = {}
    for name, field in model.model_fields.items():
        models = list(models_in(field.annotation))
        marks = {mark for inner in models for _, found in marked_fields(inner) for mark in found}
        # A model that may be left out: that it is, is a result where its leaves are.
        own = (min(marks, key=list(Mark).index),) if marks else marks_of(name, field)
        later = next((item for item in field.metadata if isinstance(item, Later)), None)
        resuming = next((item for item in field.metadata if isinstance(item, Ongoing | Settled)), None)
        is_code = any(_names_code(item) for item in (*field.metadata, field.annotation))
        found[name] = _Field(own, is_code, bool(models), later, resuming)
    return found


def _names_code(item: object) -> bool:
    """Is it the mark of own code, or a type that holds it, as in `OwnCode | None`?"""
    return item is Code or any(_names_code(inner) for inner in typing.get_args(item))


def _below(path: str, field: _Field, value: object, dumped: JsonValue, settled: str) -> Iterator[Leaf]:
    """`settled`: why results here may not change while a run goes on, unless the declaration says otherwise."""
    kind = settled
    if isinstance(field.resuming, Settled):
        kind = settled = field.resuming.why
    elif isinstance(field.resuming, Ongoing):
        kind, settled = field.resuming.kind, ""
    if field.holds_models and value is not None:
        yield from _inside(path, value, dumped, settled, kind)
    elif not field.marks:
        raise TypeError(f"{path}: declare it as Result[...], Operation[...] or Placement[...]")
    else:
        as_before = field.later is not None and dumped == field.later.before
        why = settled if field.marks[0] is Mark.RESULT else ""
        yield Leaf(path, field.marks[0], dumped, field.is_code and dumped is not None, as_before, why)


def _inside(path: str, value: object, dumped: JsonValue, settled: str, kind: str) -> Iterator[Leaf]:
    """Leaves of a model, or of the models in a tuple or dict; `kind`: as `settled`, of the model's `type`."""
    if isinstance(value, BaseModel):
        assert isinstance(dumped, dict)
        for name, field in _fields(type(value)).items():
            why = kind if name == "type" else settled
            yield from _below(f"{path}.{name}", field, getattr(value, name), dumped[name], why)
    elif isinstance(value, dict) and isinstance(dumped, dict):
        for key, below in value.items():
            yield from _inside(f"{path}.{key}", below, dumped[key], settled, kind)
    elif isinstance(value, tuple | list) and isinstance(dumped, list):
        for i, (below, shown) in enumerate(zip(value, dumped, strict=True)):
            yield from _inside(f"{path}.{i}", below, shown, settled, kind)
