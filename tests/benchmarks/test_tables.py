"""The tables of the docs say what the kept results say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.curriculum.kept import keep
from benchmarks.tables import DOCS, NOTHING, ROOT, arms, block, filled, load_results, machines, plans, step, throughput
from cures_core.errors import ConfigError

KEPT = sorted((ROOT / "benchmarks" / "results").rglob("*.json"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_is_kept_names_no_place_of_one_machine(path: Path) -> None:
    assert places(json.loads(path.read_bytes())) == []


def test_a_place_is_found_wherever_it_stands_and_a_log_may_name_some() -> None:
    assert places({"a": [{"/tmp/x": "/srv/models/smollm2"}, 'File "/usr/lib/x.py", line 3\n']}) == [
        "/tmp/x",
        "/srv/models/smollm2",
    ]


def places(value: Any) -> list[str]:
    """Absolute paths among the keys and values."""
    if isinstance(value, str):
        return [value] if re.fullmatch(r"/(?:[^/]+/)+[^/\n]*", value) else []
    if isinstance(value, dict):
        value = [*value.items()]
    return [place for inner in value for place in places(inner)] if isinstance(value, list | tuple) else []


MACHINE = {
    "device": "NVIDIA H0",
    "driver": "580.1",
    "cuda": "13.0",
    "python": "3.12.3",
    "versions": {"torch": "2.11.0"},
}


def of(**units: dict[str, Any]) -> dict[str, Any]:
    named = {name.replace("_", "-"): {"result": r, "source": "5eed", "commit": "c0"} for name, r in units.items()}
    return {"machine": MACHINE, "units": named}


def case(engine: str, decoding: str, rows: int, rate: float) -> dict[str, Any]:
    figures = {"tokens_per_s": rate, "first_call_s": 1.25, "memory_mib": 2048}
    return {"engine": engine, "decoding": decoding, "rows": rows, **figures}


def arm(method: str, seed: int, final: float, budget_spent: bool = True) -> dict[str, Any]:
    points = [
        {"rollouts": at, "tokens": 10 * at, "seconds": at / 100, "updates": at // 256, "greedy": 0.2, "pass_at_8": 0.5,
         "avg_at_1": 0.1 + share * (final - 0.1), "entropy": 0.3}
        for at, share in ((0, 0.0), (2560, 0.5), (5120, 1.0))
    ]  # fmt: skip
    return {
        "arm": {"method": method, "seed": seed, "pool": "mixed"}, "points": points, "informative_share": 0.4,
        "calibration": {}, "seconds": 51.2, "curriculum_seconds": 1.0, "budget_spent": budget_spent, "done": True,
    }  # fmt: skip


def test_throughput_is_compared_with_eager_decoding_of_the_same_rows() -> None:
    cases = [case("hf", "eager", 256, 3500), case("hf", "static", 256, 42000), case("hf", "static", 32, 9000)]
    broken = {"engine": "vllm", "decoding": "paged", "rows": 256, "error": "MissingExtra"}
    text = throughput(of(throughput={"cases": {str(i): c for i, c in enumerate([*cases, broken])}}))
    assert text.splitlines()[2:] == [
        "| 32 | hf, static | 9,000 |  | 1.2 s | 2,048 MiB |",
        "| 256 | hf, eager | 3,500 | 1.0x | 1.2 s | 2,048 MiB |",
        "| 256 | hf, static | 42,000 | 12.0x | 1.2 s | 2,048 MiB |",
    ]


def test_decoding_that_fell_back_is_not_shown_as_what_was_asked() -> None:
    fell = {"static": 1, "captured": 0}, {"static": 0, "captured": 0}, {"static": 1, "captured": 9}
    cases = {str(i): {**case("hf", "static", 2**i, 100), **found} for i, found in enumerate(fell)}
    lines = throughput(of(throughput_rows={"cases": cases})).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == [
        "hf, static (not captured)",
        "hf, static (eager after all)",
        "hf, static",
    ]


def test_steps_and_plans_that_are_not_done_are_left_out() -> None:
    figures = {"total_s": 10.0, "generation_s": 6.0, "training_s": 4.0, "tokens_per_s": 800.0, "peak_mib": 1000.0}
    both = of(step_cures={**figures, "done": True}, step_trl={"skipped": "trl is not installed", "done": False})
    assert step(both).splitlines()[2:] == ["| cures | 10.0 | 6.0 | 4.0 | 800.0 | 1,000.0 |"]
    plan = {"parameters": 1000, "planned_mib": 900, "measured_mib": 1100, "planned_s_per_rollout": 0.01}
    assert plans(of(plan_a={**plan, "done": False})) == ""
    done = {**plan, "measured_s_per_rollout": 0.012, "done": True}
    assert plans(of(plan_a=done)).splitlines()[2:] == ["| a | 1,000 | 900 | 1,100 | 10.0 | 12.0 |"]


def test_arms_are_compared_with_the_best_baseline_and_only_whole_ones() -> None:
    found = [arm("uniform", 1, 0.2), arm("raft", 1, 0.3), arm("cures", 1, 0.5), arm("x", 1, 0.9, False)]
    units = {f"arm-{i}": a for i, a in enumerate([*found, arm("y", 2, 0.4)])}  # of y no seed is raft's too
    rows = arms(of(**{name.replace("-", "_"): unit for name, unit in units.items()})).splitlines()[2:]
    assert rows[0].startswith("| mixed | uniform | 1 | 0.200 ")
    assert rows[1].startswith("| mixed | raft | 1 | 0.300 [0.300, 0.300] | 0.200 | 0.500 | 0.300 | 1.00x |")
    assert rows[2].startswith("| mixed | cures | 1 | 0.500 ")
    assert len(rows) == 3
    assert arms(of(arm_0=arm("cures", 1, 0.5))) == ""  # nothing to compare with


def test_a_machine_says_its_exams_and_what_is_missing() -> None:
    text = machines(of(exam_hf={"passed": 30, "failed": 1, "done": False}, step_trl={"done": True}))
    assert "NVIDIA H0, driver 580.1, CUDA 13.0, Python 3.12.3; torch 2.11.0; source 5eed." in text
    assert "Exams: hf 30 passed, 1 failed." in text
    assert "Not done: exam-hf." in text


def test_a_block_is_replaced_and_the_rest_of_the_page_stays() -> None:
    page = "a\n<!-- results: step -->\nold\n<!-- end of results -->\nb\n"
    assert filled(page, []) == f"a\n<!-- results: step -->\n\n{NOTHING}\n<!-- end of results -->\nb\n"
    assert filled(filled(page, []), []) == filled(page, [])
    with pytest.raises(ConfigError, match="arms, machines"):
        block("speeds", [])


@pytest.mark.parametrize("page", DOCS)
def test_the_docs_hold_the_tables_of_the_kept_results(page: str) -> None:
    text = (ROOT / page).read_text()
    assert filled(text, load_results()) == text, "python -m benchmarks tables"


def test_every_kept_result_can_be_shown_somewhere() -> None:
    shown = "".join((ROOT / page).read_text() for page in DOCS)
    assert all(f"<!-- results: {name} -->" in shown for name in ("throughput", "step", "plans", "arms", "machines"))


def test_behaviour_stands_beside_the_pretrained_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BEHAVIOUR", tmp_path)
    assert block("behaviour", []) == tables.NOTHING_KEPT
    summary = {"pass_rate": 0.1, "tokens": 7.0, "entropy": 2.0, "truncated_share": 0.2, "ratio_output_low": 0.5}
    for name, entropy in (("smollm2-worked-0", 2.0), ("scratchpad-0", 1.5)):
        figures = {"summary": {**summary, "entropy": entropy}, "prompts": 60, "samples": 8}
        (tmp_path / f"{name}.json").write_text(json.dumps(figures))
    lines = block("behaviour", []).splitlines()
    assert lines[0] == "|  | smollm2-worked-0 | scratchpad-0 |"
    assert "| entropy of a token, nats | 2.00 | 1.50 (0.8x) |" in lines
    assert "| m+ / m-, output layer, pass rate 0.65 to 0.95 | - | - |" in lines


def test_kept_arms_are_compared_by_pool_and_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "WORLDS", tmp_path)
    monkeypatch.setattr(tables, "load", lambda world: json.loads((tmp_path / f"{world}.json").read_bytes()))
    made = {"command": "python -m benchmarks curriculum", "commit": "c0", "processor": "P", "versions": {"torch": "2"}}
    results = []
    for method, final, budget in (("uniform", 0.4, 5120), ("raft", 0.5, 5120), ("uniform", 0.4, 9000)):
        one = arm(method, 1, final)
        one["arm"] |= {"world": "scratchpad", "base": 1, "budget": budget}
        results.append(one)
    keep("scratchpad", results, made, tmp_path)
    text = block("worlds", [])
    assert text.count("World `scratchpad`, pool `mixed`") == 1  # with 9,000 rollouts there is one method alone
    assert "how many times less than `raft` to 90 %" in text
    assert "Made by `python -m benchmarks curriculum` (c0); P, torch 2." in text
