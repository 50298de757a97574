"""The evaluation job on a tiny policy: what it writes, what that depends on, and what an interruption leaves behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from cures_core.checkpoints.checkpoint import Checkpoint, save_checkpoint
from cures_core.config.evaluation import EvaluatedSuite
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, DataRejected, InjectedFault, MissingInput, Preempted
from cures_core.evaluation.items import ItemResult, read_items, score
from cures_core.evaluation.paired import Evaluated, compare
from cures_core.evaluation.scores import SuiteScore
from cures_core.events import JobEvent, PartDone
from cures_core.jobs import assemble, evaluate
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.policy.characters import character_model, character_tokenizer
from cures_core.policy.loading import Policy, load_policy, save_policy
from cures_core.prompts import PromptSet
from cures_core.prompts.identity import make_prompt
from cures_core.rewards import make_verifier
from cures_core.terms import FinishReason, Request
from tests.own_verifiers import right_by_length

EXAM: dict[str, Any] = {"name": "exam", "path": "exam.jsonl", "samples": 3, "greedy": True}
QUIZ: dict[str, Any] = {"name": "quiz", "path": "quiz.jsonl", "temperature": 0.7, "limit": 5}


class Listener:
    """Stands in for the process that started the job; asks to stop after `patience` events."""

    def __init__(self, patience: int = 1000) -> None:
        self.events: list[JobEvent] = []
        self.patience = patience

    def emit(self, event: JobEvent) -> None:
        self.events.append(event)

    def stop_if_asked(self, done: str) -> None:
        if len(self.events) >= self.patience:
            raise Preempted(f"saved {done}")


def tiny_policy(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    tokenizer = character_tokenizer()
    shape = {"type": "warm-start", "hidden_size": 16, "layers": 1, "heads": 2}
    model = character_model(config([]).policy.model_validate(shape), tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far enough from uniform that greedy, cold and hot completions differ
    return Policy(model, tokenizer, torch.device("cpu"))


def config(suites: Sequence[dict[str, Any]], **changes: Any) -> RunConfig:
    evaluation = {"suites": suites, "resamples": 200, "chunk_prompts": 4, **changes.pop("evaluation", {})}
    values: dict[str, Any] = {
        "data": {"path": "train.jsonl"},
        "rollout": {"max_new_tokens": 8},
        "training": {"learning_rate": 1e-3},
        "reward": {"type": "custom", "function": "tests.own_verifiers:right_by_length"},
        "device": {"type": "cpu"},
        "evaluation": evaluation,
    }
    return RunConfig.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base policy and two suites of 10 and 12 items."""
    folder = tmp_path_factory.mktemp("inputs")
    save_policy(tiny_policy(), folder / "policy")
    (folder / "suites").mkdir()
    for name, first, num in (("exam", 0, 10), ("quiz", 100, 12)):
        numbers = range(first, first + num)
        prompts = [make_prompt(f"{i}+{i % 7}=", str(i % 10), source="made", level=str(i % 2)) for i in numbers]
        PromptSet.of(prompts).write_parquet(folder / "suites" / f"{name}.parquet")
    return folder


class Runner:
    """Runs the job in folders of its own, one for each name."""

    def __init__(self, inputs: Path, folder: Path) -> None:
        self.inputs, self.folder = inputs, folder

    def __call__(
        self,
        name: str,
        suites: Sequence[dict[str, Any]] = (EXAM, QUIZ),
        listener: Listener | None = None,
        checkpoint: Path | None = None,
        suites_folder: Path | None = None,
        **changes: Any,
    ) -> Path:
        job = Job(
            name="evaluate",
            config=config(suites, **changes),
            scratch=self.folder / name / "scratch",
            out=self.folder / name / "out",
            policy=str(self.inputs / "policy"),
            policy_digest="d1gest",
            checkpoint=checkpoint,
            suites=suites_folder or self.inputs / "suites",
        )
        shutil.rmtree(job.out, ignore_errors=True)
        job.out.mkdir(parents=True)
        job.scratch.mkdir(parents=True, exist_ok=True)
        evaluate.run(job, cast(Parent, listener or Listener()))
        return job.out


