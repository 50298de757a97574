"""How S3 is reached: one client, deadlines and retries, and what its errors mean."""

from __future__ import annotations

import email.utils
import functools
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cures_core.errors import ConfigError, CorruptArtifact, ServerRefused, StoreUnavailable
from cures_core.secrets import masked, secret_in_url

T = TypeVar("T")

CONNECT_S, READ_S = 3.0, 30.0
OUTAGE_S = 900.0
STOPPING_S = 5.0
_answered: set[str | None] = set()
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_ATTEMPTS_A_PART = 8
_STALE_UPLOAD_S = 86_400.0
_PASSING = {408, 409, 429, 500, 502, 503, 504}
_REFUSED = {401, 403}
_REFUSED_CODES = {
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "AuthorizationHeaderMalformed",
    "NoSuchBucket",
}


_stopping_since: float | None = None


def hurry(error: BaseException | None) -> None:
    """After what stops a process (Ctrl-C, SIGTERM: no `Exception`) its requests wait `STOPPING_S` for an outage to end,
    those that are being repeated too: nobody waits for minutes for a process to end. None: as before."""
    global _stopping_since
    if error is None:
        _stopping_since = None
    elif not isinstance(error, Exception):
        _stopping_since = _stopping_since or time.monotonic()


class AnswerError(Exception):
    """The server's answer to one attempt: HTTP status and S3 error code; for the caller of `S3.call` to judge."""

    def __init__(self, status: int, code: str, *, repeated: bool) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code, self.repeated = status, code, repeated


