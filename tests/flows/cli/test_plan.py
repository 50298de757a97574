"""`cures plan` on the shipped profiles, its errors, and its figures beside those of a run."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cures_core.config.evaluation import EvaluationConfig
from cures_core.config.loading import load_config
from cures_core.config.run import RunConfig
from cures_core.errors import DataRejected
from tasks import planning
from tasks.planning import plan
from tests.end_to_end.pipeline import PROJECT, Outcome, cures, write_profile

ROWS = {
    "data": 57_000,
    "math500": 500,
    "gsm8k": 1319,
    "gaokao2023en": 385,
    "minerva": 272,
    "olympiadbench": 675,
    "aime24": 30,
    "aime25": 30,
    "amc23": 40,
}


def plan_of_paper(name: str, folder: Path, **rows: int) -> Outcome:
    configs = PROJECT / "configs"
    told = ",".join(f"{suite}={number}" for suite, number in {**ROWS, **rows}.items())
    files = ("--config", configs / f"{name}.toml", "--architecture", configs / "architectures" / f"{name}.json")
    return cures("plan", *files, "--rows", told, "--json", cwd=folder)


@pytest.mark.parametrize("name", ["qwen2.5-math-1.5b", pytest.param("qwen2.5-math-7b", marks=pytest.mark.slow)])
def test_the_profiles_of_the_paper_fit_their_gpus(name: str, tmp_path: Path) -> None:
    outcome = plan_of_paper(name, tmp_path)
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["rollouts"]["training"] == 150 * 8192
    assert found["tokens_at_most"]["training"] == 150 * 8192 * 3072
    assert found["rollouts"]["evaluation"] == 2 * (500 + 1319 + 385 + 4 * (272 + 675) + 16 * (30 + 30 + 40))
    assert (found["ranks"], found["longest_sequence"], len(found["rows"])) == (8, 4096, 9)
    assert found["memory_per_rank"]["peak"] < 78 * 2**30
    assert found["seconds"] is None


def test_what_is_not_there_is_told_with_its_remedy(tmp_path: Path) -> None:
    config = PROJECT / "configs" / "qwen2.5-math-1.5b.toml"
    for arguments, code, words in [
        ((), 2, ["data/numinamath/train.jsonl", "--rows data=N"]),
        (("--rows", "data=5"), 2, ["data/suites/math500.jsonl", "--rows math500=N"]),
        (("--rows", "wrong=5"), 2, ["wrong", "math500"]),
        (("--rows", "data"), 2, ["NAME=N"]),
        (("--rows", ",".join(f"{name}={n}" for name, n in ROWS.items())), 2, ["--architecture", "config.json"]),
    ]:
        outcome = cures("plan", "--config", config, *arguments, cwd=tmp_path)
        assert outcome.code == code, outcome
        assert all(word in outcome.err for word in words), outcome.err


@pytest.mark.parametrize("empty", ["train", "exam"])
def test_a_file_without_a_prompt_is_told_as_when_a_run_reads_it(
    empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "run_job", lambda *_: pytest.fail("it is measured"))
    for name in ("train", "exam"):
        Path(f"{name}.jsonl").write_text("" if name == empty else '{"problem": "1+1", "answer": "2"}\n')
    cfg = RunConfig.model_validate(
        {
            "data": {"path": "train.jsonl"},
            "rollout": {"max_new_tokens": 8},
            "training": {"learning_rate": 1e-3},
            "evaluation": {"suites": [{"name": "exam", "path": "exam.jsonl"}]},
        }
    )
    with pytest.raises(DataRejected, match=rf"{empty}\.jsonl: no rows"):
        plan(cfg, {}, measured=True)


@pytest.mark.end_to_end
def test_a_plan_agrees_with_the_run_that_follows(tmp_path: Path) -> None:
    profile = write_profile(tmp_path)
    measured = json.loads(cures("plan", "--config", profile, "--measure", "--json", cwd=tmp_path).out)
    run = cures("run", "--config", profile, "--json", cwd=tmp_path)
    assert run.code == 0, run.err
    after = json.loads(cures("plan", "--config", profile, "--json", cwd=tmp_path).out)
    done = run.summary["rollouts"]
    for planned in (measured, after):
        assert planned["rollouts"] == {
            "prior": done["prior"],
            "training": done["train"],
            "evaluation": done["eval"],
            "total": sum(done.values()),
        }
        assert 0 < planned["tokens"]["total"] <= planned["tokens_at_most"]["total"]
    assert after["source"] == f"run {run.summary['run']}"
    assert 0 < after["seconds"]["total"] < run.summary["seconds"]
    taken, before = measured["measured_bytes"]["process_peak"], measured["measured_bytes"]["process_before"]
    assert before + measured["memory_per_rank"]["peak"] == pytest.approx(taken, rel=0.25)
    text = cures("plan", "--config", profile, cwd=tmp_path).out
    assert f"as in run {run.summary['run']}" in text
    assert "GiB" in text or "MiB" in text


def tiny_qwen2(folder: Path) -> Path:
    """A random Qwen2 with a tokenizer of characters, in Hugging Face format."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from cures_core.policy.characters import character_tokenizer

    symbols = "".join(sorted({chr(i) for i in range(32, 127)} | {"\n"}))
    tokenizer = character_tokenizer(symbols)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}  # of 32: the least that vLLM's CPU build computes
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    model: Any = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **sizes, **heads, **ends))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def inline(value: Any) -> str:
    """A value in TOML on one line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}={inline(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


def on_one_core(profile: dict[str, Any]) -> dict[str, Any]:
    """Engine hf and trainer torch in place of what needs a GPU to be quick."""
    training = profile["training"] | {"type": "torch", "micro_batch_tokens": 2048}
    for key in ("processes", "zero_stage", "wait_timeout_s"):
        del training[key]
    rollout = {"type": "hf", "max_new_tokens": 8, "prompt_format": profile["rollout"]["prompt_format"]}
    return {"rollout": rollout, "training": training}


def as_shipped(profile: dict[str, Any]) -> dict[str, Any]:
    """vLLM and DeepSpeed with the settings of the profile, but for two processes and short answers."""
    pytest.importorskip("vllm")
    pytest.importorskip("deepspeed")
    rollout = profile["rollout"] | {"max_new_tokens": 8, "kv_cache_gib": 1}
    return {"rollout": rollout, "training": profile["training"] | {"processes": 2}}


@pytest.mark.end_to_end
@pytest.mark.parametrize("engines", [on_one_core, pytest.param(as_shipped, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["qwen2.5-math-1.5b", "qwen2.5-math-7b"])
def test_a_dry_run_of_the_paper_with_a_tiny_model_of_the_same_family(
    name: str, engines: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    path = PROJECT / "configs" / f"{name}.toml"
    profile = tomllib.loads(path.read_text())
    problems = [(f"What is {i} + {i % 7}?", str(i + i % 7)) for i in range(100, 140)]
    rows = [{"problem": p, "solution": f"We add. The answer is \\boxed{{{a}}}.", "source": "sums"} for p, a in problems]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = [f"data.path={tmp_path}/train.jsonl"]
    for i, suite in enumerate(profile["evaluation"]["suites"]):
        mark = "#### " if "gsm8k" in suite["include"] else ""
        exam = [{"problem": f"What is {i}{k} - {k}?", "answer": f"{mark}{int(f'{i}{k}') - k}"} for k in range(1, 4)]
        (tmp_path / f"suite{i}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in exam))
        sets += [f"evaluation.suites.{i}.path={tmp_path}/suite{i}.jsonl", f"evaluation.suites.{i}.max_new_tokens=8"]
    sets += [f"{part}={inline(settings)}" for part, settings in engines(profile).items()]
    sets += [
        f"policy.path={tiny_qwen2(tmp_path / 'model')}",
        "curriculum.prompts_per_step=4",
        "curriculum.rollouts_per_step=32",
        "prior.budget=16",
        "epochs=2",
        "steps_per_epoch=1",
        "device.type=cpu",
    ]
    told = [part for setting in sets for part in ("--set", setting)]
    run = cures("run", "--config", path, *told, "--json", cwd=tmp_path, timeout=1800)
    assert run.code == 0, run.err
    assert [score["suite"] for score in run.summary["scores"]] == [s for s in ROWS if s != "data"]
    plan = cures("plan", "--config", path, *told, "--json", cwd=tmp_path)
    assert plan.code == 0, plan.err
    found = json.loads(plan.out)
    done = run.summary["rollouts"]
    assert [found["rollouts"][part] for part in ("prior", "training", "evaluation")] == [
        done[part] for part in ("prior", "train", "eval")
    ]
    assert found["policy"]["architecture"] == "Qwen2ForCausalLM"
    assert found["source"] == f"run {run.summary['run']}"


def test_sequences_are_as_long_as_the_prompts_not_as_the_models_context(tmp_path: Path) -> None:
    path, configs = tmp_path / "problems.jsonl", PROJECT / "configs"
    path.write_text("".join(json.dumps({"problem": "é" * n, "answer": "1"}) + "\n" for n in (10, 200)))
    settings = [f"data.path={path}", "data.answer_rule=field", "rollout.max_new_tokens=100"]
    cfg = load_config(configs / "qwen2.5-math-1.5b.toml", settings)
    cfg = cfg.model_copy(update={"evaluation": EvaluationConfig()})
    for longest, of_problems in ((400, None), (50, 50)):
        cut = cfg.model_copy(update={"data": cfg.data.model_copy(update={"max_problem_tokens": of_problems})})
        found = plan(cut, {}, configs / "architectures" / "qwen2.5-math-1.5b.json")
        assert found["longest_sequence"] == longest + 64 + 100
