"""A supervised warm start learns, ends with the same bytes whether it was stopped or not, and says what it did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.policy import SupervisedWarmStart
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, Preempted
from cures_core.events import JobEvent, PartDone
from cures_core.jobs import warm_start as job_module
from cures_core.jobs.spec import Job
from cures_core.policy.loading import Policy, load_policy, save_policy, setup_torch
from cures_core.policy.solutions import Lesson
from cures_core.policy.supervised import planned_steps, supervised_warm_start
from cures_core.rollout.vllm.probe import probe_ids, probe_logprobs
from cures_core.training.supervised import Row, rate_at
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama

TOKENIZER = character_tokenizer()
LORA = {"rank": 4, "alpha": 16, "targets": ("q_proj", "v_proj", "down_proj")}


def lessons(num: int = 24) -> list[Lesson]:
    """Digits are to be said twice."""
    ids = [tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"]) for text in (f"{i}=" for i in range(num))]
    return [Lesson(one, (*one[:-1], *one[:-1], TOKENIZER.eos_token_id)) for one in ids]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "policy"
    save_policy(Policy(tiny_llama(initializer_range=0.1), TOKENIZER, torch.device("cpu")), folder)
    return folder


def taught(
    base: Path, scratch: Path, stop_at: int = 0, dtype: str = "float32", **options: Any
) -> tuple[Policy, list[Row]]:
    fields = {"learning_rate": 1e-2, "epochs": 4, "batch_tokens": 40, "checkpoint_every": 4, **options}
    cfg = SupervisedWarmStart.model_validate(fields)
    device = setup_torch(RunConfig.model_fields["device"].default.model_copy(update={"type": "cpu"}), cfg.seed)
    policy = load_policy(base, device, dtype=dtype, lora=cfg.lora)

    def on_step(step: int, _: float) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    return policy, supervised_warm_start(cfg, policy, lessons(), scratch, on_step)


@pytest.mark.parametrize("options", [{}, {"lora": LORA}], ids=["all weights", "adapters"])
def test_it_learns_what_it_is_shown(options: dict[str, Any], base: Path, tmp_path: Path) -> None:
    policy, rows = taught(base, tmp_path, epochs=25, **options)
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-8:]) < 0.6 * np.mean(losses[:8])
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert sum(row["tokens"] for row in rows) == 25 * sum(len(one.token_ids) for one in lessons())
    assert policy.trainable()


@pytest.mark.parametrize(
    ("options", "stop_at"), [({}, 6), ({}, 9), ({"lora": LORA}, 7), ({"dtype": "bfloat16"}, 6)], ids=str
)
def test_a_stopped_one_ends_with_the_same_bytes(
    options: dict[str, Any], stop_at: int, base: Path, tmp_path: Path
) -> None:
    whole, rows = taught(base, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        taught(base, tmp_path / "stopped", stop_at, **options)
    assert list((tmp_path / "stopped").glob("step-*"))
    resumed, again = taught(base, tmp_path / "stopped", **options)
    assert again == rows
    assert all(torch.equal(value, whole.trainable()[name]) for name, value in resumed.trainable().items())


def test_micro_batches_change_nothing_but_rounding(base: Path, tmp_path: Path) -> None:
    few, many = (taught(base, tmp_path / str(size), epochs=1, micro_batch_tokens=size)[1] for size in (4096, 64))
    assert [row["loss"] for row in few] == pytest.approx([row["loss"] for row in many], rel=1e-4)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(2, 60), st.integers(1, 3))
def test_every_epoch_has_every_lesson_once(lengths: Sequence[int], batch_tokens: int, epochs: int) -> None:
    cfg = SupervisedWarmStart(batch_tokens=batch_tokens, epochs=epochs)
    told = [Lesson((1,), (2,) * n) for n in lengths]
    steps = planned_steps(cfg, told)
    seen = [i for step in steps for i in step]
    for epoch in range(epochs):
        assert sorted(seen[epoch * len(told) : (epoch + 1) * len(told)]) == list(range(len(told)))
    for step in steps:
        assert step
        assert len(step) == 1 or sum(1 + lengths[i] for i in step) <= batch_tokens


@given(st.integers(1, 500))
def test_the_rate_rises_to_its_peak_and_falls(steps: int) -> None:
    rates = [rate_at(i, steps, 1.0) for i in range(steps)]
    assert max(rates) == pytest.approx(1.0)
    assert min(rates) > 0
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


class FakeParent:
    def __init__(self, stop_after: int = 0) -> None:
        self.events: list[JobEvent] = []
        self._stop_after = stop_after

    def emit(self, event: JobEvent) -> None:
        self.events.append(event)

    def stop_if_asked(self, done: str) -> None:
        self._stop_after -= 1
        if self._stop_after == 0:
            raise Preempted(f"asked to stop; saved {done}")


def job_in(folder: Path, base: Path, **options: Any) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "solutions.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{i}=", "solution": f"{i}{i}"}) + "\n" for i in range(30)) + "{}\n")
    warm_start = {"learning_rate": 1e-2, "epochs": 2, "batch_tokens": 40, "checkpoint_every": 3, **options}
    config = RunConfig.model_validate(
        {
            "data": {"path": str(path)},
            "rollout": {"max_new_tokens": 4},
            "training": {"learning_rate": 1e-3},
            "device": {"type": "cpu"},
            "policy": {"type": "pretrained", "path": str(base), "warm_start": warm_start},
        }
    )
    out = folder / "out"
    return Job(name="warm_start", config=config, scratch=folder / "scratch", out=out, policy=str(base), solutions=path)


@pytest.mark.parametrize("options", [{}, {"lora": LORA}], ids=["all weights", "adapters"])
def test_the_job_writes_a_whole_policy_and_accounts_for_what_it_did(
    options: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    job, parent = job_in(tmp_path, base, **options), FakeParent()
    job_module.run(job, parent)  # type: ignore[arg-type]
    figures = json.loads((job.out / "figures.json").read_bytes())
    rows = [json.loads(line) for line in (job.out / job_module.STEPS).read_bytes().splitlines()]
    assert (figures["rows"], figures["taught"], figures["left_out"]) == (31, 30, {"no_problem": 1})
    assert (figures["steps"], figures["loss"]) == (len(rows), rows[-1]["loss"])
    assert figures["tokens"] == sum(row["tokens"] for row in rows) > 0
    assert figures["machine"]["device"] == "cpu"
    told = [event for event in parent.events if isinstance(event, PartDone)]
    assert (told[-1].part, told[-1].done, told[-1].total) == ("warm_start", len(rows), len(rows))
    before, after = (load_policy(folder, "cpu").model for folder in (base, job.out / "policy"))
    ids = probe_ids(before.config.vocab_size)
    assert np.abs(probe_logprobs(before, ids) - probe_logprobs(after, ids)).max() > 1e-3


def test_a_job_that_is_asked_to_stop_goes_on_to_the_same_policy(base: Path, tmp_path: Path) -> None:
    whole, stopped = job_in(tmp_path / "whole", base), job_in(tmp_path / "stopped", base)
    job_module.run(whole, FakeParent())  # type: ignore[arg-type]
    with pytest.raises(Preempted, match="the warm start's last checkpoint before step 4"):
        job_module.run(stopped, FakeParent(stop_after=2))  # type: ignore[arg-type]
    job_module.run(stopped, FakeParent())  # type: ignore[arg-type]
    for name in ("policy/model.safetensors", job_module.STEPS):
        assert (whole.out / name).read_bytes() == (stopped.out / name).read_bytes()


def test_nothing_is_taught_to_a_policy_that_is_to_be_taken_as_it_is(base: Path, tmp_path: Path) -> None:
    job = job_in(tmp_path, base)
    policy = job.config.policy.model_copy(update={"warm_start": None})
    job = job.model_copy(update={"config": job.config.model_copy(update={"policy": policy})})
    with pytest.raises(ConfigError, match=r"or policy\.warm_start"):
        job_module.run(job, FakeParent())  # type: ignore[arg-type]
