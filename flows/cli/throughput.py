"""Runs the measurement of `cures bench throughput`: a model, requests of mixed lengths, one engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cures_core.config.device import DeviceConfig
from cures_core.config.rollout import RolloutConfig
from cures_core.countdown import Countdown
from cures_core.errors import ConfigError


def measure_throughput(
    engine: str,
    model: str,
    prompts: int,
    n: int,
    max_new_tokens: int,
    repeats: int,
    endpoints: Sequence[str] = (),
    decoding: str = "auto",
) -> dict[str, str | float]:
    """Figures of `cures_core.rollout.throughput.throughput`. Raises `ConfigError` for an engine that does not exist."""
    reader: TypeAdapter[Any] = TypeAdapter(RolloutConfig)
    if endpoints and engine != "vllm_server":
        raise ConfigError(f"--endpoint belongs to --engine vllm_server, not to {engine}")
    if decoding != "auto" and engine != "hf":
        raise ConfigError(f"--decoding belongs to --engine hf, not to {engine}")
    own: dict[str, Any] = {"endpoints": endpoints} if endpoints else {"decoding": decoding} if engine == "hf" else {}
    try:
        cfg = reader.validate_python({"type": engine, "max_new_tokens": max_new_tokens, **own})
    except ValidationError as error:
        asked = f"--decoding {decoding}" if "decoding" in error.errors()[0]["loc"] else f"--engine {engine}"
        raise ConfigError(f"{asked}: {error.errors()[0]['msg']}") from error
    from cures_core.policy.loading import load_policy, setup_torch
    from cures_core.rollout.throughput import WAYS, made_up_model, mixed_requests, throughput

    device = setup_torch(DeviceConfig(), 0)
    if model:
        policy = load_policy(model, device)
        lm, tokenizer = policy.model, policy.tokenizer
    else:
        made: Any
        made, tokenizer = made_up_model()
        lm = made.to(device)
    countdown = Countdown("measurements", WAYS * repeats)
    figures = throughput(lm, tokenizer, cfg, mixed_requests(prompts, n), repeats=repeats, measured=countdown.done)
    rounded = {name: round(value, 3) for name, value in figures.items()}
    return {"engine": engine, "model": model or "random Llama", "device": device.type, **rounded}
