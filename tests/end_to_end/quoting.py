"""A strategy that fails as clients of servers do: with the secrets in what it raises and logs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from tests.cures_core.curriculum.example_strategy import LongestAgo, LongestAgoOptions


class QuotesSecretsOptions(LongestAgoOptions):
    done: Path
    """Made when it has failed once."""
    names: str
    """Of the variables, with blanks between."""


class QuotesSecretsOnce(LongestAgo):
    """It works when it is tried again."""

    options_type: ClassVar[type[LongestAgoOptions]] = QuotesSecretsOptions
    options: QuotesSecretsOptions

    def choose(self, budget: int, round_: int) -> tuple[np.ndarray, np.ndarray]:
        if not self.options.done.exists():
            self.options.done.touch()
            held = {name: os.environ[name] for name in self.options.names.split()}
            logging.getLogger("client").warning("sent %s", held)
            raise RuntimeError(f"no answer to {held}")
        return super().choose(budget, round_)
