"""Values as the store keeps them: typed JSON with a seal, the SHA-256 of the rest, by which damage is told."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from cures_core.errors import CorruptArtifact
from cures_core.files import canonical_json, digest_json
from tasks.storage.base import Store

SEAL = "seal"

T = TypeVar("T")

_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)
"""Made once a type: to make one takes longer than to read a value."""


def encode_value(value: BaseModel | Mapping[str, object]) -> bytes:
    """Canonical JSON of a model, or of plain values, with its seal."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else dict(value)
    return canonical_json({**plain, SEAL: digest_json(plain)})


def decode_value(kind: type[T], data: bytes, key: str, remedy: str) -> T:
    """What `data`, the value of `key`, says: a model, or a typed dictionary. Values without a seal, of earlier
    versions, are read too.

    Raises `CorruptArtifact` naming the key, what is wrong with it, and `remedy`: a sentence with the command that mends
    it.
    """
    try:
        plain = json.loads(data)
        if not isinstance(plain, dict):
            raise ValueError("not a JSON object")
        seal = plain.pop(SEAL, None)
        if seal is not None and seal != digest_json(plain):
            raise ValueError("its bytes are not those that were written")
        value: T = _adapter(kind).validate_python(plain)
        return value
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise CorruptArtifact(f"{key}: {place or 'it'}: {first['msg']}. {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"{key}: {error}. {remedy}") from error


def aside_command(key: str) -> str:
    """What a person types to have a damaged value that nothing writes again set aside (`tasks.runs.aside`)."""
    return f"cures runs set-aside {key}"


def set_aside(store: Store, key: str, data: bytes) -> str:
    """Keep the damaged bytes of `key` as `damaged/<key>-<n>`, for whoever wants to look at them; returns that name.

    For the holder of a lease who is about to replace them. The same bytes are kept once.
    """
    for n in itertools.count(1):
        place = f"damaged/{key}-{n}"
        if store.put_if_absent(place, data) or store.get(place) == data:
            return place
    raise AssertionError("unreachable")
