"""The nouns every module shares: prompt, request, rollout, verdict, group. No behaviour beyond counting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

Turn = tuple[str, str]
"""Who speaks (system, user or assistant), and what is said."""
Turns = tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One problem with its gold answer. `id` is the hash of the normalised content (`cures_core.prompts`); `verifier`
    names the one that judges it, where it is not its source's.

    `turns` is what was said before the problem, which is then the last user message of a chat.
    """

    id: str
    problem: str
    answer: str
    source: str = ""
    level: str = ""
    subject: str = ""
    verifier: str = ""
    turns: Turns = ()


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for `n` rollouts of one prompt. `id` is unique within a run; a request is told exactly once.

    `seed` with the prompt id and the rollout's index fixes every random number of the rollout. `expected` is the pass
    rate that whoever asks believes in, before any of these rollouts; None where nothing is believed.
    """

    id: str
    prompt: Prompt
    n: int
    seed: int
    expected: float | None = None


class FinishReason(StrEnum):
    """Why a rollout ended: at a stop token or string, or at the token limit (truncated)."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A completion with its log-probabilities.

    `prompt_ids` and `token_ids` are token ids (the end token included when it was sampled); `logprobs[t]` is the
    natural log-probability of `token_ids[t]` under the sampling policy at the sampling temperature;
    `text` is the completion without stop tokens or stop strings; where the prompt ends in an opened thinking tag, with
    that tag in front. `thinking_tokens` of the tokens are thinking, its tags included.
    """

    request_id: str
    index: int
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    thinking_tokens: int = 0


class Outcome(StrEnum):
    """Three-valued: `unknown` (timeout, crash, unparsable gold) enters neither advantage nor posterior."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one completion: the outcome, the answer it read, the rule it used, and why.

    `reward` is what training is paid where that is not simply 1 for correct and 0 for wrong. `masked`: training leaves
    the rollout out of the loss and of its group's baseline; who counts outcomes counts it.
    """

    outcome: Outcome
    extracted: str = ""
    rule: str = ""
    reason: str = ""
    reward: float | None = None
    masked: bool = False

    @property
    def in_loss(self) -> bool:
        """Known, and not masked."""
        return self.outcome is not Outcome.UNKNOWN and not self.masked

    @property
    def paid(self) -> float:
        """The reward of a known verdict."""
        return float(self.outcome is Outcome.CORRECT) if self.reward is None else self.reward


@dataclass(frozen=True, slots=True)
class Credit:
    """What an update made of a rollout: its advantage, and how far trainer and engine are apart on it, as the mean over
    its tokens of |difference of the natural log-probabilities|."""

    advantage: float
    logprob_gap: float


@dataclass(frozen=True, slots=True)
class Group:
    """The rollouts of one request with their verdicts, in the same order."""

    request: Request
    rollouts: Sequence[Rollout]
    verdicts: Sequence[Verdict]

    @property
    def successes(self) -> int:
        return [v.outcome for v in self.verdicts].count(Outcome.CORRECT)

    @property
    def failures(self) -> int:
        return [v.outcome for v in self.verdicts].count(Outcome.WRONG)

    @property
    def unknown(self) -> int:
        return [v.outcome for v in self.verdicts].count(Outcome.UNKNOWN)

    @property
    def informative(self) -> bool:
        """True where right and wrong both occur in the loss. With a reward of right and wrong alone, only then is the
        group's gradient not zero; what a reward pays beyond that does not count here."""
        return len({v.outcome for v in self.verdicts if v.in_loss}) > 1