class S3:
    """A bucket and a prefix in it. All requests go through `attempt`.

    A request that may pass is repeated for `deadline_s`; for `OUTAGE_S` if its server has answered this process before,
    so that a wrong address is told soon, and an outage of minutes costs a run nothing but time. See `hurry`.
    """

    def __init__(self, url: str, endpoint_url: str | None = None, deadline_s: float = 60.0) -> None:
        self.bucket, self.prefix = split_url(url)
        self.endpoint_url, self._deadline_s = endpoint_url, deadline_s
        self.client = make_client(endpoint_url, attempts=1)

    @functools.cached_property
    def _transfers(self) -> Any:
        return make_client(self.endpoint_url, attempts=_ATTEMPTS_A_PART)  # repeats single parts, not whole files

    def name(self, key: str) -> str:
        """The object's key in the bucket."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def url(self, key: str) -> str:
        """The object as messages name it."""
        return f"s3://{self.bucket}/{self.name(key)}"

    def call(self, operation: str, key: str, judged: tuple[int, ...] = (), **arguments: Any) -> Any:
        """One S3 request, repeated with growing pauses while it may pass, until the deadline.

        Answers with a status in `judged` raise `AnswerError`, whose `repeated` says that an earlier attempt may have
        had an effect. Raises `StoreUnavailable` (deadline), `ConfigError` (credentials, rights, no such bucket) at
        once, and `ServerRefused` for other refusals.
        """
        request = getattr(self.client, operation)
        return self.attempt(key, lambda: request(Bucket=self.bucket, Key=self.name(key), **arguments), judged)

    def read(self, key: str) -> tuple[bytes, str]:
        """(bytes, ETag) of an object. Raises `AnswerError` with status 404 where there is none."""

        def request() -> tuple[bytes, str]:
            answer = self.client.get_object(Bucket=self.bucket, Key=self.name(key))
            return answer["Body"].read(), answer["ETag"]

        return self.attempt(key, request, judged=(404,))

    def etag(self, key: str) -> str:
        """What tells the object's content from another. Raises `AnswerError` with status 404 where there is none."""
        return str(self.call("head_object", key, judged=(404,))["ETag"])

    def fetch(self, key: str, etag: str, path: Path) -> None:
        """Write the object to a file. Raises `AnswerError` (404, 412) where it is no longer the one with this ETag."""

        def request() -> None:
            body = self.client.get_object(Bucket=self.bucket, Key=self.name(key), IfMatch=etag)["Body"]
            with path.open("wb") as f:
                for chunk in body.iter_chunks(1 << 20):
                    f.write(chunk)

        self.attempt(key, request, judged=(404, 412))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Keys of the objects in the folder `prefix` and below (relative to the store), with their sizes in bytes."""
        return {key: size for key, (size, _) in self.listing(prefix).items()}

    def listing(self, prefix: str) -> dict[str, tuple[int, str]]:
        """As `sizes`, with (size in bytes, ETag)."""
        found: dict[str, tuple[int, str]] = {}
        start = len(self.name("")) if self.prefix else 0
        more: dict[str, str] = {}
        while True:
            arguments = {"Bucket": self.bucket, "Prefix": f"{self.name(prefix)}/", **more}
            page = self.attempt(prefix, functools.partial(self.client.list_objects_v2, **arguments))
            found |= {item["Key"][start:]: (int(item["Size"]), str(item["ETag"])) for item in page.get("Contents", [])}
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def sha256(self, key: str) -> str:
        """SHA-256 of an object's bytes, hex."""

        def request() -> str:
            digest = hashlib.sha256()
            for chunk in self.client.get_object(Bucket=self.bucket, Key=self.name(key))["Body"].iter_chunks(1 << 20):
                digest.update(chunk)
            return digest.hexdigest()

        return self.attempt(key, request)

    def upload(self, key: str, path: Path) -> None:
        """Send a file, in parts where it is large; the server checks the SHA-256 of each."""

        def request() -> None:
            with path.open("rb") as f:
                extra = {"ChecksumAlgorithm": "SHA256"}
                self._transfers.upload_fileobj(f, self.bucket, self.name(key), ExtraArgs=extra)

        self.attempt(key, request)

    def download(self, key: str, path: Path) -> None:
        """Fetch an object into a file. Raises `AnswerError` with status 404 where there is none."""
        from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError

        def request() -> None:
            with path.open("wb") as f:
                try:
                    self._transfers.download_fileobj(self.bucket, self.name(key), f)
                except RetriesExceededError as error:  # bodies that broke off, one after another
                    raise error.last_exception from error
                except S3DownloadFailedError as error:  # replaced between two parts: another attempt reads the new one
                    raise ConnectionError(str(error)) from error

        self.attempt(key, request, judged=(404,))

    def abort_stale_uploads(self, prefix: str) -> None:
        """Drop what killed processes left of uploads in parts to the folder `prefix` and below: it is invisible, but
        paid for."""
        below = f"{self.name(prefix)}/"
        page = self.attempt(prefix, lambda: self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=below))
        now = email.utils.parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
        for upload in page.get("Uploads", []):
            if (now - upload["Initiated"]).total_seconds() > _STALE_UPLOAD_S:
                name = {"Bucket": self.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                self.attempt(prefix, functools.partial(self.client.abort_multipart_upload, **name))

    def attempt(self, key: str, request: Callable[[], T], judged: tuple[int, ...] = ()) -> T:
        """`call` for any request. Raises `CorruptArtifact` for bytes that twice were not those of their checksum."""
        from botocore import exceptions as boto

        passing = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError)
        started, tries, mismatches = time.monotonic(), 0, 0
        while True:  # not tenacity's: how long is waited changes meanwhile, by what others are answered and by `hurry`
            try:
                answer = request()
                _answered.add(self.endpoint_url)
                return answer
            except boto.NoCredentialsError as error:
                remedy = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                raise ConfigError(f"{self.url(key)}: no credentials. {remedy}") from error
            except boto.ClientError as error:
                self._judge(key, error, judged, repeated=tries > 0)
                failure: Exception = error
            except boto.FlexibleChecksumError as error:
                failure, mismatches = error, mismatches + 1
                if mismatches == 2:  # one may have been the network's
                    raise CorruptArtifact(
                        f"{self.url(key)}: damaged in the bucket ({error}): delete it there. To have it written again: "
                        "cures run --resume RUN"
                    ) from error
            except (*passing, ConnectionError, TimeoutError) as error:
                failure = error
            except boto.BotoCoreError as error:
                raise ConfigError(masked(f"{self.url(key)}: {error}")) from error
            tries += 1
            patience = max(self._deadline_s, OUTAGE_S) if self.endpoint_url in _answered else self._deadline_s
            until = started + patience
            if _stopping_since is not None:
                until = min(until, max(started, _stopping_since) + STOPPING_S)
            if time.monotonic() + self._pause(tries) > until:
                raise StoreUnavailable(
                    masked(f"{self.url(key)}: no success in {tries} attempts, the last one ended with: {failure}. ")
                    + "Retry when the server answers again; nothing committed is lost"
                ) from failure
            time.sleep(self._pause(tries))

    def _judge(self, key: str, error: Any, judged: tuple[int, ...], *, repeated: bool) -> None:
        """Return only where another attempt may succeed."""
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(error.response.get("Error", {}).get("Code", ""))
        if status < 500:
            _answered.add(self.endpoint_url)
        if status in _REFUSED or code in _REFUSED_CODES:
            raise ConfigError(
                masked(f"{self.url(key)}: refused to {self._principal()}: {error}. ")
                + "Check the bucket's name, its policy, and that the credentials are valid and not expired"
            ) from error
        if status in judged:
            raise AnswerError(status, code, repeated=repeated) from error
        if status not in _PASSING and code != "SlowDown":
            raise ServerRefused(masked(f"{self.url(key)}: {error}")) from error

    def _principal(self) -> str:
        """Who asks, without anything that could be used: the ends of the access key's id, and where it comes from."""
        found = getattr(self.client, "_request_signer", None)
        credentials = getattr(found, "_credentials", None)
        if credentials is None:
            return "an anonymous caller"
        name = credentials.access_key
        shown = f"{name[:4]}...{name[-4:]}" if len(name) >= 16 else "***"
        return f"access key {shown} (from {credentials.method})"

    def _pause(self, tries: int) -> float:
        """Seconds; doubling, spread over processes so that they do not come back together."""
        spread = 0.5 + (os.getpid() * 7919 + tries * 104729) % 1000 / 1000
        return float(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tries) * spread)


def make_client(endpoint_url: str | None, attempts: int) -> Any:
    """A boto3 S3 client. Credentials and, without `endpoint_url`, the endpoint come from the environment.

    Making one takes a tenth of a second and threads may share it, so a process keeps those it has made. Raises
    `ConfigError` where they cannot be used: half of the credentials, a profile that is not there, no address.
    """
    variables = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return _client(endpoint_url, attempts, variables)


@functools.cache
def _client(endpoint_url: str | None, attempts: int, _variables: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        if found := secret_in_url(os.environ.get(name, "")):
            raise ConfigError(f"{name} holds {found}, which would be logged: name the address alone")
    own_server = endpoint_url or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3")
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        s3={"addressing_style": "path" if own_server else "auto"},
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if own_server and not region:
        region = "us-east-1"
    try:
        return boto3.session.Session().client("s3", endpoint_url=endpoint_url, region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            masked(f"S3: {error}. Correct store.endpoint_url, or the variables that begin with AWS_ ({_named()})")
        ) from error


def _named() -> str:
    """The variables of S3's settings that are set, without what they hold."""
    return ", ".join(sorted(name for name in os.environ if name.startswith("AWS_"))) or "none is set"


def split_url(url: str) -> tuple[str, str]:
    """`s3://bucket/some/prefix` -> (bucket, prefix without slashes at its ends)."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, prefix.strip("/")
