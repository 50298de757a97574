"""Plain requests to a Prefect server, for the few things that its client does not do."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from cures_core.errors import ConfigError, ServerRefused, ServerUnavailable
from cures_core.secrets import masked, secret_in_url

PATIENCE_S = 60.0
"""How long a busy server is asked again."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0
_PASSING = (429, 502, 503, 504)
_SETTING = ("GET", "PUT", "PATCH")
"""Methods that may be repeated: they read, or set what then is as it was set."""
_LOOK = "look whether it was carried out before you do it again"


class _BusyError(Exception):
    """The server, or what stands before it, says that it cannot answer now."""


def check_api_url(url: str) -> str:
    """`ConfigError` where the address holds a password: Prefect, its clients and ours would show it."""
    if found := secret_in_url(url):
        raise ConfigError(
            f"the address of the Prefect server (PREFECT_API_URL) holds {found}: leave it out, and set "
            "PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
        )
    return url


def call(
    api_url: str, path: str, body: object, method: str = "POST", *, repeatable: bool | None = None, look: str = _LOOK
) -> Any:
    """The server's JSON answer, None where it is empty. PREFECT_API_KEY or PREFECT_API_AUTH_STRING is sent if set.

    A busy server (429, 502, 503, 504, a connection that breaks, no answer in time) is asked again, with growing pauses,
    for `PATIENCE_S`, if a call may be repeated: those that read or set something may, those that make something only if
    `repeatable` says so. `look`: what to look at where it is not known whether such a one was carried out.

    Raises `ServerRefused` with what the server says, `ServerUnavailable` if it stays busy or nothing is there.
    """
    check_api_url(api_url)
    if repeatable is None:
        repeatable = method in _SETTING or path.endswith("/filter")
    try:
        answer = _asked(partial(_send, api_url, path, body, method), PATIENCE_S if repeatable else 0.0)
    except httpx.ConnectError as error:
        raise ServerUnavailable(f"{api_url}: does not answer ({error}). Try again when the server is up") from error
    except (httpx.TransportError, _BusyError) as error:
        what = str(error) or type(error).__name__
        if not isinstance(error, _BusyError):
            what = f"the connection was lost ({what})"
        rest = f"also after {PATIENCE_S:.0f} s. Try again when the server is less busy" if repeatable else look
        raise ServerUnavailable(masked(f"{api_url}{path}: {what}; {rest}")) from error
    if answer.is_error:
        raise ServerRefused(masked(f"{api_url}{path}: {_said(answer)}"))
    return answer.json() if answer.content else None


def _send(api_url: str, path: str, body: object, method: str) -> httpx.Response:
    headers, auth = {}, None
    if token := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {token}"
    elif login := os.environ.get("PREFECT_API_AUTH_STRING"):
        user, _, password = login.partition(":")
        auth = httpx.BasicAuth(user, password)
    answer = httpx.request(
        method, f"{api_url}{path}", json=body, headers=headers, auth=auth, timeout=30, follow_redirects=True
    )
    if answer.status_code in _PASSING:
        raise _BusyError(_said(answer))
    return answer


def _said(answer: httpx.Response) -> str:
    return f"answered {answer.status_code}: {answer.text[:300]}"


def _asked(send: Callable[[], httpx.Response], patience_s: float) -> httpx.Response:
    """The answer, asked for again while the server is busy. Where nothing listens nobody waits: raises at once."""
    attempts = Retrying(
        stop=stop_after_delay(patience_s),
        wait=wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
        retry=retry_if_exception(_may_pass),
        reraise=True,
    )
    return attempts(send)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, _BusyError | httpx.TransportError) and not isinstance(error, httpx.ConnectError)


def answers(api_url: str, patience_s: float = 0.0) -> bool:
    """Whether a healthy server is there; one that is busy is asked again for so long."""
    check_api_url(api_url)
    try:
        return _asked(partial(_health, api_url), patience_s).status_code == 200
    except (httpx.HTTPError, httpx.InvalidURL, _BusyError):
        return False


def require_server(api_url: str) -> str:
    """The address, where a server answers, busy or not. Raises `ServerUnavailable` where none does, also after
    `PATIENCE_S`, and as `check_api_url`."""
    check_api_url(api_url)
    try:
        _asked(partial(_health, api_url), PATIENCE_S)
    except _BusyError:
        pass
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerUnavailable(
            f"no Prefect server answers at {api_url}, which PREFECT_API_URL names: start it, or unset the variable to "
            "run with a temporary one"
        ) from error
    return api_url


def _health(api_url: str) -> httpx.Response:
    answer = httpx.get(f"{api_url}/health", timeout=5, follow_redirects=True)
    if answer.status_code in _PASSING:
        raise _BusyError(_said(answer))
    return answer
