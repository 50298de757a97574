"""Going on with a run: what may change, what may not, and what a fork takes over."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cures_core.checkpoints.checkpoint import load_checkpoint
from cures_core.config.evaluation import EvaluatedSuite, EvaluationConfig
from cures_core.config.loading import load_config
from cures_core.config.marks import changes
from cures_core.config.run import RunConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, CorruptArtifact, InjectedFault, LeaseHeld, TrainingDiverged
from cures_core.events import JobEvent
from cures_core.files import canonical_json, digest_file
from cures_core.jobs.scene import scene_of
from cures_core.jobs.spec import Job
from cures_core.manifest import write_manifest
from tasks.runs.aside import set_place_aside
from tasks.runs.figures import ValidateFigures
from tasks.runs.notes import changes_of, read_started, run_overview, stage_record
from tasks.runs.opening import identify, open_run, started_config
from tasks.runs.records import Record, files_of
from tasks.runs.resume import resumed_config
from tasks.runs.verify import verify
from tasks.stages.estimate_prior import estimate_prior
from tasks.stages.prepare_policy import prepare_policy
from tasks.stages.train_epoch import train_epoch
from tasks.stages.unfinished import keep_beginning
from tasks.stages.validate_dataset import validate_dataset
from tasks.storage import Store, open_store
from tests.cures_core.prompts.files import jsonl

PROFILE = """
name = "tiny"
seed = 3
epochs = 2
steps_per_epoch = 3
[data]
path = "set.jsonl"
[policy]
type = "warm-start"
hidden_size = 32
layers = 1
heads = 2
steps = 30
batch = 16
[rollout]
type = "hf"
max_new_tokens = 4
[reward]
type = "custom"
function = "mine:has_a_low_digit"
[prior]
type = "none"
[curriculum]
type = "uniform"
prompts_per_step = 6
rollouts_per_step = 36
[training]
learning_rate = 1e-3
solved_advantage = 1.0
[device]
type = "cpu"
[[evaluation.suites]]
name = "exam"
path = "exam.jsonl"
"""
REWARD = """
def has_a_low_digit(completion: str, gold: str) -> bool:
    return any(c in completion for c in "0123")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with prompts, a suite, a reward and a profile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setenv("CURES_PLUGINS", "mine")
    for name in ("prepare_policy", "estimate_prior", "train_epoch"):
        monkeypatch.setattr(importlib.import_module(f"tasks.stages.{name}"), "run_job", run_here)
    for name, numbers in (("set", range(10, 50)), ("exam", range(60, 80))):
        jsonl(tmp_path / f"{name}.jsonl", ({"problem": f"{i}+1=", "answer": str(i + 1)} for i in numbers))
    (tmp_path / "mine.py").write_text(REWARD)
    (tmp_path / "tiny.toml").write_text(PROFILE)
    return tmp_path


def profile(overrides: Sequence[str] = ()) -> RunConfig:
    return load_config(Path("tiny.toml"), overrides)


def begun(overrides: Sequence[str] = ()) -> str:
    """The name of a run that has been started, and has done nothing yet."""
    with open_run(profile(overrides)) as run:
        return run.name


def test_operations_and_placements_change_under_a_run_and_are_noted(folder: Path) -> None:
    name = begun()
    (folder / "set.jsonl").rename(folder / "moved.jsonl")
    settings = ["training.micro_batch_tokens=128", "data.path=moved.jsonl", "evaluation.sharding.shards=2"]
    config = resumed_config(StoreConfig(), name, settings)
    assert (config.training.micro_batch_tokens, config.fork) == (128, None)
    with open_run(config) as run:
        assert run.name == name
    store = open_store(config.store)
    (change,) = changes_of(store, name)
    assert change.settings == {
        "data.path": ("set.jsonl", "moved.jsonl"),
        "training.micro_batch_tokens": (16384, 128),
        "evaluation.sharding.shards": (1, 2),
    }
    assert started_config(store, name) == resumed_config(StoreConfig(), name) == config
    assert run_overview(store, name).status == "completed"


def test_a_run_whose_judge_is_slow_goes_on_with_more_patience(folder: Path) -> None:
    """Unlike the time that another verifier gives to a completion, which its verdict may depend on."""
    judge, code = '{type = "judge", url = "http://127.0.0.1:1/v1", model = "m"}', '{type = "code"}'
    name = begun([f"reward={judge}"])
    config = resumed_config(StoreConfig(), name, ["reward.timeout_s=180", "reward.retries=9"])
    assert config.fork is None
    assert identify(config).name == name
    with pytest.raises(ConfigError, match=r"reward\.timeout_s: cannot change while run"):
        resumed_config(StoreConfig(), begun([f"reward={code}"]), ["reward.timeout_s=180"])


