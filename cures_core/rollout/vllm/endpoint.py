"""Knows one vLLM server over HTTP: health, completions, new weights, sleep. Every wait has a limit and a name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from cures_core.errors import ConfigError, EngineFailed
from cures_core.rollout.vllm.calls import Call, Sampled
from cures_core.rollout.vllm.probe import Floats

_NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Sent with every call: a server fills what is missing from the model's generation_config.json."""

UNKNOWN_LOGPROBS = "unknown_logprobs"
_BUSY = (429, 503)
_BUSY_PAUSE_S = 1.0


class EndpointDown(Exception):
    """The server does not answer, not in time, or with an error of its own. Another one may do better."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says of itself. `context`: most tokens of prompt and completion together."""

    model: str
    context: int
    logprobs_mode: str


class Endpoint:
    """A connection pool to the server at `url`. Proxies of the environment are not used.

    The environment variable VLLM_API_KEY, which vLLM's server reads too, is sent as the bearer token.
    """

    def __init__(self, url: str, connections: int) -> None:
        self.url = url.rstrip("/")
        key = os.environ.get("VLLM_API_KEY")
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            timeout=None,
            trust_env=False,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    async def health(self, limit_s: float) -> None:
        await self._ask("GET", "/health", "it to say that it is well", limit_s)

    async def served(self, limit_s: float, logprobs_mode: str | None) -> Served:
        """`logprobs_mode` None: the server is asked, and takes seconds, because it looks at its whole environment.

        Raises `EngineFailed` for a server that is none of vLLM's.
        """
        models = await self._ask("GET", "/v1/models", "its list of models", limit_s)
        with self._understood("its list of models"):
            first = models.json()["data"][0]  # adapters come after the model that carries them
            name, context = str(first["id"]), int(first["max_model_len"])
        if logprobs_mode is None:
            logprobs_mode = UNKNOWN_LOGPROBS
            with suppress(EndpointDown):  # without pip in its environment vLLM 0.32 fails to tell
                info = await self._ask("GET", "/server_info?config_format=json", "its configuration", limit_s)
                with self._understood("its configuration"):
                    logprobs_mode = str(info.json()["vllm_config"]["model_config"]["logprobs_mode"])
        return Served(name, context, logprobs_mode)

    async def complete(self, model: str, call: Call, limit_s: float) -> list[Sampled]:
        """The completions of a call, by index. Leaving early, by cancellation too, ends it on the server."""
        body = {"model": model, "prompt": list(call.prompt_ids), "return_token_ids": True, **_NEUTRAL, **call.fields}
        answer = await self._ask("POST", "/v1/completions", f"call {call.name}", limit_s, body)
        with self._understood(f"call {call.name}"):
            choices = sorted(answer.json()["choices"], key=lambda choice: int(choice["index"]))
            sampled = [
                Sampled(tuple(c["token_ids"]), tuple(c["logprobs"]["token_logprobs"]), str(c["finish_reason"]))
                for c in choices
            ]
            if len(sampled) != call.fields["n"] or any(len(s.token_ids) != len(s.logprobs) for s in sampled):
                raise ValueError("numbers of completions, tokens or log-probabilities do not agree")
            return sampled

    async def probe(self, model: str, token_ids: Sequence[int], limit_s: float) -> Floats:
        """Log-probabilities at temperature 1 of `token_ids[1:]`, each given those before it: shape (len - 1,)."""
        body = {"model": model, "prompt": list(token_ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        answer = await self._ask("POST", "/v1/completions", "its fingerprint", limit_s, {**_NEUTRAL, **body})
        with self._understood("its fingerprint"):
            rows = zip(answer.json()["choices"][0]["prompt_logprobs"][1:], token_ids[1:], strict=True)
            return np.array([row[str(token)]["logprob"] for row, token in rows], dtype=np.float32)

    async def load(self, folder: Path, limit_s: float, *, asleep: bool) -> None:
        """Replace the weights by those of `folder`, which the server must see, and forget cached prefixes.

        A sleeping server wakes up for it, and has forgotten them already.
        """
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        if asleep:
            await self._ask("POST", "/wake_up?tags=weights", "it to wake up", limit_s)
            await self._ask("POST", "/collective_rpc", f"it to load {folder}", limit_s, body)
            await self._ask("POST", "/wake_up?tags=kv_cache", "it to wake up", limit_s)
            return
        await self._ask("POST", "/pause?mode=wait", "its running calls to end", limit_s)
        try:
            await self._ask("POST", "/collective_rpc", f"it to load {folder}", limit_s, body)
            await self._ask("POST", "/reset_prefix_cache", "it to forget cached prefixes", limit_s)
        finally:
            with suppress(EndpointDown):
                await self._ask("POST", "/resume", "it to go on", limit_s)

    async def sleep(self, level: int, limit_s: float) -> None:
        await self._ask("POST", f"/sleep?level={level}&mode=wait", "it to fall asleep", limit_s)

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(
        self, method: str, path: str, what: str, limit_s: float, body: Mapping[str, object] | None = None
    ) -> httpx.Response:
        """The answer. A server that says it is busy is asked again, within the limit.

        Raises `EndpointDown`, `ConfigError` for a route that it does not have or a key that it does not take, and
        `EngineFailed` for a request that it refuses.
        """
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._http.request(method, path, json=body)
                while answer.status_code in _BUSY and path != "/health":
                    await asyncio.sleep(_BUSY_PAUSE_S)
                    answer = await self._http.request(method, path, json=body)
        except TimeoutError as error:
            raise EndpointDown(f"{self.url}: waited {limit_s:g} s for {what}") from error
        except httpx.HTTPError as error:
            cause = str(error) or type(error).__name__
            raise EndpointDown(f"{self.url}: connection lost while waiting for {what} ({cause})") from error
        if answer.status_code in (401, 403):
            raise ConfigError(f"{self.url}: refused the key ({answer.status_code}); set VLLM_API_KEY as the server's")
        if answer.status_code == 404:
            raise ConfigError(
                f"{self.url} has no {path.partition('?')[0]}: start the vLLM server with VLLM_SERVER_DEV_MODE=1 in its "
                "environment, which the exchange of weights needs"
            )
        if answer.status_code >= 500:
            raise EndpointDown(f"{self.url}: error {answer.status_code} instead of {what}: {answer.text[:300]}")
        if answer.is_error:
            raise EngineFailed(f"{self.url}: refused {what} ({answer.status_code}): {answer.text[:300]}")
        return answer

    @contextmanager
    def _understood(self, what: str) -> Iterator[None]:
        try:
            yield
        except (LookupError, TypeError, ValueError) as error:
            raise EngineFailed(f"{self.url}: {what} is not answered as vLLM 0.32 does ({error!r})") from error
