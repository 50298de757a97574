"""An arm on a pretrained model: methods at this model's rates, a curve that is there at any moment, an end in time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.curriculum import pretrained
from benchmarks.curriculum.analysis import analyse
from benchmarks.curriculum.methods import METHODS
from benchmarks.curriculum.pretrained import PretrainedArm, make_arm, run_arm
from benchmarks.gpu.stand_in import write_stand_in


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_stand_in(tmp_path_factory.mktemp("model")))


def arm(model: str, method: str = "uniform", **fields: object) -> PretrainedArm:
    sizes = {"budget": 512, "prompts": 60, "heldout": 5, "samples": 2, "evaluate_every": 256, "max_new_tokens": 4}
    return make_arm(method, "mixed", 1, model=model, device="cpu", dtype="float32", **{**sizes, **fields})


@pytest.mark.parametrize("method", [m for m in METHODS if m != "oracle"])
def test_every_method_has_an_arm_whose_rate_suits_its_steps(method: str) -> None:
    training = make_arm(method, "waste", 2, budget=1, model="m").training
    assert 1e-5 <= training.learning_rate < 6.1e-5
    assert training.length_norm is None
    assert training.solved_advantage == METHODS[method][1].get("solved_advantage", 0.0)


def test_an_arm_leaves_its_curve_and_accounts(model: str, tmp_path: Path) -> None:
    run_arm(arm(model), tmp_path / "arm.json")
    result = json.loads((tmp_path / "arm.json").read_bytes())
    assert result["done"]
    assert result["budget_spent"]
    assert [p["rollouts"] for p in result["points"]] == [0, 256, 512]
    assert [p["updates"] for p in result["points"]] == [0, 1, 2]
    last = result["points"][-1]
    assert 512 <= last["tokens"] <= 512 * 4
    assert 0 <= last["avg_at_1"] <= last["pass_at_2"] <= 1
    assert 0 < last["entropy"] < 6
    assert last["seconds"] == result["seconds"] > 0


def test_an_arm_ends_by_itself_and_says_that_its_budget_is_not_spent(model: str, tmp_path: Path) -> None:
    run_arm(arm(model, limit_s=0.01), tmp_path / "arm.json")
    result = json.loads((tmp_path / "arm.json").read_bytes())
    assert (result["done"], result["budget_spent"], len(result["points"])) == (True, False, 1)


def test_the_curve_is_there_before_the_arm_has_ended(model: str, tmp_path: Path) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "run_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run_arm(arm(model), tmp_path / "arm.json")
    result = json.loads((tmp_path / "arm.json").read_bytes())
    assert not result["done"]
    assert len(result["points"]) == 1


def test_arms_are_analysed_as_those_of_the_small_policy(model: str, tmp_path: Path) -> None:
    results = []
    for method in ("uniform", "cures-grpo"):
        run_arm(arm(model, method, budget=256), tmp_path / f"{method}.json")
        results.append(json.loads((tmp_path / f"{method}.json").read_bytes()))
    rows = analyse(results, "uniform", "avg_at_1")
    assert [row.method for row in rows] == ["uniform", "cures-grpo"]
