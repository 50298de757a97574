"""What a secret looks like: so that no message shows one, and no configuration, which is kept, holds one."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

_VARIABLES = re.compile(r"(SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|API_KEY|ACCESS_KEY|AUTH_STRING)", re.IGNORECASE)
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


def masked(text: str) -> str:
    """`text` without passwords in URLs, AWS keys, signatures, and values of secret-looking environment variables."""
    for name, value in sorted(os.environ.items()):
        if len(value) >= 6 and _VARIABLES.search(name) and not value.startswith("/"):
            text = text.replace(value, "***")
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


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
