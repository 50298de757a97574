"""Addresses and paths: one type for all of them, which takes no secret. A configuration is kept with its run: in the
store, the report, the server's database and the trackers. Secrets come from the environment."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from cures_core.names import unprintable
from cures_core.secrets import SECRETS_IN_URLS, secret_in_url, without_secret

M = TypeVar("M", bound=BaseModel)

REFUSED = "secret_in_url"
"""Type of the validation error, whose message, unlike that of others, must not be followed by the value."""


@dataclass(frozen=True)
class NoSecret:
    """Refuses user info, tokens in a query, and characters that cannot be printed. `instead`: what serves for them."""

    instead: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """So that a server that checks parameters refuses a secret before its database holds it."""
        return {**handler(schema), "not": {"anyOf": [{"pattern": pattern} for pattern in SECRETS_IN_URLS]}}

    def _check(self, value: str | Path) -> str | Path:
        text = str(value)
        if (found := secret_in_url(text)) is not None:
            raise PydanticCustomError(
                REFUSED,
                "holds {found}: the configuration is kept with the run, so leave it out and use {instead}",
                {"found": found, "instead": self.instead},
            )
        if unprintable(text):
            raise PydanticCustomError("unprintable", "holds a character that cannot be printed")
        return value


def read_kept(model: type[M], kept: object) -> M:
    """A configuration, or a part of one, as an earlier version kept it: secrets that addresses could hold then are left
    out. Raises pydantic's `ValidationError`."""
    try:
        return model.model_validate(kept)
    except ValidationError as error:
        places = [fault["loc"] for fault in error.errors(include_input=False) if fault["type"] == REFUSED]
    values = copy.deepcopy(kept)
    for place in places:
        _clean(values, place)
    return model.model_validate(values)


def _clean(values: Any, place: Sequence[int | str]) -> None:
    """Take the secret out of the text at a place, as pydantic tells it: with tags of unions in between."""
    at: tuple[Any, Any] | None = None
    for key in place:
        if isinstance(values, dict) if isinstance(key, str) else isinstance(values, list):
            if isinstance(values, dict) and key not in values:
                continue
            at, values = (values, key), values[key]
    if at is not None and isinstance(values, str):
        at[0][at[1]] = without_secret(values)


_AWS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"

S3Url = Annotated[str, NoSecret(_AWS)]
"""A folder or `s3://bucket/prefix`, or the endpoint of an S3 server."""
GitUrl = Annotated[str, NoSecret("git's credential helper, or an SSH key")]
"""A git repository: a path or a URL."""
HubPath = Annotated[str, NoSecret("HF_TOKEN")]
"""A model: a folder or an id on the hub."""
TrackingUrl = Annotated[
    str, NoSecret("MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN")
]
"""An MLflow server, or its folder."""
EngineUrl = Annotated[str, NoSecret("VLLM_API_KEY")]
"""A vLLM server."""
JudgeUrl = Annotated[str, Field(pattern=r"^https?://[^\s]+$"), NoSecret("JUDGE_API_KEY")]
"""An OpenAI-compatible server."""
ClusterUrl = Annotated[str, NoSecret("a private network, or Ray's TLS (RAY_USE_TLS and the files it names)")]
"""A Ray cluster, or a host of a distributed job."""
LocalName = Annotated[str, NoSecret("the environment")]
"""A path of this machine, or another short name."""
LocalPath = Annotated[Path, NoSecret("the environment")]
"""A folder of this machine."""
