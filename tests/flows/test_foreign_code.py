"""Flows, which may have their configuration from anyone who reaches the API, ask before they load code it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cures_core.config.loading import load_config
from cures_core.config.run import RunConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError
from cures_core.files import canonical_json
from tasks.storage import open_store

REFUSED = r"^reward\.function: timeit:timeit is code of yours.*export CURES_PLUGINS="


@pytest.fixture
def foreign(tmp_path: Path) -> RunConfig:
    overrides = ['reward={type="custom", function="timeit:timeit"}', f"store.url={tmp_path / 'store'}"]
    return load_config(Path("configs/quickstart.toml"), overrides)


def test_a_training_run_is_refused_before_it_leaves_a_trace(foreign: RunConfig, tmp_path: Path) -> None:
    from flows.train import run_stages

    with pytest.raises(ConfigError, match=REFUSED):
        run_stages(foreign)
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_of_a_run_with_foreign_code_is_refused(foreign: RunConfig) -> None:
    from flows.evaluate import evaluate

    started = canonical_json({"config": foreign.model_dump(mode="json"), "data_digest": "", "started_at": ""})
    open_store(foreign.store).put("runs/theirs/run.json", started)
    flow: Any = evaluate
    with pytest.raises(ConfigError, match=REFUSED):
        flow.fn("theirs", 0, None, StoreConfig(url=foreign.store.url))
