"""What forms and editors show of a setting: the text below its field, and its mark, as a JSON schema's description."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import cast

from pydantic import BaseModel, JsonValue

from cures_core.config.marks import Mark, marks_of

_WORDS = {
    Mark.RESULT: "Result: another value computes something else.",
    Mark.OPERATION: "Operation: how, not what; a run goes on with another value.",
    Mark.PLACEMENT: "Placement: where, not what; a run goes on with another value.",
}


def describe(schema: dict[str, JsonValue], model: type[BaseModel]) -> None:
    """Write texts and marks into a model's JSON schema (for pydantic's `json_schema_extra`).

    Pydantic's `use_attribute_docstrings` reads the source of every model whenever it is imported, which is most of what
    a small command takes; few processes ever show a schema.
    """
    properties = cast(dict[str, dict[str, JsonValue]], schema.get("properties", {}))
    for name, field in model.model_fields.items():
        if (shown := properties.get(name)) is None:
            continue
        marks = marks_of(name, field)
        said = [texts(model).get(name, ""), f"({_WORDS[marks[0]]})" if marks else ""]
        if marks:
            shown["x-mark"] = marks[0].value
        if any(said):
            shown["description"] = " ".join(filter(None, said))


@cache
def texts(model: type[BaseModel]) -> dict[str, str]:
    """The text below each field, those of the models that it inherits from included."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            try:
                source = inspect.getsource(base)
            except (OSError, TypeError):  # made at a prompt, or installed without its source: it has no texts then
                continue
            (tree,) = ast.parse(textwrap.dedent(source)).body
            for field, text in pairwise(cast(ast.ClassDef, tree).body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                        found[name] = inspect.cleandoc(said)
    return found
