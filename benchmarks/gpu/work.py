"""The units of a session that are no training runs: `python -m benchmarks.gpu.work KIND SPEC.json OUT.json`."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.gpu.machine import ROOT
from cures_core.files import canonical_json, write_atomic

Write = Callable[[Mapping[str, Any]], None]


def exam(spec: dict[str, Any], write: Write) -> None:
    """Tests by their paths, `-k` and `-m`, counted as they end: those of an exam whose time is over count too.

    It is done where none failed and, if the spec says `all_must_run`, none was skipped for want of a package.
    """
    command = [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line"]
    try:
        ended = subprocess.run(
            [*command, *spec["arguments"]], cwd=ROOT, capture_output=True, check=False, timeout=spec["limit_s"]
        )
        code, said, errors = ended.returncode, ended.stdout, ended.stderr
    except subprocess.TimeoutExpired as over:
        code, said, errors = None, over.stdout or b"", over.stderr or b""
    lines = said.decode(errors="replace").splitlines()
    counts: Counter[str] = Counter()
    failures, test = [], ""
    for line in lines:  # of -vv: a test's name, and behind it, or behind what it prints, how it ended
        if found := _TEST.match(line):
            test = found[1]
        if found := _OUTCOME.search(line):
            counts[found[1].lower()] += 1
            failures += [test] if found[1] in ("FAILED", "ERROR") else []
    result: dict[str, Any] = {**counts, "failures": failures}
    result["said"] = [line for line in lines if "tokens/s" in line]
    if code != 0:
        print("\n".join(lines[-30:]), errors.decode(errors="replace")[-1000:], sep="\n")  # the session keeps it
    skipped = bool(counts["skipped"]) and spec.get("all_must_run", False)
    write({**result, "code": code, "done": code == 0 and not skipped})


_TEST = re.compile(r"(tests/\S+::\S+)")
_OUTCOME = re.compile(r"(?:^| )(PASSED|FAILED|SKIPPED|ERROR)\b.*\[ *\d+%\]$")


def throughput(spec: dict[str, Any], write: Write) -> None:
    """Tokens a second of every case (engine, decoding, rows): the best of the repeats after a first call, which is
    given apart: it captures. Cases that `former` has are not measured again; one that fails says how, and is tried
    again the next time."""
    from cures_core.config.device import DeviceConfig
    from cures_core.policy.loading import load_policy, setup_torch

    device = setup_torch(DeviceConfig(type=spec["device"]), 0)
    policy = load_policy(spec["model"], device, dtype=spec["dtype"])
    until = time.monotonic() + spec["limit_s"]
    rows: dict[str, Any] = dict(spec.get("former", {}).get("cases", {}))
    slowest = 0.0
    with closing(_Engines(policy)) as engines:
        for case in spec["cases"]:
            name = _name(case)
            if "tokens_per_s" in rows.get(name, {}):
                continue
            if time.monotonic() + 2 * slowest > until:
                break
            at = time.monotonic()
            try:
                rows[name] = {**case, **_rate(case, spec, engines)}
            except Exception as error:  # a case that this machine cannot do must not take the others with it
                rows[name] = {**case, "error": f"{type(error).__name__}: {error}"[:300]}
                engines.close()
            slowest = max(slowest, time.monotonic() - at)
            write({"cases": rows, "done": False})
    write({"cases": rows, "done": all("tokens_per_s" in rows.get(_name(case), {}) for case in spec["cases"])})


def _name(case: Mapping[str, Any]) -> str:
    return f"{case['engine']}-{case['decoding']}-{case['rows']}"


class _Engines:
    """One engine at a time. vLLM's serves the next case too where that has the same settings: it takes a minute to
    start."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self.engine: Any = None
        self.start_s = 0.0
        self._cfg: Any = None

    def of(self, cfg: Any) -> Any:
        if self.engine is None or cfg != self._cfg or cfg.type == "hf":
            self.close()
            from cures_core.rollout import build_engine

            started = time.perf_counter()
            self.engine = build_engine(cfg, self.policy.model, self.policy.tokenizer, self.policy.device)
            self.start_s, self._cfg = time.perf_counter() - started, cfg
        return self.engine

    def close(self) -> None:
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()


