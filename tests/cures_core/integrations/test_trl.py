"""The adapter inside the real GRPOTrainer: who is drawn, what is told, what a checkpoint holds, who agrees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import concatenate_datasets
from trl import GRPOConfig

from cures_core.curriculum import CuresConfig, Curriculum, DapoConfig, ScreenAllocation, UniformConfig
from cures_core.errors import ConfigError, CorruptArtifact, CurriculumMisuse, MissingInput
from cures_core.integrations.trl import POSTERIOR, STATE, CurriculumGRPOTrainer
from tests.cures_core.integrations.trl_run import correct, dataset, make, policy, seeded


def draws(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_prompts_are_drawn_rewards_are_told_and_a_resumed_run_is_the_undisturbed_one(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", tmp_path / "whole.jsonl")
    whole.train()
    drawn = draws(tmp_path / "whole.jsonl")
    assert [d["mine"] for d in drawn] == [[row for row in d["rows"] for _ in range(4)] for d in drawn]
    assert len({row for d in drawn for row in d["rows"]}) > 6
    counts = whole.curriculum.counts
    assert counts["asked"] == 6 * 8 == counts["correct"] + counts["wrong"] + counts["unknown"]
    assert counts["correct"] > 0
    assert counts["wrong"] > 0
    assert any("curriculum/informative_share" in row for row in whole.state.log_history)

    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "resumed" / "checkpoint-3")
    resumed = make(tmp_path / "resumed", tmp_path / "resumed.jsonl")
    resumed.train(resume_from_checkpoint=str(tmp_path / "resumed" / "checkpoint-3"))
    assert draws(tmp_path / "resumed.jsonl") == drawn[3:]
    for name in (STATE, POSTERIOR, "model.safetensors"):
        one, two = (tmp_path / run / "checkpoint-6" / name for run in ("whole", "resumed"))
        assert one.read_bytes() == two.read_bytes(), name


def test_what_is_told_is_what_the_reward_function_said(tmp_path: Path) -> None:
    said: dict[int, list[float | None]] = {}

    def spying(answer: list[str], **inputs: Any) -> list[float | None]:
        rewards = correct(**inputs)
        for row, reward in zip(answer, rewards, strict=True):
            said.setdefault(int(row), []).append(reward)
        return rewards

    trainer = make(tmp_path / "run", tmp_path / "draws.jsonl", max_steps=3)
    trainer.reward_funcs = [spying]
    trainer.train()
    posterior = trainer.curriculum.posterior
    for row, rewards in said.items():
        name = trainer.curriculum.prompts.ids.index(_id_of(trainer.curriculum, row))
        count = Counter(rewards)
        if not count[1.0] + count[0.0]:
            continue
        faded = 0.97 ** (posterior.step - posterior.touched[name])
        right, wrong = posterior.own_counts()
        assert (right[name], wrong[name]) == pytest.approx((count[1.0] * faded, count[0.0] * faded))


def _id_of(curriculum: Curriculum, row: int) -> str:
    from cures_core.prompts import content_id

    return content_id(f"{row}+{row}=", str(row))


def test_evaluation_draws_and_tells_nothing(tmp_path: Path) -> None:
    trainer = make(tmp_path / "run", tmp_path / "draws.jsonl", max_steps=1)
    trainer.model.eval()
    trainer.evaluate(dataset().select(range(8)))
    assert trainer.curriculum.counts["asked"] == 0


def test_several_iterations_a_generation_draw_once(tmp_path: Path) -> None:
    trainer = make(
        tmp_path / "run", tmp_path / "draws.jsonl", num_iterations=2, steps_per_generation=2,
        gradient_accumulation_steps=2, max_steps=4, save_steps=2,
    )  # fmt: skip
    trainer.train()
    assert [d["step"] for d in draws(tmp_path / "draws.jsonl")] == [0, 2]
    assert all(len(d["rows"]) == 4 for d in draws(tmp_path / "draws.jsonl"))


def test_saving_within_a_generated_batch_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path / "run", tmp_path / "draws.jsonl", steps_per_generation=4, save_steps=3)
    assert "save every multiple of 4 steps" in caplog.text
    caplog.clear()
    make(tmp_path / "run", tmp_path / "draws.jsonl", steps_per_generation=4, save_steps=8)
    assert "save every" not in caplog.text


def trainer_with(curriculum: Curriculum | None = None, tmp: Path = Path("/nonexistent"), **options: Any) -> Any:
    model, tokenizer = policy()
    settings: dict[str, Any] = {"per_device_train_batch_size": 8, "num_generations": 4, "use_cpu": True, "bf16": False}
    settings |= {"output_dir": str(tmp), "report_to": [], "max_completion_length": 4, **options.pop("args", {})}
    options = {"train_dataset": dataset(), "reward_funcs": [correct], **options}
    return CurriculumGRPOTrainer(
        model, args=GRPOConfig(**settings), processing_class=tokenizer, curriculum=curriculum, **options
    )


def other(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [0.1 for _ in completion_ids]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CuresConfig(prompts_per_step=4, rollouts_per_step=16), "GRPOConfig generates 2 x 4: set prompts_per_step = 2"),
        (CuresConfig(prompts_per_step=2, rollouts_per_step=16), "GRPOConfig generates 2 x 4"),
        (CuresConfig(prompts_per_step=3, rollouts_per_step=8), "do not make 3 equal groups"),
        (CuresConfig(prompts_per_step=2, rollouts_per_step=8, allocation=ScreenAllocation()), "leave it at 'equal'"),
        (DapoConfig(prompts_per_step=1, rollouts_per_step=8, group_size=4), "which dapo does not ask for"),
    ],
)
def test_a_curriculum_that_does_not_fit_is_refused_before_any_work(config: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        trainer_with(Curriculum.from_table(dataset(), config, problem="prompt"))


def test_other_misfits_are_refused_before_any_work() -> None:
    few = Curriculum.from_table(dataset().select(range(9)), seeded(0).config, problem="prompt")
    with pytest.raises(ConfigError, match="the curriculum has 9 prompts, train_dataset 40 rows"):
        trainer_with(few)
    with pytest.raises(ConfigError, match="judge: name the reward function"):
        trainer_with(reward_funcs=[correct, other])
    with pytest.raises(ConfigError, match="no reward function 'wrong'; there are correct, other"):
        trainer_with(reward_funcs=[correct, other], judge="wrong")
    with pytest.raises(ConfigError, match="a stream"):
        trainer_with(train_dataset=dataset().to_iterable_dataset(), args={"max_steps": 1})
    with pytest.raises(ConfigError, match="different ones"):
        trainer_with(train_dataset=dataset().select(range(1)))
    with pytest.raises(ConfigError, match="rows 0 and 40 have the same id"):
        trainer_with(train_dataset=concatenate_datasets([dataset(), dataset()]))


def test_the_column_solution_stands_for_an_answer_that_is_not_there() -> None:
    named = trainer_with(train_dataset=dataset()).curriculum.prompts.ids
    solved = dataset().rename_column("answer", "solution")
    assert trainer_with(train_dataset=solved, reward_funcs=[other]).curriculum.prompts.ids == named
    both = solved.add_column("answer", ["7"] * len(solved))
    assert trainer_with(train_dataset=both, reward_funcs=[other]).curriculum.prompts.ids != named


def test_of_several_rewards_the_judge_is_told(tmp_path: Path) -> None:
    trainer = trainer_with(reward_funcs=[other, correct], judge="correct", tmp=tmp_path, args={"max_steps": 2})
    trainer.train()
    assert trainer.curriculum.counts["correct"] > 0  # `other` is below the threshold for all


def test_a_reward_that_is_no_number_stops_the_training_and_says_which(tmp_path: Path) -> None:
    def infinite(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float("inf") for _ in completion_ids]

    trainer = trainer_with(reward_funcs=[infinite], tmp=tmp_path, args={"max_steps": 2})
    with pytest.raises(CurriculumMisuse, match="the reward inf is not a finite number"):
        trainer.train()


def test_a_checkpoint_without_or_with_a_foreign_or_damaged_state_is_refused(tmp_path: Path) -> None:
    trainer = make(tmp_path / "run", tmp_path / "draws.jsonl", max_steps=1)
    trainer.train()
    checkpoint = tmp_path / "run" / "checkpoint-1"
    config = UniformConfig(prompts_per_step=2, rollouts_per_step=8)
    uniform = Curriculum.from_table(dataset(), config, problem="prompt")
    with pytest.raises(ConfigError, match="the saved state is of the strategy cures"):
        make(tmp_path / "run", tmp_path / "d", curriculum=uniform).train(resume_from_checkpoint=str(checkpoint))
    (checkpoint / STATE).write_bytes((checkpoint / STATE).read_bytes()[:100])
    with pytest.raises(CorruptArtifact):
        make(tmp_path / "run", tmp_path / "d").train(resume_from_checkpoint=str(checkpoint))
    (checkpoint / STATE).unlink()
    with pytest.raises(MissingInput, match="written without a curriculum"):
        make(tmp_path / "run", tmp_path / "d").train(resume_from_checkpoint=str(checkpoint))


def test_columns_that_the_loader_drops_stay_dropped(tmp_path: Path) -> None:
    trainer = trainer_with(reward_funcs=[other], tmp=tmp_path, args={"max_steps": 1, "remove_unused_columns": True})
    seen: list[set[str]] = []
    inner = trainer._drawn
    trainer._drawn = lambda inputs: seen.append(set(inputs[0])) or inner(inputs)
    trainer.train()
    assert seen == [{"prompt"}]
    assert set(trainer.train_dataset.column_names) == {"prompt", "answer", "level"}


def test_without_trl_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from cures_core.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "cures_core.integrations.trl")
    with pytest.raises(MissingExtra, match=r"pip install 'cures\[trl\]'"):
        __import__("cures_core.integrations.trl")


def run(out: Path, launcher: list[str] | None = None, **settings: Any) -> subprocess.CompletedProcess[str]:
    out.mkdir(exist_ok=True)
    command = [*(launcher or [sys.executable]), "-m", "tests.cures_core.integrations.trl_run"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        [*command, str(out), json.dumps(settings)], env=env, capture_output=True, text=True, timeout=500
    )


TWO = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend",
       "c10d", "--rdzv-endpoint", "localhost:0"]  # fmt: skip


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed_it_draws_the_same_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    assert run(tmp_path / "whole").returncode == 0
    assert run(tmp_path / "killed", kill=4).returncode == -9
    assert run(tmp_path / "killed", resume=True).returncode == 0
    whole, killed = (draws(tmp_path / name / "draws-0.jsonl") for name in ("whole", "killed"))
    assert killed == [*whole[:4], *whole[3:]]  # the fourth step was lost with its checkpoint, and done again
    for name in (f"run/checkpoint-6/{STATE}", "final/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


@pytest.mark.slow
def test_two_processes_agree_share_the_draw_and_resume(tmp_path: Path) -> None:
    done = run(tmp_path / "two", TWO)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (draws(tmp_path / "two" / f"draws-{rank}.jsonl") for rank in (0, 1))
    assert len(one) == 6
    assert [d["rows"] for d in one] == [d["rows"] for d in two]
    for left, right in zip(one, two, strict=True):
        assert left["mine"] + right["mine"] == [row for row in left["rows"] for _ in range(4)]
    shutil.copytree(tmp_path / "two" / "run" / "checkpoint-3", tmp_path / "again" / "run" / "checkpoint-3")
    done = run(tmp_path / "again", TWO, resume=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert draws(tmp_path / "again" / "draws-1.jsonl") == two[3:]


@pytest.mark.slow
def test_processes_that_would_draw_differently_are_stopped(tmp_path: Path) -> None:
    done = run(tmp_path / "two", TWO, seeds=[1, 2])
    assert done.returncode != 0
    assert "the processes draw different prompts" in done.stderr


def test_it_costs_little(tmp_path: Path) -> None:
    """Ask and tell, against a step of a policy that is far smaller than any that is worth training."""
    trainer = make(
        tmp_path / "run", tmp_path / "draws.jsonl", max_steps=8, save_strategy="no", max_completion_length=16
    )
    spent = 0.0
    inner = {name: getattr(trainer.curriculum, name) for name in ("ask", "tell", "ready")}

    def timed(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            start = time.process_time()
            try:
                return inner[name](*args, **kwargs)
            finally:
                spent += time.process_time() - start

        return call

    for ask in trainer.curriculum.ask():  # once before: scipy is loaded then
        trainer.curriculum.tell(ask.request_id, correct=1)
    assert trainer.curriculum.ready() is not None
    for name in inner:
        setattr(trainer.curriculum, name, timed(name))
    start = time.process_time()
    trainer.train()
    total = time.process_time() - start
    assert spent < 0.05 * total, f"{spent:.4f} of {total:.4f} s"
    assert len(draws(tmp_path / "draws.jsonl")) == 8
