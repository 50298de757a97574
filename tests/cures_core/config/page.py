"""The tables of docs/settings.md, of the configuration: `python -m tests.cures_core.config.page` writes them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from cures_core.config.marks import EVERYTHING, Mark, Ongoing, Settled, marks_of, models_in
from cures_core.config.run import RunConfig
from cures_core.config.schema import texts
from tests.end_to_end.pipeline import PROJECT

PAGE = PROJECT / "docs" / "settings.md"
_BLOCK = re.compile(r"(<!-- settings -->\n).*(<!-- end of settings -->\n)", re.DOTALL)
_LONGEST = 120
"""Characters of a default that is shown."""

Models = tuple[type[BaseModel], ...]


def page(text: str) -> str:
    """The page with its tables written anew."""
    tables = "\n".join(_Tables().section("", (RunConfig,), EVERYTHING, EVERYTHING))
    return _BLOCK.sub(lambda found: f"{found[1]}\n{tables}\n{found[2]}", text)


class _Tables:
    """Each model is told once, where its key is shortest; from its other places a link leads there."""

    def __init__(self) -> None:
        self.homes: dict[type[BaseModel], str] = {}
        self.told: dict[tuple[type[BaseModel], str], str] = {}
        """Section of every field so far, by the class that declares it, as others inherit it."""
        waiting: list[tuple[str, Models]] = [("", (RunConfig,))]
        for key, models in waiting:
            for model in models:
                if self.homes.setdefault(model, key) == key:
                    waiting += [(_key(key, name, field), below) for name, field, below in _inside(model)]

    def section(
        self, key: str, models: Models, settled: str, kind: str, field: FieldInfo | None = None
    ) -> Iterator[str]:
        """Heading and tables of a model, or of a union's members, then the sections of the tables inside them.

        `settled`: why results here may not change while a run goes on; `kind`: the same of the choice of `type`.
        """
        yield f"{'#' * (2 + key.removesuffix('.N').count('.'))} {key or 'Top level'}\n"
        if field is None or len(models) == 1:
            yield f"{_plain(models[0].__doc__)}\n"
            yield from self._tables(key, models[0], _names(models[0]), settled)
        else:
            types = ", ".join(f"`{_type(model)}`" for model in models)
            yield _table(
                [[f"`{key}.type`", types, _first_type(field), _marked(Mark.RESULT, kind), "Which tables below hold."]]
            )
            for members, names in _shared(models):
                title = f"With {_listed([_type(m) for m in members])}" if members != models else "With any type"
                yield f"**{title}.** {_plain(members[0].__doc__) if len(members) == 1 else ''}".strip() + "\n"
                yield from self._tables(key, members[0], names, settled)
        inside = {_key(key, name, f): (f, below) for model in models for name, f, below in _inside(model)}
        for path, (f, below) in inside.items():
            if self.homes[below[0]] == path:
                yield from self.section(path, below, *_resuming(f, settled), f)

    def _tables(self, key: str, model: type[BaseModel], names: Sequence[str], settled: str) -> Iterator[str]:
        """Where those of `names` are told that another section has too, and the rows of the others."""
        places = {name: self.told.setdefault((_owner(model, name), name), key) for name in names}
        for place in dict.fromkeys(place for place in places.values() if place != key):
            same = ", ".join(f"`{name}`" for name in names if places[name] == place)
            yield f"As in {_link(place)}: {same}.\n"
        if rows := [self._row(key, model, name, settled) for name in names if places[name] == key]:
            yield _table(rows)

    def _row(self, key: str, model: type[BaseModel], name: str, settled: str) -> list[str]:
        field = model.model_fields[name]
        setting, text = f"`{key}.{name}`" if key else f"`{name}`", _plain(texts(model).get(name))
        if below := _models(field):
            shown = "list of tables" if _key("", name, field) != name else "table"
            return [setting, _link(self.homes[below[0]], shown), _default(field), "", text]
        (mark,) = marks_of(name, field)
        value = _words(model.model_json_schema()["properties"][name])
        return [setting, value, _default(field), _marked(mark, _resuming(field, settled)[0]), text]


def _inside(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, Models]]:
    """Fields of a model that hold models."""
    for name, field in model.model_fields.items():
        if below := _models(field):
            yield name, field, below


def _models(field: FieldInfo) -> Models:
    return tuple(models_in(field.annotation))


def _key(section: str, name: str, field: FieldInfo) -> str:
    """Dotted key of the models that a field holds; N stands for an index."""
    in_list = _models(field) and getattr(field.annotation, "__origin__", None) in (tuple, list)
    return ".".join(filter(None, (section, name, "N" if in_list else "")))


def _names(model: type[BaseModel]) -> list[str]:
    """All fields but the `type` that a union is told apart by."""
    return [name for name, field in model.model_fields.items() if name != "type" or field.default != _type(model)]


def _type(model: type[BaseModel]) -> str:
    """What a union's member is called; empty for other models."""
    field = model.model_fields.get("type")
    return str(field.default) if field is not None and len(getattr(field.annotation, "__args__", ())) == 1 else ""