def test_what_does_not_change_is_not_noted(folder: Path) -> None:
    name = begun()
    with open_run(resumed_config(StoreConfig(), name)) as run:
        assert changes_of(open_store(run.config.store), name) == []


def test_the_store_that_is_named_keeps_the_rest_of_its_settings(folder: Path) -> None:
    name = begun(["store.lease_ttl_s=7.5"])
    (folder / ".cures").rename(folder / "elsewhere")
    assert resumed_config(StoreConfig(url="elsewhere"), name).store == StoreConfig(url="elsewhere", lease_ttl_s=7.5)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("name=other", "is called after it"),
        ("seed=4", "seed: cannot change .* start a new run"),
        ("data.answer_rule=boxed", "data.answer_rule: cannot change"),
        ("policy.layers=2", "policy.layers: cannot change"),
        ("steps_per_epoch=5", "steps_per_epoch: cannot change"),
        ("reward.function=mine:other", "reward.function: cannot change"),
        ("device.threads=2", "device.threads: cannot change"),
        ("evaluation.suites.0.samples=3", "validated together with the prompts"),
        ("training.lora.rank=4", "weights would not fit"),
        ("training.master_weights=false", "optimizer's state would not fit"),
        ("training.loss=dapo", "set what it stands for"),
        (
            'curriculum={type = "dapo", prompts_per_step = 4, rollouts_per_step = 36}',
            "of one strategy is none of another",
        ),
        ("curriculum.posterior.fading=0.5", "counted under it"),
        ("fork.run=other", "fork"),
        ("training.learnig_rate=1", "no such key"),
    ],
)
def test_what_cannot_change_is_told_before_any_work(setting: str, words: str, folder: Path) -> None:
    name = begun()
    with pytest.raises(ConfigError, match=words):
        resumed_config(StoreConfig(), name, [setting])


VLLM = '{type = "vllm", max_new_tokens = 4}'
SERVERS = '{type = "vllm_server", max_new_tokens = 4, endpoints = ["http://127.0.0.1:8000"]}'


@pytest.mark.parametrize(
    ("job", "settings", "proposed"),
    [
        ("epoch", [], ["training.micro_batch_tokens", "rollout.batch_rows"]),
        ("epoch", ["rollout.batch_rows=1"], ["training.micro_batch_tokens"]),
        ("epoch", ["rollout.batch_rows=1", "training.micro_batch_tokens=64"], []),
        ("measure", ["training.micro_batch_tokens=100"], ["training.micro_batch_tokens", "rollout.batch_rows"]),
        ("evaluate", [], ["rollout.batch_rows"]),
        ("evaluate", [f"rollout={VLLM}"], []),
        ("evaluate", [f"rollout={VLLM}", "rollout.kv_cache_gib=3"], ["rollout.kv_cache_gib"]),
        ("epoch", [f"rollout={SERVERS}"], ["training.micro_batch_tokens"]),
    ],
)
def test_what_is_advised_where_memory_ran_out_can_be_done(
    job: Any, settings: list[str], proposed: list[str], folder: Path
) -> None:
    """Typed as it stands in the message: the run takes it, and something is less than it was."""
    name = begun(settings)
    config = started_config(open_store(StoreConfig()), name)
    said = scene_of(Job(name=job, config=config, scratch=folder, out=folder)).less_memory
    advised = re.findall(r"--set (\S+)", said)
    assert [setting.partition("=")[0] for setting in advised] == proposed
    assert said.startswith("cures run --resume RUN ") == bool(proposed)
    assert advised or "more memory" in said
    for setting in advised:
        (change,) = changes(config, resumed_config(StoreConfig(), name, [setting]))
        assert int(change.after) < int(change.before)


@pytest.mark.parametrize(
    ("settings", "proposed"), [([], ["policy.batch=8"]), (["policy.batch=1"], ["policy.layers", "policy.hidden_size"])]
)
def test_a_warm_start_without_memory_is_begun_anew_with_less(
    settings: list[str], proposed: list[str], folder: Path
) -> None:
    job = Job(name="warm_start", config=profile(settings), scratch=folder, out=folder)
    said = scene_of(job).less_memory
    assert all(f"{'--set ' if '=' in setting else ''}{setting}" in said for setting in proposed)
    assert all(load_config(Path("tiny.toml"), [setting]) for setting in re.findall(r"--set (\S+)", said))


