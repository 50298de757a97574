"""No message shows a secret."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cures_core import errors
from cures_core.errors import CuresError
from cures_core.failures import Scene, failure_of
from cures_core.secrets import mask_logs, masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fatal: https://user:pa55@host/r.git not found", "fatal: https://***@host/r.git not found"),
        ("https://token@host/x and ssh://git@h/y", "https://***@host/x and ssh://***@h/y"),
        ("key AKIAIOSFODNN7EXAMPLE is bad", "key *** is bad"),
        (
            "GET /x?X-Amz-Credential=AKIA%2Fx&X-Amz-Signature=abc&y=1",
            "GET /x?X-Amz-Credential=***&X-Amz-Signature=***&y=1",
        ),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("s3://bucket/key: no such file a@b", "s3://bucket/key: no such file a@b"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_values_of_secret_variables_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalr/XUtn+FEMI")
    monkeypatch.setenv("GITLAB_TOKEN", "glpat-0123456789")
    monkeypatch.setenv("HARMLESS", "visible-value")
    monkeypatch.setenv("SHORT_TOKEN", "x")
    assert masked("wJalr/XUtn+FEMI glpat-0123456789 visible-value x") == "*** *** visible-value x"


def test_a_secret_may_begin_as_a_path_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there, gone = tmp_path / "token", tmp_path / "gone"
    there.touch()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/wJalr/XUtn+FEMI")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(there))
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(gone))
    assert masked(f"/wJalr/XUtn+FEMI {there} {gone}: no such file") == f"*** {there} {gone}: no such file"


def test_a_secret_in_an_address_or_with_another_in_it_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "abc+/def")
    monkeypatch.setenv("B_TOKEN", "abc+/defghi")
    assert masked("abc+/defghi abc+/def /x/abc%2B%2Fdef abc%2B/def") == "*** *** /x/*** ***"


@pytest.mark.parametrize(
    "kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, CuresError)]
)
def test_no_error_of_ours_holds_what_it_quotes(kind: type[CuresError], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sk-0123456789")
    error = kind("the judge refuses sk-0123456789")
    assert str(error) == "the judge refuses ***"
    assert "sk-" not in f"{error!r} {error.args}"


def test_a_foreign_error_is_told_without_what_it_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sk-0123456789")
    for error in (ValueError("no sk-0123456789"), FileNotFoundError(2, "No such file", "/x/sk-0123456789")):
        assert "sk-" not in str(failure_of(error, Scene("sk-0123456789")))


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """What a handler with a format writes while records are made as `mask_logs` has it."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    before, logger, handler = logging.getLogRecordFactory(), logging.getLogger("elsewhere"), Keep()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    mask_logs()
    mask_logs()  # a flow in a process that has done it
    yield lines
    logging.setLogRecordFactory(before)
    logger.removeHandler(handler)


def test_no_line_of_a_log_shows_a_secret(monkeypatch: pytest.MonkeyPatch, log_lines: list[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    logger = logging.getLogger("elsewhere")
    logger.warning("sent %s, %d times", "hf_0123456789", 2)
    logger.warning("sent %d", 3)
    try:
        raise ValueError("no hf_0123456789")
    except ValueError:
        logger.exception("refused")
    assert log_lines[:2] == ["WARNING sent ***, 2 times", "WARNING sent 3"]
    assert log_lines[2].startswith("ERROR refused\nTraceback")
    assert log_lines[2].endswith("ValueError: no ***")


def test_a_record_without_a_secret_is_as_it_was(log_lines: list[str]) -> None:
    """Servers' own formats read its arguments."""
    record = logging.getLogRecordFactory()("elsewhere", 20, "file", 1, "%s %s", ("a", "b"), None)
    assert (record.msg, record.args) == ("%s %s", ("a", "b"))
    unfit = logging.getLogRecordFactory()("elsewhere", 20, "file", 1, "%d", ("a",), None)
    assert unfit.args == ("a",)
