"""No message shows a secret."""

from __future__ import annotations

import pytest

from cures_core.secrets import masked


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