def test_an_input_that_changed_is_named_with_both_digests(folder: Path) -> None:
    name = begun()
    before = {path: digest_file(folder / path)[:12] for path in ("set.jsonl", "exam.jsonl", "mine.py")}
    for path, setting, called in (
        ("exam.jsonl", "evaluation.suites.exam.path", r"exam\.jsonl"),
        ("mine.py", "reward.function", "mine:has_a_low_digit"),
        ("set.jsonl", "data.path", r"set\.jsonl"),
    ):
        text = (folder / path).read_text()
        (folder / path).write_text(f"{text}\n")
        now = digest_file(folder / path)[:12]
        words = rf"{called} has changed since run {name} .*\({setting}: {before[path]} then, {now} now\)\. Restore it"
        with pytest.raises(ConfigError, match=words):
            resumed_config(StoreConfig(), name)
        assert identify(profile()).name != name  # the same command is another run
        (folder / path).write_text(text)
        assert resumed_config(StoreConfig(), name).name == "tiny"
    assert read_started(open_store(StoreConfig()), name).inputs.keys() == {
        "data.path",
        "evaluation.suites.exam.path",
        "reward.function",
    }


def pretrained(folder: Path, *more: str) -> list[str]:
    (folder / "model").mkdir(exist_ok=True)
    for file in ("config.json", "model.safetensors", *more):
        (folder / "model" / file).write_text(file)
    return ['policy={type = "pretrained", path = "model"}']


def test_the_files_of_a_policy_are_inputs(folder: Path) -> None:
    name = begun(pretrained(folder))
    (folder / "model" / ".cache").mkdir()
    (folder / "model" / ".cache" / "lock").touch()  # nothing that a policy is made of
    assert resumed_config(StoreConfig(), name).policy.type == "pretrained"
    (folder / "model" / "model.safetensors").write_text("other")
    with pytest.raises(ConfigError, match=r"model/model\.safetensors has changed"):
        resumed_config(StoreConfig(), name)
    pretrained(folder, "extra.json")
    with pytest.raises(ConfigError, match=r"model/extra\.json has changed .* absent then"):
        resumed_config(StoreConfig(), name)
    (folder / "model" / "extra.json").unlink()
    (folder / "model" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"model/config\.json has changed .* absent now"):
        resumed_config(StoreConfig(), name)
    pretrained(folder).clear()
    (folder / "model").rename(folder / "moved")
    assert resumed_config(StoreConfig(), name, ["policy.path=moved"]).fork is None


class NoParent:
    """The parent of a job that runs in this process, where no start takes long."""

    stop_requested = False

    def emit(self, event: JobEvent) -> None:
        """Nobody listens."""

    def stop_if_asked(self, done: str) -> None:
        """Nobody asks."""


