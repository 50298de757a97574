"""A session keeps what there is at any moment, ends in time, and measures only what is missing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.gpu.session import Session, Unit
from cures_core.errors import ConfigError

MACHINE = {"device": "H0", "commit": "c0ffee", "source": "5eed"}


def unit(tmp_path: Path, name: str, *, kind: str = "", side_by_side: bool = False, **spec: Any) -> Unit:
    told = {"name": name, "trace": str(tmp_path / "trace"), "values": [1], **spec}
    options = {"most_s": spec.get("most_s", 60.0), "least_s": spec.get("least_s", 0.1)}
    return Unit(name, "tests.benchmarks.gpu.pretend", told, kind, side_by_side=side_by_side, **options)


def session(tmp_path: Path, seconds: float = 60, **options: Any) -> Session:
    machine = options.pop("machine", MACHINE)
    out = tmp_path / "out" / "results.json"
    return Session(out, machine, tmp_path / "scratch", time.monotonic() + seconds, **options)


def results(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "results.json").read_bytes())
    return found


def trace(tmp_path: Path) -> list[str]:
    return (tmp_path / "trace").read_text().splitlines()


def test_results_are_kept_with_spec_machine_and_source(tmp_path: Path) -> None:
    session(tmp_path).run([unit(tmp_path, "a", values=[1, 2]), unit(tmp_path, "b")])
    found = results(tmp_path)
    assert found["machine"] == MACHINE
    assert found["units"]["a"]["result"]["value"] == 2
    assert found["units"]["a"]["result"]["done"]
    assert found["units"]["a"]["spec"]["values"] == [1, 2]
    assert (found["units"]["b"]["commit"], found["units"]["b"]["source"]) == ("c0ffee", "5eed")
    assert trace(tmp_path) == ["a begins", "a ends", "b begins", "b ends"]


def test_what_is_whole_is_not_measured_again_and_what_changed_is(tmp_path: Path) -> None:
    session(tmp_path).run([unit(tmp_path, "a"), unit(tmp_path, "b")])
    session(tmp_path).run([unit(tmp_path, "a"), unit(tmp_path, "b", values=[5])])
    assert trace(tmp_path).count("a begins") == 1
    assert trace(tmp_path).count("b begins") == 2
    assert results(tmp_path)["units"]["b"]["result"]["value"] == 5


def test_models_are_named_and_units_are_told_where_they_are(tmp_path: Path) -> None:
    named = unit(tmp_path, "a", policy="smollm2", world="smollm2")
    session(tmp_path, models={"smollm2": "/one/smollm2"}).run([named])
    assert trace(tmp_path) == ["a begins with /one/smollm2", "a ends"]
    found = results(tmp_path)["units"]["a"]
    assert (found["spec"]["policy"], found["result"]["arm"]["policy"]) == ("smollm2", "smollm2")
    session(tmp_path, models={"smollm2": "/another/smollm2"}).run([named])
    assert len(trace(tmp_path)) == 2  # elsewhere it is the same unit


def test_a_failure_is_a_result_and_the_next_unit_runs(tmp_path: Path) -> None:
    session(tmp_path).run([unit(tmp_path, "a", fails="no such thing"), unit(tmp_path, "b")])
    found = results(tmp_path)["units"]
    assert found["a"]["result"]["ended"] == "exit code 1"
    assert "no such thing" in found["a"]["result"]["log"]
    assert found["b"]["result"]["done"]


def test_what_a_unit_has_said_is_kept_also_where_it_is_done(tmp_path: Path) -> None:
    session(tmp_path).run([unit(tmp_path, "a", says="it is run kernel by kernel"), unit(tmp_path, "b")])
    found = results(tmp_path)["units"]
    assert found["a"]["result"]["done"]
    assert found["a"]["result"]["log"] == "it is run kernel by kernel\n"
    assert "log" not in found["b"]["result"]


def test_nothing_that_a_unit_has_started_outlives_it(tmp_path: Path) -> None:
    session(tmp_path).run([unit(tmp_path, "a", leaves_behind=True)])
    pid = int((tmp_path / "trace.child").read_text())
    assert gone(pid)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_unit_that_was_cut_off_goes_on_from_what_it_had(tmp_path: Path) -> None:
    slow = {"kind": "table", "values": [1, 7]}
    session(tmp_path, 4).run([unit(tmp_path, "a", sleep=60, **slow)])
    first = results(tmp_path)["units"]["a"]["result"]
    assert first["ended"] == "its time was over"
    assert first["value"] == 7
    again = session(tmp_path)
    again.kept["a"]["spec"]["sleep"] = 0  # the same unit, on a machine that is faster
    again.run([unit(tmp_path, "a", sleep=0, **slow)])
    second = results(tmp_path)["units"]["a"]["result"]
    assert second["done"]
    assert second["former"]["value"] == 7


def test_the_session_ends_in_time_and_begins_nothing_that_cannot_be_done(tmp_path: Path) -> None:
    started = time.monotonic()
    units = [unit(tmp_path, "a", sleep=60), unit(tmp_path, "b", least_s=30.0), unit(tmp_path, "c")]
    session(tmp_path, 5).run(units)
    assert time.monotonic() - started < 15
    assert trace(tmp_path) == ["a begins"]


def test_a_unit_that_takes_too_long_is_ended_and_told_so_before(tmp_path: Path) -> None:
    session(tmp_path).run([unit(tmp_path, "a", sleep=60, most_s=4.0), unit(tmp_path, "b")])
    found = results(tmp_path)["units"]
    assert found["a"]["result"]["ended"] == "its time was over"
    assert found["a"]["result"]["limit_s"] <= 4
    assert found["b"]["result"]["done"]


def test_runs_share_the_device_with_runs_alone(tmp_path: Path) -> None:
    units = [unit(tmp_path, "alone", sleep=0.5)]
    units += [unit(tmp_path, f"arm-{i}", sleep=3, side_by_side=True) for i in range(3)]
    session(tmp_path, jobs=2).run(units)
    seen = trace(tmp_path)
    assert seen[:2] == ["alone begins", "alone ends"]
    assert {line.split()[1] for line in seen[2:4]} == {"begins"}
    assert seen[4].endswith("ends")
    assert all(u["result"]["done"] for u in results(tmp_path)["units"].values())


def test_results_of_another_card_are_not_mixed_with_these(tmp_path: Path) -> None:
    session(tmp_path).run([unit(tmp_path, "a")])
    with pytest.raises(ConfigError, match="H0, this is H1"):
        session(tmp_path, machine={**MACHINE, "device": "H1"})
