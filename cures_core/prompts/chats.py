"""Knows chat-style rows: the last user message is the problem, what stands before it are the earlier turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from cures_core.terms import Prompt, Turn, Turns

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Chat:
    """What a list of messages says. `problem` is None where there is no user message; `unreadable` names the first
    message that is not text by one of `ROLES`."""

    problem: str | None
    turns: Turns = ()
    reply: str = ""
    """What the assistant says after the last user message."""
    unreadable: str = ""

    @property
    def rest(self) -> str:
        """What there is beside the problem, shortened."""
        others = [*self.turns, *([("assistant", self.reply)] if self.reply else [])]
        return "; ".join(f"{role}: {ascii(text)[1:-1][:40]}" for role, text in others[:3])


def read_chat(messages: object) -> Chat:
    """A list of {role, content}; messages without content are passed over. Content may be a list of text parts."""
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return Chat(None)
    spoken: list[Turn] = []
    unreadable = ""
    for message in messages:
        turn, fault = _turn(message)
        unreadable = unreadable or fault
        if turn is not None:
            spoken.append(turn)
    asked = max((i for i, (role, _) in enumerate(spoken) if role == "user"), default=None)
    if asked is None:
        return Chat(None, unreadable=unreadable)
    reply = "\n".join(text for _, text in spoken[asked + 1 :])
    return Chat(spoken[asked][1], tuple(spoken[:asked]), reply, unreadable)


def _turn(message: object) -> tuple[Turn | None, str]:
    """(role and text, None where nothing is said; what cannot be read)."""
    if not isinstance(message, Mapping):
        return None, ascii(message)[:40]
    role, content = message.get("role"), message.get("content")
    if message.get("tool_calls"):
        return None, f"{role} calls tools"
    if not content:
        return None, ""
    text = content if isinstance(content, str) else _joined(content)
    if role not in ROLES or text is None:
        return None, f"{role}: {ascii(content)[:40]}"
    return (role, text), ""


def _joined(parts: object) -> str | None:
    """The text of a list of parts; None where one is an image or sound."""
    if not isinstance(parts, Sequence):
        return None
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in parts]
    return "".join(str(text) for text in texts) if all(isinstance(text, str) for text in texts) else None


def written(turns: Turns) -> str:
    """Earlier turns as JSON, their form in columns and ids; empty where there are none."""
    return orjson.dumps(turns).decode() if turns else ""


def read_turns(text: str) -> Turns:
    """What `written` wrote."""
    return tuple((str(role), str(said)) for role, said in orjson.loads(text)) if text else ()


def conversation(problem: str, turns: str, *, system: bool = False) -> str:
    """The problem with what was said before it, as one text to be compared with others; the system message, which
    many rows share, only on demand."""
    if not turns:
        return problem
    said = [text for role, text in read_turns(turns) if system or role != "system"]
    return "\n".join([*said, problem])


def transcript(prompt: Prompt) -> str:
    """A prompt as people read it: earlier turns with their speakers, then the problem."""
    if not prompt.turns:
        return prompt.problem
    return "\n".join(f"{role}: {text}" for role, text in (*prompt.turns, ("user", prompt.problem)))
