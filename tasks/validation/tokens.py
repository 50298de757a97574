"""Knows how many tokens a run's policy makes of problems, and of whole prompts, which have to leave a completion room
in its context: those are counted as rollouts and evaluations count them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from cures_core.config.data import PromptFile
from cures_core.config.policy import PretrainedPolicy
from cures_core.config.rollout import PromptFormat, Sampling
from cures_core.config.run import RunConfig
from cures_core.errors import MissingInput, ServerUnavailable
from cures_core.jobs.assemble import evaluation_rollout
from cures_core.own_code import keyed
from cures_core.planning.shape import model_config, read_architecture
from cures_core.policy.characters import POSITIONS, character_tokenizer
from cures_core.prompts import PromptSet
from cures_core.prompts.checks import Tokens
from cures_core.prompts.defects import Flaw
from cures_core.rollout.prompting import prompt_lengths
from cures_core.rollout.room import Context, context_of, planned_context, prompt_room
from tasks.inputs.pretrained import architecture_file
from tasks.validation.validator import DATA, Misfits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 1024
_CHARACTER_BYTES = 4
_SPECIAL_TOKENS = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Room:
    """Most tokens of a prompt, how it is asked, and where that number comes from."""

    tokens: int
    prompt_format: PromptFormat
    said: str

    def keyed(self) -> dict[str, JsonValue]:
        """What decides which prompts fit: of the format the results that make prompts. Keys have always held the chat
        template's arguments, also where there are none."""
        asked = {"chat_template_kwargs": self.prompt_format.chat_template_kwargs, **keyed(self.prompt_format)}
        shown = {name: value for name, value in asked.items() if name not in ("thinking", "stop")}
        return {"tokens": self.tokens, "prompt_format": shown}


def rooms(cfg: RunConfig) -> dict[str, Room]:
    """What prompts of a run must fit into: of the prompt set (`DATA`) and of suites by name, where the policy's context
    is known and a prompt could be too long for it.

    Raises `ConfigError` where completions leave no room for any prompt, `MissingInput` where the policy is not there.
    """
    asked: dict[str, tuple[str, Sampling, PromptFile]] = {DATA: ("rollout.max_new_tokens", cfg.rollout, cfg.data)}
    for suite in cfg.evaluation.suites:
        section = "rollout" if suite.max_new_tokens is None else f"evaluation.suites.{suite.name}"
        asked[suite.name] = (f"{section}.max_new_tokens", evaluation_rollout(cfg, suite, suite.temperature), suite)
    own: Context | None = Context(POSITIONS, "the small policy's")
    if isinstance(cfg.policy, PretrainedPolicy):
        place = architecture_file(cfg.policy)
        own = context_of(model_config(read_architecture(place.parent, place)))
    found = {}
    for name, (setting, rollout, file) in asked.items():
        context = planned_context(rollout, own)
        if context is None:
            continue
        tokens, shown = prompt_room(rollout, context.tokens, setting), rollout.prompt_format
        if tokens < _most_tokens(file, shown):
            said = f"context of {context.tokens:,} ({context.said}) less {setting} = {rollout.max_new_tokens:,}"
            found[name] = Room(tokens, shown, said)
    return found


def rooms_if_known(cfg: RunConfig) -> dict[str, Room]:
    """The same, with a warning where the policy is not there, or its hub away: for those who check data without it."""
    try:
        return rooms(cfg)
    except (MissingInput, ServerUnavailable) as error:
        _log.warning("whether prompts fit into the policy's context is not checked: %s", error)
        return {}


def misfits(cfg: RunConfig, limits: Mapping[str, Room]) -> Misfits:
    """Finds the prompts that do not fit into `limits`, or are none to the policy's tokenizer or chat template."""
    tokenizer = _tokenizer(cfg) if limits else None

    def find(name: str, prompts: PromptSet) -> Iterator[tuple[int, Flaw]]:
        if name not in limits or tokenizer is None:
            return
        room = limits[name]
        for first in range(0, len(prompts), _BATCH):
            batch = prompts.at(range(first, min(first + _BATCH, len(prompts))))
            for i, found in enumerate(prompt_lengths(batch, tokenizer, room.prompt_format), first):
                if isinstance(found, str):
                    yield i, ("chat_refused", found[:80])
                elif not found:
                    yield i, ("no_tokens", "")
                elif found > room.tokens:
                    yield i, ("no_room", f"{found:,} tokens, {room.tokens:,} fit: {room.said}")

    return find


def counts_tokens(cfg: RunConfig) -> bool:
    """Does any file limit the tokens of its problems?"""
    return any(file.max_problem_tokens is not None for file in (cfg.data, *cfg.evaluation.suites))


def token_counter(cfg: RunConfig) -> Tokens | None:
    """Counts the tokens of a problem as the run's policy does; None where no limit asks for it."""
    if not counts_tokens(cfg):
        return None
    if not isinstance(cfg.policy, PretrainedPolicy):
        return len
    tokenizer = _tokenizer(cfg)
    return lambda text: len(tokenizer(text)["input_ids"])


def _tokenizer(cfg: RunConfig) -> PreTrainedTokenizerBase:
    from cures_core.policy.loading import load_tokenizer, tokenizer_place

    if not isinstance(cfg.policy, PretrainedPolicy):
        return character_tokenizer()
    return load_tokenizer(tokenizer_place(cfg.policy.path, cfg.policy.base), cfg.policy.revision)


def _most_tokens(file: PromptFile, fmt: PromptFormat) -> float:
    """Tokens that no prompt can have more of: one a byte, and special ones. In a chat each turn may bring some."""
    if fmt.chat:
        return math.inf
    return _CHARACTER_BYTES * (file.max_problem_chars + len(fmt.template)) + _SPECIAL_TOKENS
