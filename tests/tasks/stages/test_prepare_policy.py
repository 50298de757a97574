"""The base policy as a stage: what it is made of is in its key, and its files go where later stages look for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cures_core.config.policy import PretrainedPolicy, WarmStartPolicy
from cures_core.config.run import RunConfig
from cures_core.config.training import LoraConfig
from cures_core.errors import DataRejected, MissingInput
from cures_core.jobs import warm_start
from cures_core.jobs.spec import Job
from cures_core.policy.characters import character_model
from cures_core.policy.loading import Policy, load_policy, save_policy
from tasks.inputs.digests import policy_files
from tasks.readiness import check_run
from tasks.runs.figures import PolicyFigures
from tasks.runs.opening import identify, open_run
from tasks.runs.reading import RunRecords
from tasks.runs.records import Record
from tasks.runs.training import spent
from tasks.stages import prepare_policy as module
from tasks.stages.report import _taught, _warm_start
from tasks.storage import open_store
from tests.cures_core.policy.test_supervised import FakeParent
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama
from tests.tasks.stages.starts import config_in

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    save_policy(Policy(tiny_llama(), character_tokenizer(), CPU), folder / "base")
    lora = LoraConfig(rank=2, alpha=8, targets=("q_proj",))
    load_policy(folder / "base", CPU, lora=lora).model.save_pretrained(folder / "adapters")
    return folder


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were run, in this process."""
    ran: list[Job] = []

    def run_job(job: Job) -> None:
        ran.append(job)
        warm_start.run(job, FakeParent())  # type: ignore[arg-type]

    monkeypatch.setattr(module, "run_job", run_job)
    return ran


def solutions(folder: Path, name: str = "solutions.jsonl", num: int = 20) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"problem": f"{i}+1", "solution": f"{i} and 1"}) + "\n" for i in range(num)))
    return path


def config(folder: Path, path: Path, **policy: Any) -> RunConfig:
    plain = config_in(folder, 1e-4).model_dump()
    fields = {"type": "pretrained", "path": str(path), **policy}
    return RunConfig.model_validate({**plain, "policy": fields, "device": {"type": "cpu"}})


def prepared(cfg: RunConfig) -> tuple[Record[PolicyFigures], Path]:
    with open_run(cfg) as run:
        record = module.prepare_policy.__wrapped__(run)  # type: ignore[attr-defined]
        return record, module.policy_folder(run, record)


def test_a_warm_start_is_made_once_and_used(policies: Path, jobs: list[Job], tmp_path: Path) -> None:
    path = solutions(tmp_path)
    cfg = config(tmp_path, policies / "base", warm_start={"path": str(path), "batch_tokens": 60})
    record, folder = prepared(cfg)
    assert (record.figures.taught, record.figures.rows, record.figures.left_out) == (20, 20, {})
    assert record.figures.steps > 1
    assert folder != policies / "base"
    assert load_policy(folder, CPU).model.config.model_type == "llama"
    again, same = prepared(cfg)
    assert (again.id, same, len(jobs)) == (record.id, folder, 1)
    rows = _warm_start(open_store(cfg.store), record)
    assert [row["step"] for row in rows] == list(range(1, int(record.figures.steps) + 1))
    assert "20 of 20 worked solutions were taught first" in _taught(record)[0]
    records = RunRecords(None, record, None, {}, {}, {}, None)
    assert spent(records)["warm_start"].tokens == record.figures.tokens > 0


def test_what_is_taught_is_in_the_key(policies: Path, jobs: list[Job], tmp_path: Path) -> None:
    """Other rows, other settings, another way to ask: another policy. Where the file lies does not matter."""
    path = solutions(tmp_path)

    def made(rows: Path, rollout: dict[str, Any] | None = None, **options: Any) -> str:
        warm = {"path": str(rows), "batch_tokens": 200, **options}
        cfg = config(tmp_path, policies / "base", warm_start=warm)
        cfg = RunConfig.model_validate({**cfg.model_dump(), "rollout": rollout or {"max_new_tokens": 8}})
        return prepared(cfg)[0].key

    first = made(path)
    moved = solutions(tmp_path, "moved.jsonl")
    assert made(moved) == first
    assert made(path, micro_batch_tokens=64, checkpoint_every=1) == first
    assert made(path, {"max_new_tokens": 16}) == first
    assert len(jobs) == 1
    template = {"max_new_tokens": 8, "prompt_format": {"template": "ask {problem}"}}
    keys = [made(path, learning_rate=1e-4), made(path, template), made(solutions(tmp_path, "few.jsonl", 19))]
    assert len({first, *keys}) == len(jobs) == 4


