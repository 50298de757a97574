"""What a secret looks like: so that no message shows one, and no configuration, which is kept, holds one."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

_VARIABLES = re.compile(
    r"(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_KEY|ACCESS_KEY|PRIVATE_KEY|AUTH_STRING)", re.IGNORECASE
)
_MIN_LENGTH = 6
"""Of what is taken for a secret: shorter values are words."""
_KEY = (
    r"[\w.-]*(?:secret|token|passw|pwd|passphrase|signature|credential|api[-_]?key|access[-_]?key|authorization)[\w.-]*"
    r"|sig|auth|jwt|key"
)
# A colon that no port follows begins a password, whatever that is made of.
_USER = r"(?:[^/@\s?#]+|[^/@\s:?#]*:(?!\d{1,5}(?:[/?#]|$))[^@\s]*)@"
_PATTERNS = (
    (re.compile(rf"(?<=://){_USER}"), "***@"),  # user and password of a URL
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), "***"),  # AWS access key ids
    (re.compile(rf"(?i)(?<=[?&#;])({_KEY})=[^&\s\"'#;]+"), r"\1=***"),  # tokens and signatures in a query
    (re.compile(r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token))=[^&\s\"']+"), r"\1=***"),  # presigned URLs
    (re.compile(r"\b(Basic|Bearer) [A-Za-z0-9+/=_.-]{8,}"), r"\1 ***"),
    (re.compile(r"(?i)\b(authorization:\s*\w+\s+)\S+"), r"\1***"),
)
WITH_USER = rf"^(?!(?:git\+)?ssh://[^/@:\s]+@)(?:[A-Za-z][A-Za-z0-9+.-]*:|/)/*{_USER}"
"""Regular expression of addresses with a user or password; the account of an SSH server is none."""
_ANY_CASE = re.sub(
    r"(?<!\\)[a-z]", lambda letter: f"[{letter[0].upper()}{letter[0]}]", _KEY
)  # for readers without flags
SECRETS_IN_URLS = (
    WITH_USER,
    rf"[?#](?:[^\s]*[?#&;])?(?:{_ANY_CASE})=[^&;#\s]",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b",
)
"""Regular expressions, as JSON schemas have them, of the addresses in which `secret_in_url` finds something."""


def masked(text: str) -> str:
    """`text` without passwords in URLs, AWS keys, signatures, and values of secret-looking environment variables."""
    for value in sorted(_values(), key=len, reverse=True):  # a short one may be part of a long one
        for spelling in (value, quote(value), quote(value, safe="")):
            text = text.replace(spelling, "***")
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def _values() -> Iterator[str]:
    """What variables with the names of secrets hold; not the files that some of them name."""
    for name, value in os.environ.items():
        if len(value) >= _MIN_LENGTH and _VARIABLES.search(name) and not _names_a_file(name, value):
            yield value


def _names_a_file(name: str, value: str) -> bool:
    """A slash at the beginning is not enough: every 64th key of AWS has one, too."""
    named = name.upper().endswith("_FILE") or os.path.exists(value)  # noqa: PTH110  (which refuses what is too long)
    return value.startswith("/") and named


def mask_logs() -> None:
    """From now on no log record of this process shows a secret, whoever logs it: neither its message nor a traceback.

    Where records are made, and not in a filter: those of loggers and handlers see only a part of the records.
    """
    make = logging.getLogRecordFactory()
    if make is not _masked_record:
        global _make_record
        _make_record = make
        logging.setLogRecordFactory(_masked_record)


_make_record: Callable[..., logging.LogRecord] = logging.LogRecord


def _masked_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _make_record(*args, **kwargs)
    try:
        said = record.getMessage()
    except Exception:  # arguments that do not fit: logging tells that by itself when it writes the record
        return record
    if (shown := masked(said)) != said:
        record.msg, record.args = shown, ()
    if record.exc_info:
        told = _TRACEBACKS.formatException(record.exc_info)
        if (shown := masked(told)) != told:
            record.exc_text, record.exc_info = shown, None
    return record


_TRACEBACKS = logging.Formatter()


def secret_in_url(text: str) -> str | None:
    """What an address or a path holds that must not be kept, in words; None where it holds nothing of the kind."""
    if re.search(WITH_USER, text):
        return "a user or a password"
    parts = _parts(text)
    for name, value in parts:
        if value and re.fullmatch(_KEY, name, re.IGNORECASE):
            return f"a secret ({name}=...)"
    if re.search(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b", text):
        return "an AWS access key"
    return None


def without_secret(text: str) -> str:
    """An address or a path without what `secret_in_url` finds in it."""
    text = re.sub(rf"(?<=://){_USER}", "", text)
    text = re.sub(rf"(?i)(?<=[?&#;])(?:{_KEY})=[^&\s\"'#;]*", "", text)
    text = re.sub(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b", "", text)
    return "" if secret_in_url(text) else text


def _parts(text: str) -> list[tuple[str, str]]:
    """Names and values of the query, and of a fragment that is written like one."""
    try:
        split = urlsplit(text)
    except ValueError:  # not a URL: `?` and `#` mean nothing
        return []
    return [pair for part in (split.query, split.fragment) for pair in parse_qsl(part.replace(";", "&"))]
