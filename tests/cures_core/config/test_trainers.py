"""Which trainer a profile names, and what of it is part of a run's identity."""

from __future__ import annotations

from typing import Any

import pytest

from cures_core.config.marks import results
from cures_core.config.run import RunConfig
from cures_core.config.training import DeepSpeedTrainerConfig, TorchrunTrainerConfig, TorchTrainerConfig


def config(**options: Any) -> RunConfig:
    training = {"learning_rate": 1e-3, **options.pop("training", {})}
    return RunConfig.model_validate(
        {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": training, **options}
    )


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, TorchTrainerConfig),
        ({"type": "torchrun", "processes": 2}, TorchrunTrainerConfig),
        ({"type": "deepspeed", "zero_stage": 3, "loss": "dapo"}, DeepSpeedTrainerConfig),
    ],
)
def test_a_trainer_is_chosen_by_type_and_comes_back_from_json(options: dict[str, Any], kind: type) -> None:
    cfg = config(training=options)
    assert type(cfg.training) is kind
    assert RunConfig.model_validate_json(cfg.model_dump_json()) == cfg


def test_processes_and_nodes_are_no_part_of_a_run_and_the_trainer_is() -> None:
    one = results(config(training={"type": "torchrun"}))
    placed = {"processes": 8, "nodes": 2, "address": "10.0.0.1:29500", "wait_timeout_s": 9.0}
    assert results(config(training={"type": "torchrun", **placed})) == one
    assert results(config(checkpoint={"keep_last": 5, "background": False})) == results(config())
    assert results(config(training={"type": "deepspeed"})) != one
    assert results(config(training={"type": "torchrun", "learning_rate": 1e-4})) != one


def test_one_process_has_no_processes_to_set() -> None:
    with pytest.raises(ValueError, match="processes"):
        config(training={"type": "torch", "processes": 2})


SINGLES = {"type": "cures", "prompts_per_step": 8, "rollouts_per_step": 8, "allocation": {"type": "single"}}


@pytest.mark.parametrize(
    ("training", "fits"),
    [
        ({}, False),
        ({"advantage": "loo"}, False),
        ({"solved_advantage": 1.0}, True),
        ({"advantage": "posterior"}, True),
        ({"advantage": "reinforce++"}, True),
    ],
)
def test_single_rollouts_need_a_baseline_that_is_not_their_groups(training: dict[str, Any], fits: bool) -> None:
    if fits:
        assert config(training=training, curriculum=SINGLES).curriculum.rollouts_per_step == 8
    else:
        with pytest.raises(ValueError, match="nothing would be learnt"):
            config(training=training, curriculum=SINGLES)