def _rate(case: dict[str, Any], spec: dict[str, Any], engines: _Engines) -> dict[str, Any]:
    import torch
    from pydantic import TypeAdapter

    from cures_core.config.rollout import RolloutConfig
    from cures_core.rollout.hf.engine import HfEngine

    values: dict[str, Any] = {"type": case["engine"], "max_new_tokens": spec["max_new_tokens"]}
    if case["engine"] == "hf":
        values |= {"batch_rows": case["rows"], "decoding": "static" if "static" in case["decoding"] else "eager"}
    else:
        values |= {"max_model_len": 1024, "kv_cache_gib": spec["kv_cache_gib"]}
    requests = _requests(case["rows"], spec["n"])
    engine = engines.of(TypeAdapter(RolloutConfig).validate_python(values))
    held = 0
    # What vLLM holds is another process's.
    own_memory = engines.policy.device.type == "cuda" and isinstance(engine, HfEngine)
    if own_memory:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    calls: list[tuple[int, float]] = []
    for _ in range(spec["repeats"] + 1):
        at = time.perf_counter()
        made = sum(len(r.token_ids) for group in engine.generate(requests) for r in group)
        calls.append((made, time.perf_counter() - at))
        if case["decoding"] == "static uncaptured" and isinstance(engine, HfEngine) and engine.static is not None:
            engine.static.graphs.captures = False
    (first_tokens, first_s), *later = calls
    return {
        "tokens": first_tokens,
        "tokens_per_s": round(max(tokens / seconds for tokens, seconds in later), 1),
        "first_call_s": round(first_s, 3),
        "start_s": round(engines.start_s, 3),
        "memory_mib": (torch.cuda.max_memory_allocated() - held) // 2**20 if own_memory else None,
        **(engine.kernels if isinstance(engine, HfEngine) else {}),
    }


