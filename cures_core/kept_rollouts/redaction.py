"""The user's hook that takes out of texts what nobody may read, before they are written anywhere."""

from __future__ import annotations

from collections.abc import Callable

from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from cures_core.own_code import code_digest
from cures_core.plugins import load_plugin

WITHHELD = "[withheld: the redaction failed]"

Hook = Callable[[str], str]


class Redactor:
    """Applies the hook, `(text: str) -> str`, or nothing where there is none. What it fails on is withheld.

    A hook fails by raising, or by giving back what is no text. What it says then is not told: it may hold the text.
    """

    def __init__(self, hook: Hook | None = None, mark: str = "") -> None:
        self._hook, self.mark = hook, mark
        """`mark` names the hook and its code; empty where there is none."""
        self.failures: dict[str, int] = {}
        """How often the hook failed, by the kind of its error."""

    @classmethod
    def of(cls, cfg: RunConfig) -> Redactor:
        """The hook that a configuration names. Raises `ConfigError` where it is not allowed, or cannot be called."""
        if cfg.redact is None:
            return cls()
        hook = load_plugin(cfg.redact, "redact")
        if not callable(hook):
            raise ConfigError(f"redact: {cfg.redact} is no function; write one that takes a text and returns a text")
        return cls(hook, mark_of(cfg))

    def text(self, text: str, otherwise: str = WITHHELD) -> str:
        """What may be read of a text; `otherwise` where the hook failed."""
        found = self.texts(text)
        return otherwise if found is None else found[0]

    def short(self, text: str) -> str:
        """What may be read of a text that is counted or compared; nothing where the hook failed."""
        return self.text(text, "")

    def texts(self, *texts: str) -> tuple[str, ...] | None:
        """What may be read of several texts that belong together; None where the hook failed on one of them."""
        if self._hook is None:
            return texts
        try:
            return tuple(_checked(self._hook(text)) if text else "" for text in texts)
        except Exception as error:  # whatever the user's code raises: it must not cost a run
            name = type(error).__name__
            self.failures[name] = self.failures.get(name, 0) + 1
            return None


def mark_of(cfg: RunConfig) -> str:
    """Names the hook of a configuration together with its code; empty where there is none."""
    return "" if cfg.redact is None else f"{cfg.redact} {code_digest(cfg.redact, 'redact')}"


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError("not a text")
    return text
