"""The hook takes out what it takes out; what it fails on is not shown, nor what it says then."""

from __future__ import annotations

from typing import Any

import pytest

from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from cures_core.kept_rollouts.redaction import WITHHELD, Redactor, mark_of
from cures_core.plugins import require_plugins_allowed
from tests.cures_core.kept_rollouts.hooks import CANARY, MASK

HOOKS = "tests.cures_core.kept_rollouts.hooks"


def config(redact: str | None) -> RunConfig:
    values: dict[str, Any] = {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1}}
    return RunConfig.model_validate({**values, "redact": redact})


def test_texts_are_as_they_were_without_a_hook() -> None:
    redactor = Redactor.of(config(None))
    assert redactor.texts("a", CANARY) == ("a", CANARY)
    assert (redactor.mark, redactor.failures) == ("", {})
    require_plugins_allowed(config(None))


def test_the_hook_is_applied_to_every_text() -> None:
    redactor = Redactor.of(config(f"{HOOKS}:without_canary"))
    assert redactor.texts(f"x {CANARY}", "", CANARY) == (f"x {MASK}", "", MASK)
    assert redactor.text(CANARY) == redactor.short(CANARY) == MASK
    assert redactor.mark.startswith(f"{HOOKS}:without_canary ")
    assert redactor.mark == mark_of(config(f"{HOOKS}:without_canary"))


@pytest.mark.parametrize(("hook", "error"), [("failing_on_canary", "ValueError"), ("not_a_text", "TypeError")])
def test_what_it_fails_on_is_withheld_and_counted(
    hook: str, error: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    redactor = Redactor.of(config(f"{HOOKS}:{hook}"))
    assert redactor.texts("", CANARY) is None
    assert (redactor.text(CANARY), redactor.short(CANARY)) == (WITHHELD, "")
    assert redactor.failures == {error: 3}
    assert CANARY not in "".join([*capfd.readouterr(), caplog.text])


def test_a_hook_must_be_allowed_and_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="is no function; write one"):
        Redactor.of(config(f"{HOOKS}:not_a_function"))
    monkeypatch.setenv("CURES_PLUGINS", "")
    for refused in (Redactor.of, require_plugins_allowed):
        with pytest.raises(ConfigError, match=r"^redact: .*export CURES_PLUGINS="):
            refused(config(f"{HOOKS}:without_canary"))