@pytest.fixture
def run(inputs: Path, tmp_path: Path) -> Runner:
    return Runner(inputs, tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def scores(out: Path) -> dict[str, SuiteScore]:
    return {row["suite"]: SuiteScore.model_validate(row) for row in json.loads((out / "scores.json").read_bytes())}


def test_scores_items_examples_and_figures_agree(run):
    listener = Listener()
    out = run("a", listener=listener)
    found = scores(out)
    assert list(found) == ["exam", "quiz"]
    exam, quiz = read_items(out / "items-exam.parquet"), read_items(out / "items-quiz.parquet")
    assert (len(exam), len(quiz)) == (10, 5)
    assert (found["exam"].n, found["exam"].k, found["quiz"].n, found["quiz"].k) == (10, 3, 5, 1)
    assert found["exam"].avg.value == pytest.approx(sum(i.correct for i in exam) / 30)
    assert 0 < found["exam"].avg.value < 1
    assert found["exam"].greedy is not None
    assert found["exam"].greedy.value == sum(i.greedy for i in exam) / 10
    assert found["quiz"].greedy is None
    assert found["exam"].policy == "d1gest"
    assert set(found["exam"].by_level) == {"0", "1"}
    assert {i.source for i in exam} == {"made"}
    assert found["exam"].unknown_share == pytest.approx(sum(i.unknown for i in exam) / 30)
    assert 0 < found["exam"].truncated_share < 1
    figures = json.loads((out / "figures.json").read_bytes())
    assert figures["rollouts"] == 10 * 3 + 10 + 5
    assert figures["tokens"] > sum(i.tokens for i in [*exam, *quiz])
    assert figures["unknown"] >= sum(i.unknown for i in [*exam, *quiz]) > 0
    assert figures["scores"]["exam"] == {**found["exam"].avg.model_dump(), "n": 10, "k": 3}
    examples = [json.loads(line) for line in (out / "examples.jsonl").read_text().splitlines()]
    assert [e["suite"] for e in examples] == ["exam"] * 10 + ["quiz"] * 5
    assert {e["id"] for e in examples if e["suite"] == "quiz"} == {i.id for i in quiz}
    for example in examples:
        verdict = {"correct": True, "wrong": False}.get(example["outcome"])
        assert right_by_length(example["completion"], example["gold"]) is verdict
    told = [(e.done, e.total) for e in listener.events if isinstance(e, PartDone)]
    assert told == [
        (4, 10),
        (8, 10),
        (10, 10),
    ] * 2 + [(4, 5), (5, 5)]


def test_counts_are_those_of_the_engine_and_the_verifier(run, inputs):
    items = {i.id: i for i in read_items(run("a") / "items-exam.parquet")}
    policy = load_policy(inputs / "policy", torch.device("cpu"))
    prompts = PromptSet.read_parquet(inputs / "suites" / "exam.parquet")
    for mode, num, temperature in (("sampled", 3, 1.0), ("greedy", 1, 0.0)):
        engine = assemble.assemble_engine(
            policy, assemble.evaluation_rollout(config([]), EvaluatedSuite.model_validate(EXAM), temperature)
        )
        seed = evaluate.completion_seed(20_000, "exam", mode)
        with make_verifier(config([]).reward) as verifier:
            for prompt in prompts:
                (rollouts,) = engine.generate([Request("any", prompt, num, seed)])
                verdicts = verifier.judge([(r.text, prompt) for r in rollouts])
                correct = sum(v.outcome == "correct" for v in verdicts)
                assert correct == (items[prompt.id].correct if mode == "sampled" else items[prompt.id].greedy)
                if mode == "sampled":
                    truncated = sum(r.finish_reason is FinishReason.LENGTH for r in rollouts)
                    assert items[prompt.id].truncated == truncated
                    assert items[prompt.id].tokens == sum(len(r.token_ids) for r in rollouts)


def test_interrupted_and_resumed_the_bytes_are_the_same(run, monkeypatch, tmp_path):
    undisturbed = contents(run("a"))
    monkeypatch.setenv("CURES_FAULTS_DIR", str(tmp_path / "faults"))
    monkeypatch.setenv("CURES_FAULTS", "eval.chunk:1=raise")
    with pytest.raises(InjectedFault):
        run("b")
    assert contents(tmp_path / "b" / "out") == {}
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "b" / "scratch").rglob("*.json")}
    assert len(first) == 2
    with pytest.raises(Preempted, match="saved 8 of 10 eval prompts"):
        run("b", listener=Listener(patience=4))
    assert contents(run("b")) == undisturbed
    assert {p: p.stat().st_mtime_ns for p in first} == first


def test_saved_chunks_of_another_size_are_not_mistaken_for_ones_of_this(run, monkeypatch):
    undisturbed = contents(run("a"))
    with pytest.raises(Preempted):
        run("b", listener=Listener(patience=1), evaluation={"chunk_prompts": 3})
    assert contents(run("b", evaluation={"chunk_prompts": 4})) == undisturbed


