"""Plain requests to a Prefect server, for the few things that its client does not do."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from typing import Any

from cures_core.errors import ConfigError, CuresError, StoreUnavailable
from cures_core.secrets import masked, secret_in_url


def check_api_url(url: str) -> str:
    """`ConfigError` where the address holds a password: Prefect, its clients and ours would show it."""
    if found := secret_in_url(url):
        raise ConfigError(
            f"the address of the Prefect server (PREFECT_API_URL) holds {found}: leave it out, and set "
            "PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
        )
    return url


def call(api_url: str, path: str, body: Any, method: str = "POST") -> Any:
    """The server's JSON answer, None where it is empty. PREFECT_API_KEY or PREFECT_API_AUTH_STRING is sent if set.

    Raises `CuresError` with what the server refuses, `StoreUnavailable` if it does not answer.
    """
    headers = {"Content-Type": "application/json"}
    check_api_url(api_url)
    if token := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {token}"
    elif login := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    request = urllib.request.Request(f"{api_url}{path}", json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            data = answer.read()
    except urllib.error.HTTPError as error:
        said = masked(error.read()[:300].decode(errors="replace"))
        raise CuresError(f"{api_url}{path}: answered {error.code}: {said}") from error
    except OSError as error:
        raise StoreUnavailable(f"{api_url}: does not answer ({error}). Try again when the server is up") from error
    return json.loads(data) if data else None