def test_a_run_is_named_after_the_solutions(policies: Path, tmp_path: Path) -> None:
    path = solutions(tmp_path)
    cfg = config(tmp_path, policies / "base", warm_start={"path": str(path)})
    before = identify(cfg).name
    solutions(tmp_path, num=19)
    assert identify(cfg).name != before
    assert identify(config(tmp_path, policies / "base")).name != before


def test_the_prompt_set_may_bring_the_solutions_itself(policies: Path, jobs: list[Job], tmp_path: Path) -> None:
    cfg = config(tmp_path, policies / "base", warm_start={})
    rows = [{"problem": f"{i}+1", "answer": "2", "solution": "so 2"} for i in range(9)]
    Path(cfg.data.path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert prepared(cfg)[0].figures.taught == 9


def test_rows_that_cannot_be_taught_stop_the_stage(policies: Path, jobs: list[Job], tmp_path: Path) -> None:
    cfg = config(tmp_path, policies / "base", warm_start={"path": str(solutions(tmp_path)), "max_tokens": 5})
    with pytest.raises(DataRejected, match=r"20 rows left out: more tokens than policy\.warm_start\.max_tokens"):
        prepared(cfg)


def test_solutions_must_fit_into_the_context_whatever_config_json_calls_it(jobs: list[Job], tmp_path: Path) -> None:
    """GPT-2's says n_positions."""
    small = WarmStartPolicy(hidden_size=16, layers=1, heads=1)
    tokenizer = character_tokenizer()
    save_policy(Policy(character_model(small, tokenizer, positions=12), tokenizer, CPU), tmp_path / "gpt2")
    path = tmp_path / "solutions.jsonl"
    rows = [{"problem": "1+1", "solution": "2" * n} for n in (3, 8, 9)]  # and the end token
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    warm_start = {"path": str(path), "max_reject_share": 0.5}
    record, _ = prepared(config(tmp_path, tmp_path / "gpt2", warm_start=warm_start))
    assert (record.figures.taught, record.figures.left_out) == (2, {"too_long": 1})


def test_a_check_names_the_columns_and_misses_the_file(policies: Path, tmp_path: Path) -> None:
    def looked_at(path: Path) -> Any:
        cfg = config(tmp_path, policies / "base", warm_start={"path": str(path)})
        return next(one for one in check_run(cfg) if one.finding.name == "warm start")

    found = looked_at(solutions(tmp_path))
    assert found.error is None
    assert "problem from problem, solution from solution" in found.finding.found
    assert isinstance(looked_at(tmp_path / "gone.jsonl").error, MissingInput)


def test_the_key_of_merged_adapters_is_that_of_earlier_versions(
    policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(module, "run_stage", lambda _, __, ___, inputs, *____: found.append(inputs))
    for dtype in ("float32", "bfloat16"):
        with open_run(config(tmp_path, policies / "adapters", dtype=dtype)) as run:
            module.prepare_policy.__wrapped__(run)  # type: ignore[attr-defined]
        assert found[-1] == {"digest": found[-1]["digest"], "merged": True, "dtype": dtype}


def test_the_base_of_adapters_is_that_of_the_revision_which_keys_hold(
    policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name alone a job would load the hub's default branch."""

    def fetched(name: str, *file: str, revision: str | None, **_: Any) -> str:
        assert (name, revision) == ("org/m", "abc")
        return str(Path(policies, "base", *file))

    def never(*_: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetched)
    monkeypatch.setattr("tasks.stages.job_process.start_job", never)
    here, hub = (config(tmp_path, policies / "adapters", base=base, revision="abc") for base in (None, "org/m"))
    assert policy_files(identify(here).inputs) == policy_files(identify(hub).inputs)
    (looked_at,) = (one for one in check_run(hub) if one.finding.name == "policy")
    assert looked_at.error is None
    with pytest.raises(NotImplementedError):
        prepared(hub)  # the base is whole
    (spec,) = Path(hub.store.url).rglob("job.json")
    job = Job.model_validate_json(spec.read_bytes())
    assert isinstance(job.config.policy, PretrainedPolicy)
    assert (job.policy, job.config.policy.base) == (str(policies / "adapters"), str(policies / "base"))


def test_adapters_are_merged_once_or_continued_where_they_are(policies: Path, jobs: list[Job], tmp_path: Path) -> None:
    cfg = config(tmp_path, policies / "adapters")
    record, folder = prepared(cfg)
    assert (prepared(cfg)[0].id, len(jobs)) == (record.id, 1)
    assert (folder / "model.safetensors").exists()
    lora = {"rank": 2, "alpha": 8, "targets": ("q_proj",)}
    plain = config(tmp_path, policies / "adapters").model_dump()
    plain["policy"]["adapters"], plain["training"]["lora"] = "continue", lora
    continued, place = prepared(RunConfig.model_validate(plain))
    assert (place, len(jobs)) == (policies / "adapters", 1)
    assert continued.figures.digest != record.figures.digest
