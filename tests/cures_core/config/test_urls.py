"""No field of a configuration takes a secret: it would be kept in the store, the report and the server's database."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cures_core.config.loading import explain, load_config
from cures_core.config.run import RunConfig
from cures_core.config.urls import REFUSED
from cures_core.errors import ConfigError
from cures_core.secrets import masked, secret_in_url

CANARY = "canary-4f9c1e"
WITH_A_SECRET = (
    f"http://user:{CANARY}@host:5000",
    f"https://{CANARY}@host/x.git",
    f"http://user:{CANARY}/x@host",
    f"http://user:{CANARY}#x@host",
    f"s3://KEY:{CANARY}@bucket/prefix",
    f"ray://user:{CANARY}@head:10001",
    f"ssh://git:{CANARY}@host/x.git",
    f"http://host:9000/?access_key={CANARY}",
    f"http://host/x?a=b&X-Amz-Signature={CANARY}",
    f"https://host/set.jsonl?sig={CANARY}",
    f"https://host/#access_token={CANARY}",
    f"https://host/?a=1;token={CANARY}",
)
HARMLESS = (
    "ssh://git@host/x.git",
    "git@host:a/b.git",
    "http://10.0.0.7:8000",
    "s3://bucket/prefix@v1",
    "sets/train.jsonl@v3",
    "http://host:5000/a@b",
    "Qwen/Qwen2.5-Math-1.5B",
    "/data/a b#1.jsonl",
    "ray://head:10001",
    "http://[::1]:8000",
    "file:///data/runs?a=1",
    "",
)
TEXTS = {
    "data.columns": "names of columns",
    "evaluation.suites.columns": "names of columns",
    "data.max_reason_share": "codes of reasons, checked against their list",
    "evaluation.suites.max_reason_share": "codes of reasons, checked against their list",
    "rollout.prompt_format": "texts for the policy",
    "evaluation.suites.prompt_format": "texts for the policy",
    "policy.warm_start.problem": "names of columns",
    "policy.warm_start.solution": "names of columns",
    "policy.warm_start.template": "texts for the policy",
    "policy.warm_start.lora.targets": "names of layers",
    "reward.pattern": "regular expressions",
    "reward.prompt": "texts for a judge",
    "evaluation.suites.reward.pattern": "regular expressions",
    "evaluation.suites.reward.prompt": "texts for a judge",
    "training.lora.targets": "names of layers",
    "promotion.suites": "names, checked against evaluation.suites",
    "promotion.margins": "names, checked against evaluation.suites",
    "faults": "drills, checked against their grammar",
}
"""Strings that are no addresses, paths or names of places; of a reward, wherever its verifiers hold them."""
_WITHIN_REWARD = re.compile(r"(?<=\breward\.)(?:(?:answer|default|by_source|verifier|format)\.)+")


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel], str, Any]]:
    """(dotted key, model, field, how a string sits in its value) of all fields that may hold a string."""
    for name, field in model.model_fields.items():
        for place in holders(field.annotation):
            if isinstance(place, type) and issubclass(place, BaseModel):
                yield from leaves(place, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", model, name, place


def holders(annotation: Any) -> Iterator[Any]:
    """The models in an annotation, and a function from a string to a value for each way in which it takes one."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (str, Path):
        yield lambda text: text
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif origin is typing.Annotated:
        yield from holders(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from holders(argument)
    elif origin in (list, tuple, dict):
        for argument in arguments:
            for place in holders(argument):
                if isinstance(place, type):
                    yield place
                elif origin is dict:
                    yield lambda text: {"x": text}
                else:
                    yield lambda text: [text]


LEAVES = {key: rest for key, *rest in leaves(RunConfig)}


def is_text(key: str) -> bool:
    key = _WITHIN_REWARD.sub("", key)
    return any(key == text or key.startswith(f"{text}.") for text in TEXTS)


def refusal(model: type[BaseModel], values: dict[str, Any]) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return caught.value


def test_the_list_is_of_fields_that_there_are() -> None:
    assert len(LEAVES) > 40
    for key in (
        "reward.url",
        "reward.cache",
        "reward.by_source.verifier.answer.url",
        "store.endpoint_url",
        "rollout.endpoints",
        "tracking.mlflow",
        "policy.path",
        "data.path",
    ):
        assert not is_text(key)
        assert key in LEAVES
    for text in TEXTS:
        assert any(key == text or key.startswith(f"{text}.") for key in LEAVES), text


@pytest.mark.parametrize("key", sorted(key for key in LEAVES if not is_text(key)))
def test_every_field_that_may_hold_an_address_refuses_secrets_and_does_not_show_them(key: str) -> None:
    """A new field fails here until it gets its type from `cures_core.config.urls`, a pattern, or a line above."""
    model, name, value = LEAVES[key]
    for url in WITH_A_SECRET:
        error = refusal(model, {name: value(url)})
        mine = [fault for fault in error.errors() if fault["loc"][0] == name]
        assert mine, f"{key} takes {url}"
        assert CANARY not in str(error)
        assert CANARY not in explain(error, "profile.toml")
        assert all(CANARY not in fault["msg"] for fault in mine)  # what Prefect shows and stores


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("store.endpoint_url", "AWS_ACCESS_KEY_ID"),
        ("store.url", "AWS_SECRET_ACCESS_KEY"),
        ("snapshot.repository", "git's credential helper"),
        ("snapshot.remote", "AWS_ACCESS_KEY_ID"),
        ("tracking.mlflow", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("data.path", "AWS_ACCESS_KEY_ID"),
    ],
)
def test_the_refusal_says_what_serves_instead(key: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: holds a user or a password: .*{instead}") as caught:
        load_config(Path("configs/quickstart.toml"), [f"{key}=http://user:{CANARY}@host"])
    assert CANARY not in f"{caught.value!r} {caught.value.__cause__}"


def test_the_refusal_names_what_serves_instead_where_the_type_of_a_table_is_another() -> None:
    with pytest.raises(ConfigError, match=r"rollout\.endpoints.*: holds a user or a password: .*VLLM_API_KEY"):
        load_config(
            Path("configs/quickstart.toml"),
            ["rollout.type=vllm_server", f"rollout.endpoints=['http://user:{CANARY}@host:8000']"],
        )
    with pytest.raises(ConfigError, match=r"policy\.path: holds a user or a password: .*HF_TOKEN"):
        load_config(Path("configs/smollm2.toml"), [f"policy.path=https://{CANARY}@huggingface.co/x"])


@pytest.mark.parametrize("key", sorted(key for key in LEAVES if not is_text(key)))
def test_the_schema_that_a_server_checks_refuses_what_the_field_does(key: str) -> None:
    """Before the server's database holds it."""
    model, name, value = LEAVES[key]
    whole = model.model_json_schema()
    field = jsonschema.Draft202012Validator({**whole["properties"][name], "$defs": whole.get("$defs", {})})
    for url in WITH_A_SECRET:
        assert not field.is_valid(value(url)), f"{key} takes {url}"


def test_the_schema_that_a_server_checks_takes_ordinary_addresses_and_paths() -> None:
    whole = RunConfig.model_json_schema()
    for model, name in (("StoreConfig", "endpoint_url"), ("DataConfig", "path"), ("SnapshotConfig", "repository")):
        for url in HARMLESS:
            jsonschema.validate(url, {**whole["$defs"][model]["properties"][name], "$defs": whole["$defs"]})


@pytest.mark.parametrize("url", HARMLESS)
def test_ordinary_addresses_and_paths_pass(url: str) -> None:
    assert secret_in_url(url) is None
    assert masked(url) in (url, "ssh://***@host/x.git")


@pytest.mark.parametrize("url", [*WITH_A_SECRET, f"//user:{CANARY}@host", f"user:{CANARY}@host:5000"])
def test_secrets_are_found(url: str) -> None:
    assert secret_in_url(url) is not None


@given(
    st.sampled_from(["http", "https", "s3", "ray", "git+https"]),
    st.text(st.characters(exclude_characters="/@:?# \t\n\r", exclude_categories=("C", "Z")), max_size=8),
    st.text(st.characters(exclude_characters="@", exclude_categories=("C", "Z")), min_size=1, max_size=12),
)
def test_any_password_is_found_and_masked(scheme: str, user: str, password: str) -> None:
    password = f"x{password}{CANARY}"  # digits and a slash would be a port and a path
    url = f"{scheme}://{user}:{password}@host/path"
    assert secret_in_url(url) is not None
    assert CANARY not in masked(f"cannot reach {url} now")


@pytest.mark.parametrize("value", ["a\0b", "a\nb", "\x1b[31m"])
def test_characters_that_cannot_be_printed_are_refused(value: str) -> None:
    error = refusal(RunConfig, {"store": {"url": value, "scratch": value}})
    assert {fault["loc"] for fault in error.errors() if fault["loc"][0] == "store"} == {
        ("store", "url"),
        ("store", "scratch"),
    }
    assert all(fault["type"] != REFUSED for fault in error.errors())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("store.url", "s3://bucket/../x"),
        ("store.url", "s3://bucket//x"),
        ("snapshot.remote", "s3://bucket/../x"),
        ("snapshot.repository", "ext::sh -c whoami"),
        ("policy.revision", "../../x"),
        ("policy.revision", "--upload-pack=x"),
    ],
)
def test_places_that_would_leave_their_folder_or_run_a_command_are_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        load_config(Path("configs/smollm2.toml"), [f"{key}={value}"])