def test_chunk_size_and_neighbouring_suites_change_nothing(run):
    both, alone = contents(run("a")), contents(run("b", suites=[EXAM], evaluation={"chunk_prompts": 7}))
    assert both["items-exam.parquet"] == alone["items-exam.parquet"]


def test_the_policy_is_loaded_once_for_all_suites(run, monkeypatch):
    loaded = []

    def load(*args: Any) -> Policy:
        loaded.append(args)
        return assemble.assemble_policy(*args)

    monkeypatch.setattr(evaluate, "assemble_policy", load)
    run("a")
    assert len(loaded) == 1


def test_a_checkpoint_is_scored_with_the_same_luck(run, tmp_path, inputs):
    def checkpoint(seed: int) -> Path:
        folder = tmp_path / f"checkpoint-{seed}"
        save_checkpoint(Checkpoint(tiny_policy(seed).trainable(), {}, {}, {"step": 1}), folder)
        return folder

    base, same, other = run("a"), run("b", checkpoint=checkpoint(0)), run("c", checkpoint=checkpoint(1))
    assert contents(same) == contents(base)
    assert contents(other)["items-exam.parquet"] != contents(base)["items-exam.parquet"]
    evaluated = [Evaluated(scores(out)["exam"], read_items(out / "items-exam.parquet")) for out in (other, base)]
    pair = compare(*evaluated, config([]).evaluation)
    assert (pair.n, pair.k) == (10, 3)
    assert pair.better + pair.worse > 0


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"suites": [{**EXAM, "samples": 2}]}, "samples"),
        ({"suites": [{**EXAM, "temperature": 0.1}]}, "temperature"),
        ({"suites": [{**EXAM, "greedy": False}]}, "greedy"),
        ({"suites": [{**EXAM, "limit": 6}]}, "suite_digest"),
        ({"evaluation": {"seed": 1}}, "seed"),
        ({"rollout": {"max_new_tokens": 5}}, "max_new_tokens"),
        ({"rollout": {"max_new_tokens": 8, "top_p": 0.2}}, "rollout.top_p"),
        ({"rollout": {"max_new_tokens": 8, "prompt_format": {"stop": ["="]}}}, "prompt_format.stop"),
        ({"reward": {"type": "exact"}}, "reward.type"),
        ({"suites": [{**EXAM, "reward": {"type": "exact"}}]}, "reward.type"),
        ({"suites": [{**EXAM, "max_new_tokens": 5}]}, "max_new_tokens"),
        ({"suites": [{**EXAM, "prompt_format": {"stop": ["="]}}]}, "prompt_format.stop"),
    ],
)
def test_each_setting_changes_the_items_and_is_told(run, change, setting):
    base, other = run("a", suites=[EXAM]), run("b", **{"suites": [EXAM], **change})
    assert contents(other)["items-exam.parquet"] != contents(base)["items-exam.parquet"]
    ours, theirs = scores(base)["exam"].settings, scores(other)["exam"].settings
    differing = {name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}
    own_code = {"reward.function", "reward.function (code)"}  # of the verifier that the other one takes the place of
    assert differing == ({setting} if setting != "reward.type" else {setting, *own_code})


def test_interval_settings_change_the_scores_and_are_told(run):
    base = scores(run("a", suites=[EXAM]))["exam"]
    for setting, value in (("confidence", 0.6), ("resamples", 150)):
        other = scores(run(setting, suites=[EXAM], evaluation={setting: value}))["exam"]
        assert other.settings[setting] == value
    assert scores(run("confidence", suites=[EXAM], evaluation={"confidence": 0.6}))["exam"].avg != base.avg


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        ({"type": "exact"}, False),
        ({"type": "math"}, True),
        ({"type": "weighted", "answer": {"type": "math"}, "format": [{"type": "box", "weight": 0.1}]}, True),
        ({"type": "exact", "by_source": [{"sources": ["a"], "verifier": {"type": "math"}}]}, True),
        ({"type": "exact", "by_source": [{"sources": ["a"], "verifier": {"type": "choice"}}]}, False),
    ],
)
def test_a_score_tells_the_version_of_math_verify_where_that_judges(reward, told):
    cfg = config([EXAM], reward=reward)
    suite, prompts = cfg.evaluation.suites[0], PromptSet.of([make_prompt("1+1=", "2")])
    items = [ItemResult(prompts.ids[0], "", "", 1, 0, 3, 0, 3, 1)]
    found = score(items, suite, cfg.evaluation, evaluate.comparison_settings(cfg, suite, prompts))
    assert ("math-verify" in found.settings) is told


