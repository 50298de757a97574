"""What a secret looks like, so that no message shows one."""

from __future__ import annotations

import os
import re

_VARIABLES = re.compile(r"(SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|API_KEY|ACCESS_KEY|AUTH_STRING)", re.IGNORECASE)
_PATTERNS = (
    (re.compile(r"(?<=://)[^/@\s]+@"), "***@"),  # user and password of a URL
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), "***"),  # AWS access key ids
    (re.compile(r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token))=[^&\s\"']+"), r"\1=***"),  # presigned URLs
    (re.compile(r"\b(Basic|Bearer) [A-Za-z0-9+/=_.-]{8,}"), r"\1 ***"),
    (re.compile(r"(?i)\b(authorization:\s*\w+\s+)\S+"), r"\1***"),
)


def masked(text: str) -> str:
    """`text` without passwords in URLs, AWS keys, signatures, and values of secret-looking environment variables."""
    for name, value in sorted(os.environ.items()):
        if len(value) >= 6 and _VARIABLES.search(name) and not value.startswith("/"):
            text = text.replace(value, "***")
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text
