"""A stage as Prefect sees it: a task of its name, retried where the table of failures says so, cached by its record."""

from __future__ import annotations

import errno
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from cures_core.errors import ConfigError, CuresError, StoreUnavailable, UnexpectedError
from cures_core.jobs.scene import GO_ON
from tasks.runs.records import RunRef
from tasks.stages import stage as stage_module
from tasks.stages.stage import RETRIES, RETRY_DELAYS_S, Made, as_stage, retryable, run_stage, stage_key
from tasks.stages.workspace import Workspace
from tasks.storage import open_store
from tasks.storage.local import LocalStore
from tests.tasks.stages.figures import DemoFigures, OtherFigures
from tests.tasks.stages.test_stage import Work, run  # noqa: F401  (a fixture)


class Recorder:
    """Stands for Prefect's `task`: keeps what it was given, and gives back what a task would."""

    def __init__(self, give: Callable[[Any], Any] = lambda result: result) -> None:
        self.settings: dict[str, Any] = {}
        self._give = give

    def __call__(self, **settings: Any) -> Callable[..., Any]:
        self.settings = settings
        return lambda function: lambda *args, **kwargs: self._give(function(*args, **kwargs))


def polish(stone: str, times: int = 1) -> str:
    """Make it shine."""
    if not times:
        raise TypeError("a stone, and how often")
    return f"{stone} x {times}"


def test_a_stage_is_a_task_that_keeps_nothing_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(stage_module, "task", recorder)
    shine = as_stage()(polish)
    assert shine("opal", times=3) == "opal x 3"
    assert inspect.getdoc(shine) == "Make it shine."
    assert recorder.settings == {
        "name": "polish",
        "task_run_name": "polish",
        "retries": RETRIES,
        "retry_delay_seconds": RETRY_DELAYS_S,
        "retry_condition_fn": retryable,
        "cache_policy": NO_CACHE,
        "persist_result": False,
    }
    as_stage("polish {stone}")(polish)
    assert (recorder.settings["name"], recorder.settings["task_run_name"]) == ("polish", "polish {stone}")


def test_a_state_is_unwrapped_and_a_foreign_error_becomes_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "task", Recorder(lambda result: Completed(data=result)))
    shine = as_stage()(polish)
    assert shine("opal") == "opal x 1"
    with pytest.raises(UnexpectedError, match=r"polish.*a stone, and how often"):
        shine("opal", times=0)

    def lose() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "stones.txt")

    with pytest.raises(CuresError, match=rf"lose: .*stones\.txt.*then {re.escape(GO_ON)}"):
        as_stage()(lose)()


@pytest.mark.parametrize(
    ("error", "again"),
    [(StoreUnavailable("gone"), True), (ConfigError("wrong"), False), (TypeError("a bug"), False), (None, False)],
)
def test_the_table_of_failures_says_what_is_tried_again(error: CuresError | None, again: bool) -> None:
    class Ended:
        def result(self) -> None:
            if error is not None:
                raise error

    assert retryable(None, None, Ended()) is again


def test_in_a_task_a_committed_record_is_a_state_named_cached(
    run: RunRef,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = run_stage(run, DemoFigures, 1, {}, [], Work())
    monkeypatch.setattr("prefect.context.TaskRunContext.get", lambda: object())
    state: Any = run_stage(run, DemoFigures, 1, {}, [], Work())
    assert (state.name, state.type.value, state.data) == ("Cached", "COMPLETED", made)
    assert state.message == f"committed before: {made.id}"


def test_what_a_person_wants_done_again_has_another_key_by_its_label(run: RunRef) -> None:  # noqa: F811
    again = run.model_copy(update={"again": {"demo-2": 1}})
    keys = {label: stage_key(run, DemoFigures, label, 1, {"a": 1})[0] for label in ("", "1", "2")}
    assert set(keys.values()) == {keys[""]}
    assert stage_key(again, DemoFigures, "1", 1, {"a": 1})[0] == keys[""]
    assert stage_key(again, OtherFigures, "2", 1, {"a": 1})[0] == stage_key(run, OtherFigures, "2", 1, {"a": 1})[0]
    key, inputs = stage_key(again, DemoFigures, "2", 1, {"a": 1})
    assert key != keys[""]
    assert inputs == {"a": 1, "again": [run.name, 1]}


def test_files_of_holders_that_did_not_live_to_commit_are_removed(run: RunRef, tmp_path: Path) -> None:  # noqa: F811
    store = open_store(run.config.store)
    key, _ = stage_key(run, DemoFigures, "", 1, {})
    left = tmp_path / "left"
    left.mkdir()
    (left / "half.txt").write_text("half")
    (left / "below").mkdir()
    (left / "below" / "half.txt").write_text("half")
    for place in (f"artifacts/demo/{key}/gone-3.1", f"artifacts/demo/{key}/gone-4.2", "artifacts/demo/other/gone-3.1"):
        store.publish_files(place, left)

    def work(space: Workspace) -> Made[DemoFigures]:
        (space.out / "below").mkdir()
        (space.out / "below" / "whole.txt").write_text("whole")
        return Made(DemoFigures())

    record = run_stage(run, DemoFigures, 1, {}, [], work)
    assert (store.local_path(str(record.files)) / "below" / "whole.txt").read_text() == "whole"
    assert {"/".join(name.split("/")[:4]) for name in store.list("artifacts")} == {
        record.files,
        "artifacts/demo/other/gone-3.1",
    }


@pytest.mark.parametrize(("news", "waits"), [("record", 3), ("free", 2), ("none", 20)])
def test_who_waits_for_a_stage_looks_again_until_there_is_news(
    news: str, waits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, slept = LocalStore(tmp_path), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if news == "record" and len(slept) == 3:
            store.put("stages/demo/k.json", b"{}")

    def free(*given: Any) -> bool:
        assert given == (store, "lease", 10.0)
        return news == "free" and len(slept) == 2

    monkeypatch.setattr(stage_module.time, "sleep", sleep)
    monkeypatch.setattr(stage_module.time, "monotonic", lambda: 100.0 + sum(slept))
    monkeypatch.setattr(stage_module, "is_free", free)
    stage_module._wait_for_news(store, "lease", "stages/demo/k.json", None, 10.0)
    assert slept == [0.5] * waits