def _requests(rows: int, n: int) -> list[Any]:
    """`rows` rollouts of sums of 3 to 8 numbers, `n` of each."""
    import numpy as np

    from cures_core.terms import Prompt, Request

    rng = np.random.default_rng(0)
    found = []
    for i in range(max(1, rows // n)):
        terms = rng.integers(10, 100, size=rng.integers(3, 9))
        prompt = Prompt(f"bench-{i}", f"Question: What is {' + '.join(map(str, terms))}?\nAnswer:", str(terms.sum()))
        found.append(Request(prompt.id, prompt, min(n, rows), 0))
    return found


def step(spec: dict[str, Any], write: Write) -> None:
    """Training steps by one arm of `benchmarks.step`."""
    from benchmarks.step.training_step import ARMS, StepSpec

    if spec["arm"] == "trl" and importlib.util.find_spec("trl") is None:
        write({"skipped": "trl is not installed", "done": False})
        return
    figures = ARMS[spec["arm"]](StepSpec.model_validate(spec["step"]))
    write({**figures.model_dump(), "done": True})


def plan(spec: dict[str, Any], write: Write) -> None:
    """Memory and time of training steps: planned, then as they were.

    Time is planned as `cures plan --measure` does, from a few steps, and then taken of `steps` steps of the loop.
    """
    with tempfile.TemporaryDirectory(prefix="cures-gpu-") as name:
        folder = Path(name)
        if spec.get("architecture"):
            spec["model"] = str(_random_model(spec, folder / "model"))
        _plan(spec, write, folder)


def _plan(spec: dict[str, Any], write: Write, folder: Path) -> None:
    import torch

    from benchmarks.curriculum.worlds.arithmetic import make_pool
    from benchmarks.curriculum.worlds.world import Sizes
    from cures_core.config.loading import load_config
    from cures_core.jobs import measure
    from cures_core.jobs.spec import Job
    from cures_core.peak_memory import peak_bytes
    from cures_core.planning.device_memory import memory
    from cures_core.planning.shape import pretrained_shape, read_architecture
    from cures_core.policy.loading import load_tokenizer

    profile = ROOT / "configs" / "smollm2.toml"
    place = [f"policy.path={json.dumps(spec['model'])}", f"device.type={spec['device']}", *spec["overrides"]]
    cfg = load_config(profile, place)
    prompts = make_pool("mixed", 1, Sizes(train=spec["prompts"], heldout=10, frontier=10)).train
    prompts.write_parquet(folder / "prompts.parquet")
    encoded = load_tokenizer(spec["model"])(
        [cfg.rollout.prompt_format.template.format(problem=p.problem) for p in prompts]
    )
    longest = max(map(len, encoded["input_ids"])) + cfg.rollout.max_new_tokens
    adapters = None if cfg.training.lora is None else (cfg.training.lora.rank, cfg.training.lora.targets)
    shape = pretrained_shape(read_architecture(Path(spec["model"])), adapters)
    planned = memory(cfg, shape, longest)
    result: dict[str, Any] = {"parameters": shape.parameters, "planned_mib": planned.peak // 2**20, "done": False}
    write(result)
    job = Job(
        name="measure",
        config=cfg,
        scratch=folder / "scratch",
        out=folder / "out",
        policy=spec["model"],
        prompts=folder / "prompts.parquet",
    )
    job.out.mkdir()
    measure.run(job, None)  # type: ignore[arg-type]  # it has nothing to tell a parent
    found = json.loads((job.out / "figures.json").read_bytes())
    taken = found["gpu_peak"] if spec["device"] == "cuda" else found["process_peak"] - found["process_before"]
    rate = found["generation_s_per_rollout"] + found["update_s_per_rollout"]
    result |= {"measured_mib": taken // 2**20, "planned_s_per_rollout": rate}
    result |= {name: found[name] for name in ("generation_s_per_rollout", "update_s_per_rollout")}
    write(result)
    if spec["device"] == "cuda":
        torch.cuda.empty_cache()
    seconds, rollouts, updates = _train(job, spec["steps"])
    result |= {"measured_s_per_rollout": seconds / rollouts, "updates": updates}
    result |= {"process_peak_mib": peak_bytes() // 2**20, "done": True}
    write(result)


def _train(job: Any, steps: int) -> tuple[float, int, int]:
    """Seconds, rollouts and updates of `steps` steps of the loop after two that warm up.

    A coin judges: random weights are never right, and there would be nothing to update.
    """
    from benchmarks.step.training_step import CoinVerifier
    from cures_core.curriculum import Posterior, make_curriculum
    from cures_core.epoch import Progress, run_epoch
    from cures_core.jobs.assemble import assemble_engine, assemble_policy
    from cures_core.prompts import PromptSet
    from cures_core.training.torch_trainer import TorchTrainer

    cfg = job.config
    policy = assemble_policy(job, None)
    prompts = PromptSet.read_parquet(job.prompts)
    curriculum = make_curriculum(cfg.curriculum, prompts, Posterior.fresh(prompts, cfg.curriculum.posterior), cfg.seed)
    trainer = TorchTrainer(policy, cfg.training, cfg.rollout.temperature)
    updated: list[bool] = []
    with closing(assemble_engine(policy, cfg.rollout)) as engine:
        commit = lambda _, __, metrics, ___: updated.append(float(metrics.get("updated", 0.0)) > 0)  # noqa: E731
        loop = (curriculum, engine, CoinVerifier(), trainer, commit)
        begun = run_epoch(Progress(), 2, *loop)
        updated.clear()
        at = time.perf_counter()
        ended = run_epoch(begun, 2 + steps, *loop)
        return time.perf_counter() - at, ended.rollouts - begun.rollouts, sum(updated)


def _random_model(spec: dict[str, Any], folder: Path) -> Path:
    """The architecture of a file in configs/architectures with random weights, and the tokenizer of `model`, with as
    many unused tokens more as the architecture has embeddings."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    values = json.loads((ROOT / "configs" / "architectures" / spec["architecture"]).read_text()) | spec.get(
        "smaller", {}
    )
    config = AutoConfig.for_model(**values)
    with torch.device(spec["device"]):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(spec["model"], trust_remote_code=False)
    tokenizer.save_pretrained(folder)
    used = max(tokenizer.get_vocab().values()) + 1
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["vocab"].update({f"<unused {i}>": i for i in range(used, config.vocab_size)})
    path.write_text(json.dumps(values))
    return folder


KINDS: dict[str, Callable[[dict[str, Any], Write], None]] = {
    "exam": exam,
    "throughput": throughput,
    "step": step,
    "plan": plan,
}


if __name__ == "__main__":
    kind, spec_file, out = sys.argv[1:]
    KINDS[kind](
        json.loads(Path(spec_file).read_bytes()), lambda result: write_atomic(Path(out), canonical_json(result))
    )
