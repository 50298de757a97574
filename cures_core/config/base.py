"""What every configuration model has in common: frozen, unknown keys refused, field docstrings in the JSON schema."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cures_core.config.marks import Code
from cures_core.config.schema import describe

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A seed that numpy, torch, vLLM and JSON's readers all take."""


class Strict(BaseModel):
    """Base of all configuration models."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        defer_build=True,  # every command imports all models, and most check few of them
        allow_inf_nan=False,
        hide_input_in_errors=True,
        json_schema_extra=describe,
    )


OwnCode = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"), Code]
"""Names code of the user's: `package.module:name`."""
