"""Plain requests to a Prefect server, for the few things that its client does not do."""

from __future__ import annotations

import os
from typing import Any

import httpx

from cures_core.errors import ConfigError, CuresError, ServerUnavailable
from cures_core.secrets import masked, secret_in_url

_PASSING = (429, 502, 503, 504)


def check_api_url(url: str) -> str:
    """`ConfigError` where the address holds a password: Prefect, its clients and ours would show it."""
    if found := secret_in_url(url):
        raise ConfigError(
            f"the address of the Prefect server (PREFECT_API_URL) holds {found}: leave it out, and set "
            "PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
        )
    return url


def call(api_url: str, path: str, body: object, method: str = "POST") -> Any:
    """The server's JSON answer, None where it is empty. PREFECT_API_KEY or PREFECT_API_AUTH_STRING is sent if set.

    Raises `CuresError` with what the server refuses, `ServerUnavailable` if it does not answer.
    """
    headers, auth = {}, None
    check_api_url(api_url)
    if token := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {token}"
    elif login := os.environ.get("PREFECT_API_AUTH_STRING"):
        user, _, password = login.partition(":")
        auth = httpx.BasicAuth(user, password)
    try:
        answer = httpx.request(
            method, f"{api_url}{path}", json=body, headers=headers, auth=auth, timeout=30, follow_redirects=True
        )
    except httpx.TransportError as error:
        raise ServerUnavailable(f"{api_url}: does not answer ({error}). Try again when the server is up") from error
    if answer.is_error:
        kind = ServerUnavailable if answer.status_code in _PASSING else CuresError
        raise kind(masked(f"{api_url}{path}: answered {answer.status_code}: {answer.text[:300]}"))
    return answer.json() if answer.content else None


def answers(api_url: str) -> bool:
    """Whether a healthy server is there."""
    return health(api_url) == 200


def health(api_url: str) -> int | None:
    """The status that a server gives of itself; None where nothing answers. `ConfigError` as `check_api_url`."""
    check_api_url(api_url)
    try:
        return httpx.get(f"{api_url}/health", timeout=5, follow_redirects=True).status_code
    except (httpx.HTTPError, httpx.InvalidURL):
        return None


def require_server(api_url: str) -> str:
    """The address, where a server answers. Raises `ServerUnavailable` where none does, and as `check_api_url`."""
    if health(api_url) is None:
        raise ServerUnavailable(
            f"no Prefect server answers at {api_url}, which PREFECT_API_URL names: start it, or unset the variable to "
            "run with a temporary one"
        )
    return api_url
