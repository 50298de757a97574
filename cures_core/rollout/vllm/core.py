"""Knows vLLM's process: start, step with a deadline, kill, new weights. The only module that imports vllm."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cures_core.config.rollout import VllmRolloutConfig
from cures_core.errors import EngineFailed
from cures_core.extras import missing_extra
from cures_core.failures import is_out_of_memory
from cures_core.rollout.vllm.calls import Call, Sampled
from cures_core.rollout.vllm.guard import Guard
from cures_core.rollout.vllm.memory import memory_share
from cures_core.rollout.vllm.probe import Floats
from cures_core.rollout.vllm.waiting import Caller

_STOP_TIMEOUT_S = 20.0
_log = logging.getLogger(__name__)


class VllmCore:
    """One running vLLM engine on the folder `folder`. Raises `MissingExtra` where vllm is not installed."""

    def __init__(self, cfg: VllmRolloutConfig, folder: Path, dtype: Any, on_gpu: bool) -> None:
        self._cfg, self._dtype, self._on_gpu = cfg, dtype, on_gpu
        self._llm: Any = None
        self._processes: list[Any] = []
        self._guard: Guard | None = None
        self.asleep = False
        self._caller = Caller("vLLM", self._running)
        self.start(folder)

    def start(self, folder: Path) -> None:
        """Start the engine's process; the folder above `folder` goes with it if this process is killed.

        Raises `EngineFailed` where it does not come up in time.
        """
        _environment(self._cfg, self._on_gpu)
        try:
            from vllm import LLM
        except ImportError as error:
            raise missing_extra("vllm", "rollout.type = 'vllm'", error) from error
        self.asleep = False
        others = set(multiprocessing.active_children())
        cache: dict[str, Any] = {}
        if self._on_gpu:
            cache["kv_cache_memory_bytes"] = self._cfg.kv_cache_gib << 30
            cache["gpu_memory_utilization"] = memory_share(folder, self._cfg.kv_cache_gib)
        self._guard = Guard(folder.parent)
        try:
            with self._guard.watching_new_children():
                self._llm = LLM(
                    str(folder),
                    trust_remote_code=False,
                    dtype=self._dtype,
                    enforce_eager=not self._on_gpu,
                    max_model_len=self._cfg.max_model_len,
                    block_size=self._cfg.block_tokens,
                    enable_prefix_caching=True,
                    # vLLM 0.32 takes back the random number of a half prefilled prompt, which a CPU generator cannot:
                    # "CPU Generator does not use offset", and the engine dies.
                    enable_chunked_prefill=self._on_gpu,
                    # Processed: at the temperature. With a cut they would be those after it, so raw ones are taken.
                    logprobs_mode="processed_logprobs" if self._cfg.top_p == 1 else "raw_logprobs",
                    disable_log_stats=True,
                    # Its memory pool exists for CUDA alone; a CPU's engine takes the calls and keeps its memory.
                    enable_sleep_mode=self._on_gpu and self._cfg.sleep_level > 0,
                    **cache,
                )
        except (RuntimeError, TimeoutError, ValueError) as error:
            self.stop()
            if is_out_of_memory(error):
                raise
            raise EngineFailed(
                f"vLLM did not start within {self._cfg.start_timeout_s} s: {str(error)[:300]}. Its own message is in "
                "the log above"
            ) from error
        self._processes = [p for p in multiprocessing.active_children() if p not in others]

    @property
    def context(self) -> int:
        """Most tokens of prompt and completion together."""
        return int(self._llm.llm_engine.model_config.max_model_len)

    @property
    def pids(self) -> list[int]:
        """Process ids of the engine."""
        return [int(p.pid) for p in self._processes]

    def run(self, calls: Sequence[Call], finished: Callable[[str, list[Sampled]], None]) -> None:
        """`finished(name, completions)` as each call ends.

        Raises `EngineFailed` when the engine dies or takes no step within the deadline. Any other exception, such as
        one of `finished`, cancels what is open and leaves the engine usable.
        """
        self._run(
            {call.name: (call.prompt_ids, {**call.fields, "detokenize": bool(call.fields["stop"])}) for call in calls},
            lambda output: finished(output.request_id, _sampled(output)),
        )

    def _run(
        self, calls: Mapping[str, tuple[Sequence[int], Mapping[str, Any]]], finished: Callable[[Any], None]
    ) -> None:
        """Calls: name -> prompt ids, fields of SamplingParams. `finished(output)` gets vLLM's own."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = self._llm.llm_engine
        names: list[str] = []

        def add() -> None:
            for name, (prompt_ids, fields) in calls.items():
                params = SamplingParams(**fields, output_kind=RequestOutputKind.FINAL_ONLY)
                names.append(engine.add_request(name, {"prompt_token_ids": list(prompt_ids)}, params))

        try:
            self._wait(add, "requests to be taken")
            while engine.has_unfinished_requests():
                for output in self._wait(engine.step, "the next decoding step"):
                    if output.finished:
                        finished(output)
        except EngineFailed:
            raise
        except BaseException:
            if self._running():
                self._wait(lambda: engine.abort_request(names, internal=True), "open requests to be cancelled")
            raise

    def reload(self, folder: Path) -> None:
        """Replace the weights by those of `folder` and forget cached prefixes, which the old ones computed.

        A sleeping engine gets the room for its cache back only then: both need not fit beside a copy of the weights.
        """

        def load() -> None:
            if self.asleep:
                self._llm.wake_up(tags=["weights"])
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
            if self.asleep:
                self._llm.wake_up(tags=["kv_cache"])
            self._llm.reset_prefix_cache()

        self._wait(load, "the new weights to be loaded", self._cfg.sync_timeout_s)
        self.asleep = False

    def sleep(self, level: int) -> None:
        """Give back the memory of the cache, and with it that of the weights: to the host (1) or for good (2)."""
        self._wait(lambda: self._llm.sleep(level=level, mode="wait"), "the engine to sleep", self._cfg.sync_timeout_s)
        self.asleep = True

    def probe(self, token_ids: Sequence[int]) -> Floats:
        """Log-probabilities at temperature 1 of `token_ids[1:]`, each given those before it: shape (len - 1,)."""
        found: list[Any] = []
        fields = {"max_tokens": 1, "prompt_logprobs": 0, "temperature": 0.0}
        self._run({"probe": (token_ids, fields)}, lambda output: found.append(output.prompt_logprobs))
        rows = zip(found[0][1:], token_ids[1:], strict=True)
        return np.array([row[token].logprob for row, token in rows], dtype=np.float32)

    def stop(self) -> None:
        """End the engine's process, hung or not."""
        llm, self._llm = self._llm, None
        if llm is not None and self._running():
            try:
                self._caller.call(llm.llm_engine.engine_core.shutdown, "the engine to end", _STOP_TIMEOUT_S)
            except EngineFailed as error:
                _log.warning("%s", error)
        self._caller.leave()
        for process in self._processes:
            process.kill()
            process.join(10)
        self._processes = []
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def _running(self) -> bool:
        return all(p.is_alive() for p in self._processes)

    def _wait(self, work: Callable[[], Any], what: str, limit_s: float | None = None) -> Any:
        """vLLM's own waits have no limit, and a call that waits while its process dies never returns."""
        try:
            return self._caller.call(work, what, self._cfg.stall_timeout_s if limit_s is None else limit_s)
        except EngineFailed as error:
            codes = [p.exitcode for p in self._processes]
            for process in self._processes:
                process.kill()
            end = "the engine was killed" if None in codes else f"exit codes {codes}"
            raise EngineFailed(f"{error}; {end}") from error
        except Exception as error:
            if type(error).__name__ == "EngineDeadError":
                raise EngineFailed(f"vLLM's process died while waiting for {what}") from error
            raise


def _sampled(output: Any) -> list[Sampled]:
    """Completions of one call, by index."""
    made = []
    for one in sorted(output.outputs, key=lambda o: int(o.index)):
        token_ids = tuple(int(t) for t in one.token_ids)
        logprobs = tuple(float(row[t].logprob) for row, t in zip(one.logprobs, token_ids, strict=True))
        made.append(Sampled(token_ids, logprobs, str(one.finish_reason)))
    return made


def _environment(cfg: VllmRolloutConfig, on_gpu: bool) -> None:
    """What vLLM reads from the environment only. Spawned, not forked: this process has threads and signal handlers."""
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    os.environ["VLLM_ENGINE_READY_TIMEOUT_S"] = str(cfg.start_timeout_s)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if not on_gpu:
        # Compiling the few small kernels of the CPU build takes longer than all that they save.
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(cfg.kv_cache_gib)
