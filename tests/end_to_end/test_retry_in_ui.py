"""A deployed run fails, a person presses Retry in the Prefect UI, and it ends as if nothing had happened."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.pipeline import PROFILE, cures, results, write_profile
from tests.end_to_end.stack import browser_page, ended, press_retry, running_stack, task_states, trigger, wait_for

pytestmark = pytest.mark.end_to_end


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    """The tiny profile with its store in `folder`."""
    return {**tomllib.loads(PROFILE), "store": {"url": str(folder / ".cures")}, **changes}


def test_retry_after_an_exception_goes_on_where_it_failed(tmp_path: Path) -> None:
    calm, troubled = tmp_path / "calm", tmp_path / "troubled"
    calm.mkdir()
    undisturbed = cures("run", "--config", write_profile(calm), "--json", cwd=calm)
    assert undisturbed.code == 0, undisturbed.err
    run_name = undisturbed.summary["run"]
    with running_stack(tmp_path / "stack") as stack, browser_page() as page:
        run = trigger(stack, "train", config(troubled, faults=["train.step:6=raise"]))
        failed = wait_for(stack, run, ended)
        assert failed["state_type"] == "FAILED", failed["state"]
        assert "fault injected at train.step:6" in failed["state"]["message"]
        press_retry(page, stack, run)
        done = wait_for(stack, run, lambda r: r["run_count"] > 1 and ended(r))
        assert done["state_type"] == "COMPLETED", done["state"]
        states = task_states(stack, run)
        assert {name for name, state in states.items() if state == "Cached"} >= {
            "validate_dataset",
            "prepare_policy",
            "estimate_prior",
            "train_epoch 1",
        }
        assert states["train_epoch 2"] == "Completed"
    assert results(troubled, run_name) == results(calm, run_name)
