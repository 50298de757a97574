"""What is announced is what the deployment takes: of a run that the server refuses to create nobody would hear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from cures_core.config.loading import load_config
from cures_core.config.run import RunConfig
from cures_core.errors import ServerRefused
from flows.retrain import retrain
from tasks.ci import announce as module
from tasks.ci.announce import announce
from tests.cures_core.config.test_urls import CANARY, WITH_A_SECRET

API = "http://127.0.0.1:4200/api"


class Server:
    """Has the deployment as `schema` says, and keeps the events that it is sent."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema, self.events = schema, list[Any]()

    def __call__(self, _: str, path: str, body: Any, method: str = "POST", *, repeatable: bool = False) -> Any:
        if path == "/events":
            self.events += body
            return None
        return {"id": "1", "parameter_openapi_schema": self.schema}


@pytest.fixture
def config() -> RunConfig:
    return load_config(Path("configs/quickstart.toml"))


def test_what_the_deployment_takes_is_announced(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(parameter_schema(retrain.fn).model_dump())
    monkeypatch.setattr(module, "call", server)
    announce(API, "key", config, "", "latest")
    assert server.events[0]["payload"]["config"] == config.model_dump(mode="json")


def test_of_another_version_it_is_refused_with_the_remedy(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = parameter_schema(retrain.fn).model_dump()
    del schema["definitions"]["RunConfig"]["properties"]["steps_per_epoch"]  # of workers that do not know it yet
    server = Server(schema)
    monkeypatch.setattr(module, "call", server)
    with pytest.raises(
        ServerRefused, match=r"steps_per_epoch.*version of this package that the workers have.*cures deploy"
    ):
        announce(API, "key", config, "", "latest")
    assert server.events == []


@pytest.mark.parametrize("url", WITH_A_SECRET)
def test_the_server_refuses_a_secret_in_each_parameter_that_holds_one(url: str, config: RunConfig) -> None:
    """Before its database holds it, whoever created the run."""
    schema = parameter_schema(retrain.fn).model_dump()
    kept = config.model_dump(mode="json")
    assert not validate({"config": kept, "judged": kept, "data_path": "s3://bucket/set.jsonl"}, schema)
    bad = {**kept, "store": {**kept["store"], "url": url}}
    for parameters in ({"config": bad}, {"config": kept, "judged": bad}, {"config": kept, "data_path": url}):
        assert CANARY in str(parameters)
        assert validate(parameters, schema)
