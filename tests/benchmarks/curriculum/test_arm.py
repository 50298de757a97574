"""An arm in each world: methods at its rates, a curve that is there at any moment, accounts, an end in time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.curriculum import arm as arm_module
from benchmarks.curriculum.analysis import analyse
from benchmarks.curriculum.arm import Arm, run_arm
from benchmarks.curriculum.arms import make_arm, run_arms
from benchmarks.curriculum.base_policies import warm_started
from benchmarks.curriculum.kept import Result, arm_name, kept_result
from benchmarks.curriculum.methods import BASELINES, METHODS
from benchmarks.curriculum.tuned import Tuned, keep_tuned, load_tuned
from benchmarks.curriculum.worlds import WORLDS, world_of
from benchmarks.curriculum.worlds.scratchpad import LESSON, POLICY
from benchmarks.gpu.stand_in import write_stand_in
from cures_core.config.policy import WarmStartPolicy
from cures_core.errors import ChildFailed, ConfigError
from cures_core.policy.warm_start import CHAINS

TINY = POLICY.model_copy(update={"steps": 6, "hidden_size": 16, "layers": 1, "heads": 2})
SIZES: dict[str, Any] = {"train": 60, "heldout": 5, "frontier": 5, "samples": 2, "evaluate_every": 256}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_stand_in(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(warm_started("scratchpad", TINY, LESSON, tmp_path_factory.mktemp("policies")))


def arm(model: str, method: str = "uniform", **fields: Any) -> Arm:
    values = {**SIZES, "device": "cpu", "dtype": "float32", "max_new_tokens": 4, **fields}
    return make_arm(world_of("smollm2"), method, "mixed", 0, 1, values.pop("budget", 512), model, **values)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_an_arm_in_every_world(world: str, method: str) -> None:
    found = make_arm(world_of(world), method, "waste", 0, 2, 1, "m", tuned=Tuned())
    most = 2.001 * world_of(world).learning_rate
    assert 0.25 * world_of(world).learning_rate <= found.training.learning_rate <= most
    assert found.training.length_norm == world_of(world).length_norm
    assert found.training.solved_advantage == METHODS[method][1].get("solved_advantage", 0.0)


def test_baselines_are_methods() -> None:
    assert set(BASELINES) <= set(METHODS)


def test_names_are_checked_before_any_work() -> None:
    with pytest.raises(ConfigError, match="use one of digits, scratchpad, smollm2"):
        world_of("letters")
    with pytest.raises(ConfigError, match="pool 'hard' of world scratchpad: use one of waste, mixed, healthy"):
        make_arm(world_of("scratchpad"), "uniform", "hard", 0, 0, 1, "m")
    with pytest.raises(ConfigError, match="method 'best'"):
        make_arm(world_of("scratchpad"), "best", "waste", 0, 0, 1, "m")


def test_an_arm_leaves_its_curve_and_accounts(model: str, tmp_path: Path) -> None:
    run_arm(arm(model), tmp_path / "arm.json")
    result = json.loads((tmp_path / "arm.json").read_bytes())
    assert result["done"]
    assert result["budget_spent"]
    assert [p["rollouts"] for p in result["points"]] == [0, 256, 512]
    last = result["points"][-1]
    assert last["step"] == 2
    assert 0 <= last["updates"] <= 2
    assert 512 <= last["tokens"] <= 512 * 4
    assert 0 <= last["avg_at_1"] <= last["pass_at_2"] <= 1
    assert 0 < last["entropy"] < 6
    assert last["seconds"] == result["seconds"] > 0
    assert last["processor_seconds"] == result["processor_seconds"] > 0


@pytest.mark.parametrize(("method", "paid"), [("dapo", 60 * 8), ("raft", 64)])
def test_what_a_method_discards_or_screens_is_paid_for(model: str, tmp_path: Path, method: str, paid: int) -> None:
    """This model is hardly ever right: `dapo` goes through the whole pool and discards nearly all of it."""
    first, *_, last = run_arm(arm(model, method, budget=64), tmp_path / "arm.json")["points"]
    assert first["rollouts"] == first["tokens"] == 0
    assert last["rollouts"] == paid
    assert last["updates"] <= last["step"] == 1


@pytest.mark.parametrize("method", ["uniform-abort", "oracle"])
def test_an_arm_in_the_scratchpad_world_is_the_same_again(small: str, tmp_path: Path, method: str) -> None:
    world = world_of("scratchpad")
    fields: dict[str, Any] = {**SIZES, "evaluate_every": 64, "max_new_tokens": 8}
    one = make_arm(world, method, "waste", 0, 1, 128, small, tuned=Tuned(), **fields)
    results = [run_arm(one, tmp_path / f"{i}.json") for i in range(2)]
    clocks = {"seconds", "processor_seconds"}
    curves = [[{k: v for k, v in p.items() if k not in clocks} for p in r["points"]] for r in results]
    assert curves[0] == curves[1]
    assert {"pass_at_2", "greedy", "entropy"} <= set(curves[0][0])


@pytest.mark.parametrize("method", ["cures", "oracle"])
def test_an_arm_in_the_digits_world_has_exact_scores(tmp_path: Path, method: str) -> None:
    cfg = WarmStartPolicy(steps=60, batch=32, hidden_size=32, layers=1, heads=2)
    policy = str(warm_started("digits", cfg, CHAINS, tmp_path))
    fields: dict[str, Any] = {**SIZES, "train": 80, "evaluate_every": 64}
    one = make_arm(world_of("digits"), method, "waste", 0, 1, 128, policy, tuned=Tuned(), **fields)
    points = run_arm(one, tmp_path / "arm.json")["points"]
    for point in points:
        assert point["avg_at_1"] == point["frontier_sampled"] <= point["pass_at_8"] <= 1
        assert point["greedy"] == point["frontier_greedy"]
        assert 0 < point["heldout_sampled"] < 1
        assert 0 < point["entropy"] < np.log(20)
    assert points[0]["rollouts"] == 0
    assert points[-1]["heldout_sampled"] != points[0]["heldout_sampled"]


def test_an_arm_ends_by_itself_and_says_that_its_budget_is_not_spent(model: str, tmp_path: Path) -> None:
    run_arm(arm(model, limit_s=0.01), tmp_path / "arm.json")
    result = json.loads((tmp_path / "arm.json").read_bytes())
    assert (result["done"], result["budget_spent"], len(result["points"])) == (False, False, 1)


def test_the_curve_is_there_before_the_arm_has_ended(model: str, tmp_path: Path) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arm_module, "run_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run_arm(arm(model), tmp_path / "arm.json")
    result = json.loads((tmp_path / "arm.json").read_bytes())
    assert not result["done"]
    assert len(result["points"]) == 1


@pytest.mark.slow
def test_finished_arms_are_not_run_again_and_a_failed_one_says_why(small: str, tmp_path: Path) -> None:
    world = world_of("scratchpad")
    fields: dict[str, Any] = {**SIZES, "max_new_tokens": 4}
    one = make_arm(world, "uniform", "waste", 0, 1, 256, small, tuned=Tuned(), **fields)
    [first] = run_arms([one], 1, tmp_path)
    [again] = run_arms([one], 1, tmp_path)
    assert first == again  # the clocks too: it was read
    assert analyse([first], "uniform", "avg_at_1")[0].method == "uniform"
    with pytest.raises(ChildFailed, match=r"(?s)uniform-0-1-256.*no folder of that name"):
        run_arms([one.model_copy(update={"policy": str(tmp_path / "none")})], 1, tmp_path)


def test_a_kept_arm_is_not_run_and_is_told_before_another_fails(small: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {**SIZES, "max_new_tokens": 4}
    one = make_arm(world_of("scratchpad"), "uniform", "waste", 0, 1, 256, small, tuned=Tuned(), **fields)
    failing = one.model_copy(update={"policy": str(tmp_path / "none")})
    result: dict[str, Any] = {"arm": one.model_dump(mode="json", exclude={"limit_s"}), "done": True, "points": []}
    told: list[Result] = []
    with pytest.raises(ChildFailed, match="no folder of that name"):
        run_arms([one, failing], 1, tmp_path, {arm_name(result): result}, told.append)
    assert told == [result]
    assert kept_result({arm_name(result): {**result, "done": False}}, result["arm"]) is None


def test_tuned_settings_are_taken_and_kept_beside_others(tmp_path: Path) -> None:
    tuned = Tuned(curriculum={"prompts_per_step": 16, "rollouts_per_step": 64}, training={"learning_rate": 1e-4})
    keep_tuned("scratchpad", {"uniform": tuned}, tmp_path)
    keep_tuned("scratchpad", {"raft": Tuned()}, tmp_path)
    assert set(load_tuned("scratchpad", tmp_path)) == {"uniform", "raft"}
    assert load_tuned("digits", tmp_path) == {}
    found = make_arm(world_of("scratchpad"), "uniform", "waste", 0, 1, 256, "m", tuned=tuned)
    assert (found.curriculum.prompts_per_step, found.training.learning_rate) == (16, 1e-4)