def _shared(models: Models) -> list[tuple[Models, list[str]]]:
    """Fields of a union's members by those that inherit them from one place: of many first, each alone at the end."""
    found: dict[Models, list[str]] = {}
    for model in models:
        for name in _names(model):
            owner = _owner(model, name)
            having = tuple(m for m in models if name in m.model_fields and _owner(m, name) is owner)
            if name not in (names := found.setdefault(having, [])):
                names.append(name)
    many = {members: names for members, names in found.items() if len(members) > 1}
    return [*many.items(), *(((model,), found.get((model,), [])) for model in models)]


def _owner(model: type[BaseModel], name: str) -> type[BaseModel]:
    """The class that declares a field."""
    return next(base for base in model.__mro__ if name in inspect.get_annotations(base))


def _resuming(field: FieldInfo, settled: str) -> tuple[str, str]:
    """Why results in a field, and the `type` of its models, may not change while a run goes on; empty: they may."""
    said = next((item for item in field.metadata if isinstance(item, Ongoing | Settled)), None)
    if isinstance(said, Ongoing):
        return "", said.kind
    return (said.why, said.why) if said else (settled, settled)


def _marked(mark: Mark, settled: str) -> str:
    return f"{mark}, fork" if mark is Mark.RESULT and not settled else str(mark)


def _words(schema: dict[str, Any]) -> str:
    """What a value may be, of its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_words(one) for one in schema["anyOf"] if one.get("type") != "null"))
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    match schema.get("type"):
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number" as number:
            return ", ".join(filter(None, (number, _bounds(schema))))
        case "string":
            least, most = schema.get("minLength", 0), schema.get("maxLength")
            length = f", {least} to {most:,} characters" if most else ", not empty" if least else ""
            return f"text{length}" + (f" like `{schema['pattern']}`" if "pattern" in schema else "")
        case "array":
            return f"list of {_words(schema['items']) if 'items' in schema else _pair(schema['prefixItems'])}"
        case "object":
            (values,) = [*schema.get("patternProperties", {}).values()] or [schema["additionalProperties"]]
            return f"table of {_words(values)}"
    return "any value"


def _pair(items: Sequence[dict[str, Any]]) -> str:
    return f"{len(items)}: {', '.join(map(_words, items))}"


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if high == 2**63 - 1:
        high = "2^63 - 1"
    if low is not None and high is not None:
        said = [f"{low} to {high}"]
    else:
        said = [f"{low} or more"] if low is not None else []
        said += [f"above {schema['exclusiveMinimum']}"] if "exclusiveMinimum" in schema else []
        said += [f"up to {high}"] if high is not None else []
    said += [f"below {schema['exclusiveMaximum']}"] if "exclusiveMaximum" in schema else []
    said += [f"a multiple of {schema['multipleOf']}"] if "multipleOf" in schema else []
    return ", ".join(said)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, BaseModel):  # what of it is not the default there
        kind = {"type": _type(type(value))} if _type(type(value)) else {}
        value = kind | value.model_dump(mode="json", exclude_defaults=True)
        if not value:
            return "as there"
    shown = _toml(to_jsonable_python(value))
    return f"`{shown}`" if len(shown) <= _LONGEST else "a long text"


def _first_type(field: FieldInfo) -> str:
    """What holds where a table that is written says no `type`."""
    made = create_model("_", held=(field.annotation, field))
    try:
        return f"`{made.model_validate({'held': {}}).held.type}`"  # type: ignore[attr-defined]
    except ValidationError as error:
        (_, *below) = error.errors()[0]["loc"]
        return f"`{below[0]}`" if below else "required"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _plain(text: str | None) -> str:
    """Of a docstring one line in which nothing but code is marked up."""
    return re.sub(r"(`[^`]*`)|([<*])", lambda m: m[1] or f"\\{m[2]}", " ".join((text or "").split()))


def _link(key: str, shown: str = "") -> str:
    return f"[{shown or key}](#{re.sub(r'[^a-z0-9_-]', '', key.lower())})"


def _listed(names: Sequence[str]) -> str:
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} or {last}" if first else last


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = [["setting", "value", "default", "mark", "meaning"], ["---"] * 5]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in [*head, *rows])


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