def run_here(job: Job, *_: Any) -> None:
    """As `run_job` does in a process of its own."""
    shutil.rmtree(job.out, ignore_errors=True)
    for folder in (job.out, job.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    importlib.import_module(f"cures_core.jobs.{job.name}").run(job, NoParent())


def plain(stage: Any) -> Any:
    """A stage without Prefect around it."""
    return stage.__wrapped__


def stages(config: RunConfig, upto: int) -> tuple[str, list[Record]]:
    """A run's name, and its policy, prior and the epochs up to `upto`."""
    with open_run(config) as run:
        keep_beginning(open_store(config.store), run)
        data, policy = plain(validate_dataset)(run), plain(prepare_policy)(run)
        found = [policy, plain(estimate_prior)(run, data, policy)]
        for k in range(1, upto + 1):
            found.append(plain(train_epoch)(run, k, data, policy, found[-1]))
    return run.name, found


def checkpoint(record: Record) -> Any:
    return load_checkpoint(files_of(open_store(StoreConfig()), record) / "checkpoint")


def rates(record: Record) -> list[float]:
    """Learning rate of each step of an epoch."""
    return [row["learning_rate"] for row in checkpoint(record).metrics]


def test_a_run_that_diverged_goes_on_with_a_lower_learning_rate(folder: Path) -> None:
    """Its third update, the last one of epoch 1, is as good as any; the fourth spoils the weights."""
    name, (policy, prior, first) = stages(profile(), 1)
    before = resumed_config(StoreConfig(), name, ["training.learning_rate=1e30"])
    assert before.fork is not None
    with pytest.raises(TrainingDiverged, match="--set training"):
        stages(before, 2)
    diverged = identify(before).name
    after = resumed_config(StoreConfig(), diverged, ["training.learning_rate=1e-4"])
    assert after.fork is not None
    assert (after.fork.run, after.fork.epoch, after.fork.step, after.fork.checkpoint) == (diverged, 1, 3, "")
    data = stage_record(open_store(StoreConfig()), name, ValidateFigures)
    assert data is not None
    assert after.fork.records == {
        "validate_dataset": data.key,
        "prepare_policy": policy.key,
        "estimate_prior": prior.key,
        "train_epoch 1": first.key,
    }
    forked, (*taken, second) = stages(after, 2)
    assert taken == [policy, prior, first]
    assert (rates(first), rates(second)) == (3 * [1e-3], 3 * [1e-4])
    assert (run_overview(open_store(StoreConfig()), forked).status, forked != diverged) == ("completed", True)


def test_a_fork_goes_on_inside_the_epoch_that_was_broken_off(folder: Path) -> None:
    """From the newest healthy checkpoint, a copy of which the store keeps: the fork can be made again."""
    with pytest.raises(InjectedFault):
        stages(profile(['faults=["train.step:2=raise"]']), 1)
    name = identify(profile()).name
    config = resumed_config(StoreConfig(), name, ["training.learning_rate=1e-4"])
    assert config.fork is not None
    assert (config.fork.epoch, config.fork.step, len(config.fork.checkpoint), config.faults) == (0, 2, 64, ())
    store = open_store(StoreConfig())
    assert list(store.list("forks")) == []  # it was only asked what it would be
    forked, (*_, epoch) = stages(config, 1)
    assert rates(epoch) == [1e-3, 1e-3, 1e-4]
    assert epoch.inputs["begun"] == {"step": 2, "checkpoint": config.fork.checkpoint}
    assert checkpoint(epoch).metrics[:2] == checkpoint(stages(profile(), 1)[1][-1]).metrics[:2]
    for gone in (f"stages/{epoch.id}.json", f"artifacts/{epoch.id}", "scratch"):
        store.delete(gone)
    assert stages(config, 1)[1][-1].figures == epoch.figures
    assert started_config(store, forked).fork == config.fork
    kept = f"forks/{config.fork.checkpoint}"
    (folder / ".cures" / kept / "weights.safetensors").unlink()
    (note,) = (found for found in verify(StoreConfig()).notes if found.place == kept)
    assert (note.place, note.remedy.partition(":")[0]) == (kept, f"cures runs set-aside {kept}")
    for gone in (f"stages/{epoch.id}.json", f"artifacts/{epoch.id}", f"runs/{forked}/stages/train_epoch-1.json"):
        store.delete(gone)
    remedy = rf"cures runs set-aside {kept} .*, then fork the run anew: cures run --resume {name} --set"
    with pytest.raises(CorruptArtifact, match=remedy):
        stages(config, 1)
    (finding,) = (found for found in verify(StoreConfig()).damaged if found.place == kept)
    assert re.match(remedy, finding.remedy)
    assert f"damaged/{kept}/manifest.json-1" in set_place_aside(store, kept)
    assert kept not in {found.place for found in verify(StoreConfig()).damaged}


def test_an_unhealthy_checkpoint_is_passed_over(folder: Path) -> None:
    with pytest.raises(InjectedFault):
        stages(profile(['faults=["train.step:2=raise"]']), 1)
    (newest,) = (folder / ".cures" / "scratch" / "train_epoch").glob("*/*/scratch/step-000002")
    state = json.loads((newest / "state.json").read_bytes())
    state["trainer"]["bad_steps"] = 1
    (newest / "state.json").write_bytes(canonical_json(state))
    write_manifest(newest)
    config = resumed_config(StoreConfig(), identify(profile()).name, ["training.learning_rate=1e-4"])
    assert config.fork is not None
    assert config.fork.step == 1


def test_a_fork_has_the_prompts_of_its_run_and_they_must_fit(folder: Path) -> None:
    """The posterior speaks of these: none joins them where completions leave more room, and none is left out."""
    rows = [{"problem": f"{i}+1=", "answer": str(i + 1)} for i in (*range(10, 50), 1000)]
    jsonl(folder / "set.jsonl", rows)
    name, _ = stages(profile(["rollout.max_new_tokens=58"]), 1)  # leaves 6 tokens, and the last prompt has 7
    store = open_store(StoreConfig())
    data = stage_record(store, name, ValidateFigures)
    assert data is not None
    assert (data.figures.prompts, data.figures.reasons) == (40, {"no_room": 1})
    longer = resumed_config(StoreConfig(), name, ["rollout.max_new_tokens=4"])
    forked, _ = stages(longer, 2)
    assert stage_record(store, forked, ValidateFigures) == data
    with pytest.raises(ConfigError, match=rf"40 prompts of run {name} would not fit, as \w+: 5 tokens, 4 fit"):
        resumed_config(StoreConfig(), name, ["rollout.max_new_tokens=60"])


def test_an_evaluation_of_a_fork_reads_suites_of_its_own(folder: Path) -> None:
    from flows.evaluate import _config

    name, _ = stages(profile(), 1)
    forked, _ = stages(resumed_config(StoreConfig(), name, ["training.learning_rate=1e-4"]), 2)
    jsonl(folder / "quiz.jsonl", [{"problem": "7+1=", "answer": "8"}])
    store, quiz = open_store(StoreConfig()), EvaluatedSuite(name="quiz", path="quiz.jsonl")
    for evaluation, suite in ((None, "exam"), (EvaluationConfig(suites=(quiz,)), "quiz")):
        with open_run(_config(store, forked, evaluation, StoreConfig())) as run:
            assert plain(validate_dataset)(run).figures.suites.keys() == {suite}


def test_more_epochs_are_a_fork_of_what_is_done(folder: Path) -> None:
    name, found = stages(profile(["epochs=1"]), 1)
    with pytest.raises(ConfigError, match=r"has trained its 1 epochs, so training\.learning_rate .* --set epochs=N"):
        resumed_config(StoreConfig(), name, ["training.learning_rate=1e-4"])
    longer = resumed_config(StoreConfig(), name, ["epochs=2"])
    forked, again = stages(longer, 1)
    assert (again, forked == name) == (found, False)


def test_a_fork_whose_parent_lost_a_record_says_how_to_get_it_back(folder: Path) -> None:
    name, (*_, first) = stages(profile(), 1)
    forked = resumed_config(StoreConfig(), name, ["training.learning_rate=1e-4"])
    open_store(StoreConfig()).delete(f"stages/{first.id}.json")
    with pytest.raises(
        CorruptArtifact, match=rf"Taken over from run {name}\. To make it again: cures run --resume {name}"
    ):
        stages(forked, 1)
    assert stages(profile(), 1)[1][-1].key == first.key
    assert stages(forked, 1)[1][-1].key == first.key


def test_a_run_that_goes_on_cannot_be_forked(folder: Path) -> None:
    with open_run(profile()) as run, pytest.raises(LeaseHeld):
        resumed_config(StoreConfig(), run.name, ["training.learning_rate=1e-4"])


def test_a_run_that_has_done_nothing_leaves_nothing_to_a_fork(folder: Path) -> None:
    assert resumed_config(StoreConfig(), begun(), ["training.learning_rate=1e-4"]).fork is None


def older(store: Store, name: str, digest: str) -> str:
    """What a version that noted one digest, and named runs otherwise, would have left of a run."""
    old, first = f"{name}-old", read_started(store, name)
    kept = {"config": first.config, "data_digest": digest, "started_at": first.started_at}
    store.put(f"runs/{old}/run.json", canonical_json(kept))
    for key in list(store.list(f"runs/{name}/stages")):
        store.put(key.replace(name, old), store.get(key) or b"")
    return old


def test_a_run_of_an_earlier_version_goes_on_with_what_it_has(folder: Path) -> None:
    store = open_store(StoreConfig())
    name, found = stages(profile(), 1)
    old = older(store, name, digest_file(folder / "set.jsonl"))
    config = resumed_config(StoreConfig(), old)
    assert config.fork is not None
    assert (config.fork.run, config.fork.epoch, config.fork.records["train_epoch 1"]) == (old, 1, found[-1].key)
    assert stages(config, 1)[1] == found
    with pytest.raises(ConfigError, match=r"set\.jsonl has changed .* 000000000000 then"):
        resumed_config(StoreConfig(), older(store, name, "0" * 64))