def test_a_limit_takes_the_same_items_whatever_the_rest_is():
    prompts = [make_prompt(f"{i}=", "1") for i in range(200)]
    suite = PromptSet.of(prompts)
    ten, twenty = evaluate.chosen(suite, 10).ids, evaluate.chosen(suite, 20).ids
    assert len(ten) == 10
    assert set(ten) < set(twenty)
    assert ten != suite.ids[:10]
    assert evaluate.chosen(PromptSet.of(prompts[::-1]), 10).ids == ten
    without = PromptSet.of([p for p in prompts if p.id != ten[0]])
    assert set(ten[1:]) < set(evaluate.chosen(without, 10).ids)
    assert evaluate.chosen(suite, 1000).ids == evaluate.chosen(suite, None).ids == suite.ids


def test_suites_and_modes_have_seeds_of_their_own():
    seeds = {evaluate.completion_seed(s, suite, m) for s in (0, 1) for suite in "ab" for m in ("sampled", "greedy")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_missing_and_empty_suites_are_told(run, tmp_path, inputs, monkeypatch):
    monkeypatch.setattr(evaluate, "load_checkpoint", None)  # a missing suite is told before anything is loaded
    with pytest.raises(MissingInput, match=r"other\.parquet: no such prompt set"):
        run("a", suites=[{**EXAM, "name": "other"}], checkpoint=tmp_path)
    (tmp_path / "suites").mkdir()
    PromptSet.of([]).write_parquet(tmp_path / "suites" / "exam.parquet")
    with pytest.raises(DataRejected, match="suite exam holds no item"):
        run("b", suites=[EXAM], suites_folder=tmp_path / "suites")
    job = Job(name="evaluate", config=config([EXAM]), scratch=tmp_path, out=tmp_path)
    with pytest.raises(ConfigError, match="folder of the suites"):
        evaluate.run(job, cast(Parent, Listener()))


def test_a_score_names_the_packages_that_answer_and_judge(run, monkeypatch):
    monkeypatch.setattr(assemble, "_installed", lambda names: f"of {names[0]}")
    found = scores(run("plain"))["exam"].made_with
    for name in ("adapters", "judged"):  # so nothing is generated there
        shutil.copytree(run.folder / "plain" / "scratch", run.folder / name / "scratch")
    adapters = scores(run("adapters", training={"learning_rate": 1e-3, "lora": {}}))
    assert adapters["exam"].made_with == {**found, "peft": "of peft"}
    exam = {**EXAM, "reward": {"type": "reasoning_gym"}}
    gym = scores(run("judged", [exam, QUIZ]))
    assert gym["exam"].made_with == {**found, "reasoning-gym": "of reasoning-gym"}
    assert gym["quiz"].made_with == found


def test_rows_that_are_there_are_scored_without_loading_the_policy(run, monkeypatch, tmp_path):
    first = run("a")
    shutil.copytree(tmp_path / "a" / "scratch" / "rows", tmp_path / "b" / "scratch" / "rows")
    monkeypatch.setattr(evaluate, "assemble_policy", None)
    listener = Listener()
    assert contents(run("b", listener=listener)) == contents(first)
    assert listener.events == []
    assert scores(run("b", evaluation={"confidence": 0.6}))["exam"].avg != scores(first)["exam"].avg
    evaluate.rows_file(tmp_path / "b" / "scratch", "quiz").unlink()
    with pytest.raises(TypeError):  # the other suite needs the policy
        run("b")


def test_the_vote_follows_from_the_completions(run):
    exam = scores(run("a"))["exam"]
    items = read_items(run("a") / "items-exam.parquet")
    assert exam.majority.value == pytest.approx(sum(i.majority for i in items) / 10)
    assert all(i.majority == 1 for i in items if i.correct == 3)
    assert all(i.majority == 0 for i in items if i.correct == 0)
    assert any(0 < i.correct < 3 for i in items)


def test_the_wrong_answer_that_most_agree_on_is_kept(run):
    items = read_items(run("a", reward={"type": "exact"}, suites=[{**EXAM, "temperature": 0.2}]) / "items-exam.parquet")
    assert all((i.rival_votes > 0) == bool(i.rival) for i in items)
    assert {i.rival_votes for i in items} > {2, 3}
