"""One request to S3: what is repeated and for how long, what an answer means, and what is said of it. No server."""

from __future__ import annotations

import datetime as dt
import email.utils
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore import exceptions as boto
from s3transfer import exceptions as s3_transfer

from cures_core.errors import ConfigError, CorruptArtifact, CuresError, ServerRefused, StoreUnavailable
from tasks.storage import s3_client
from tasks.storage.s3_client import S3, AnswerError, make_client, split_url

PLACE = "s3://bucket/some/prefix"


class Clock:
    """Time that passes in `sleep` alone."""

    def __init__(self) -> None:
        self.now, self.pauses = 100.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Body(io.BytesIO):
    """An answer's body, in pieces of one byte."""

    def iter_chunks(self, _: int) -> Iterator[bytes]:
        while piece := self.read(1):
            yield piece


class Client:
    """Answers every operation by what `answers` holds under its name, and keeps what it was asked."""

    def __init__(self, **answers: Callable[[int], Any]) -> None:
        self.answers, self.asked = answers, list[tuple[str, dict[str, Any]]]()

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def request(*values: Any, **arguments: Any) -> Any:
            number = sum(name == operation for name, _ in self.asked)
            self.asked.append((operation, {**arguments, **({"values": values} if values else {})}))
            return self.answers[operation](number)

        if operation.startswith("_"):
            raise AttributeError(operation)
        return request


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(s3_client, "time", made)
    monkeypatch.setattr(s3_client, "_answered", set())
    return made


def reached(monkeypatch: pytest.MonkeyPatch, client: Any, url: str = PLACE, deadline_s: float = 60.0) -> S3:
    monkeypatch.setattr(s3_client, "make_client", lambda _endpoint, attempts: client)
    return S3(url, "http://s3", deadline_s)


def refused(status: int, code: str = "Code", text: str = "words") -> boto.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(answer, "Operation")


def failing(*errors: Exception, then: Any = "done") -> Callable[[int], Any]:
    """Raises one error after another, then answers; the last error for ever where `then` is one too."""

    def answer(number: int) -> Any:
        if number < len(errors):
            raise errors[number]
        if isinstance(then, Exception):
            raise then
        return then

    return answer


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [("s3://b", "b", ""), ("s3://b/", "b", ""), ("s3://b/x", "b", "x"), ("s3://b/x/y/", "b", "x/y")],
)
def test_a_bucket_and_a_prefix_in_it(monkeypatch: pytest.MonkeyPatch, url: str, bucket: str, prefix: str) -> None:
    assert split_url(url) == (bucket, prefix)
    s3 = reached(monkeypatch, Client(), url)
    assert s3.name("k/l") == f"{prefix}/k/l".lstrip("/")
    assert s3.url("k/l") == f"s3://{bucket}/{prefix}/k/l".replace("//k", "/k")


@pytest.mark.parametrize(
    "error",
    [
        *(refused(status) for status in (408, 409, 429, 500, 502, 503, 504)),
        refused(400, "SlowDown"),
        boto.EndpointConnectionError(endpoint_url="http://s3"),
        boto.ReadTimeoutError(endpoint_url="http://s3"),
        boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        ConnectionResetError("reset"),
        TimeoutError("late"),
    ],
    ids=repr,
)
def test_what_may_pass_is_repeated(monkeypatch: pytest.MonkeyPatch, clock: Clock, error: Exception) -> None:
    client = Client(head_object=failing(error, error))
    s3 = reached(monkeypatch, client)
    assert s3.call("head_object", "k", Extra=1) == "done"
    assert client.asked == [("head_object", {"Bucket": "bucket", "Key": "some/prefix/k", "Extra": 1})] * 3
    assert clock.pauses == [s3._pause(1), s3._pause(2)]


@pytest.mark.parametrize("status", [400, 404, 405, 412, 501, 505])
def test_what_cannot_pass_is_not(monkeypatch: pytest.MonkeyPatch, clock: Clock, status: int) -> None:
    client = Client(head_object=failing(then=refused(status)))
    with pytest.raises(ServerRefused) as told:
        reached(monkeypatch, client).call("head_object", "k")
    assert str(told.value) == f"{PLACE}/k: An error occurred (Code) when calling the Operation operation: words"
    assert (len(client.asked), clock.pauses) == (1, [])


def test_an_answer_without_a_status_cannot_pass(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    for answer in ({}, {"ResponseMetadata": {}}, {"Error": {}}):
        client = Client(head_object=failing(then=boto.ClientError(answer, "Operation")))  # type: ignore[arg-type]
        with pytest.raises(ServerRefused, match="Unknown"):
            reached(monkeypatch, client).call("head_object", "k", judged=(1,))
        assert len(client.asked) == 1
    assert clock.pauses == []


def test_answers_that_the_caller_judges_say_whether_an_earlier_attempt_may_have_had_an_effect(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    for before in ([], [refused(500)]):
        client = Client(put_object=failing(*before, refused(412, "PreconditionFailed")))
        with pytest.raises(AnswerError) as told:
            reached(monkeypatch, client).call("put_object", "k", judged=(404, 412))
        assert (told.value.status, told.value.code, str(told.value)) == (
            412,
            "PreconditionFailed",
            "412 PreconditionFailed",
        )
        assert told.value.repeated is bool(before)
    assert len(clock.pauses) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "Code"),
        (403, "Code"),
        *(
            (400, code)
            for code in (
                "ExpiredToken",
                "InvalidToken",
                "TokenRefreshRequired",
                "AuthorizationHeaderMalformed",
                "NoSuchBucket",
            )
        ),
    ],
)
def test_a_refusal_is_told_at_once_even_where_the_caller_judges(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, status: int, code: str
) -> None:
    client = Client(get_object=failing(then=refused(status, code)))
    with pytest.raises(ConfigError) as told:
        reached(monkeypatch, client).call("get_object", "k", judged=(400, 401, 403))
    assert str(told.value) == (
        f"{PLACE}/k: refused to an anonymous caller: An error occurred ({code}) when calling the Operation operation: "
        "words. Check the bucket's name, its policy, and that the credentials are valid and not expired"
    )
    assert (len(client.asked), clock.pauses) == (1, [])


@pytest.mark.parametrize(
    ("name", "shown"), [("AKIA567890123456", "AKIA...3456"), ("AKIA56789012345", "***"), ("x", "***")]
)
def test_of_the_caller_the_ends_of_a_long_key_are_told(monkeypatch: pytest.MonkeyPatch, name: str, shown: str) -> None:
    credentials = SimpleNamespace(access_key=name, method="env")
    client = SimpleNamespace(_request_signer=SimpleNamespace(_credentials=credentials))
    assert reached(monkeypatch, client)._principal() == f"access key {shown} (from env)"
    for without in (SimpleNamespace(), SimpleNamespace(_request_signer=SimpleNamespace())):
        assert reached(monkeypatch, without)._principal() == "an anonymous caller"


def test_without_credentials_and_with_what_boto_refuses_nothing_is_repeated(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    refusals = {
        boto.NoCredentialsError(): "no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        boto.InvalidRegionError(region_name="??"): "Provided region_name '??' doesn't match a supported format.",
    }
    for error, said in refusals.items():
        client = Client(get_object=failing(then=error))
        with pytest.raises(ConfigError) as told:
            reached(monkeypatch, client).call("get_object", "k")
        assert str(told.value) == f"{PLACE}/k: {said}"
        assert len(client.asked) == 1
    assert clock.pauses == []


def test_bytes_that_miss_their_checksum_once_may_be_the_networks(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    error = boto.FlexibleChecksumError(error_msg="other bytes")
    assert reached(monkeypatch, Client(get_object=failing(error))).call("get_object", "k") == "done"
    with pytest.raises(CorruptArtifact) as told:
        reached(monkeypatch, Client(get_object=failing(error, refused(500), then=error))).call("get_object", "k")
    assert str(told.value) == (
        f"{PLACE}/k: damaged in the bucket (other bytes): delete it there. To have it written again: "
        "cures run --resume RUN"
    )
    assert len(clock.pauses) == 3


@pytest.mark.parametrize(
    ("answered", "patience"), [(None, 60.0), (503, 60.0), (500, 60.0), (499, 900.0), (404, 900.0), (200, 900.0)]
)
def test_a_server_that_has_said_more_than_that_it_is_busy_is_waited_for_longer(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, answered: int | None, patience: float
) -> None:
    if answered:
        client = Client(get_object=failing(then="done" if answered == 200 else refused(answered)))
        with pytest.MonkeyPatch.context() as patch:
            s3 = reached(patch, client, deadline_s=0.0)
            try:
                s3.call("get_object", "k")
            except CuresError:
                assert answered != 200
    started, client = clock.now, Client(get_object=failing(then=TimeoutError("late")))
    clock.pauses.clear()
    s3 = reached(monkeypatch, client)
    with pytest.raises(StoreUnavailable) as told:
        s3.call("get_object", "k")
    tries = len(client.asked)
    assert str(told.value) == (
        f"{PLACE}/k: no success in {tries} attempts, the last one ended with: late. "
        "Retry when the server answers again; nothing committed is lost"
    )
    assert clock.pauses == [s3._pause(number) for number in range(1, tries)]
    assert clock.now - started <= patience < clock.now - started + s3._pause(tries)


def test_the_time_that_is_waited_is_the_longer_of_both(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    s3_client._answered.add("http://s3")
    with pytest.raises(StoreUnavailable):
        reached(monkeypatch, Client(get_object=failing(then=TimeoutError())), deadline_s=2000.0).call("get_object", "k")
    assert 1990 < clock.now - 100 <= 2000


def test_pauses_double_up_to_a_bound_and_differ_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = reached(monkeypatch, Client())
    monkeypatch.setattr(
        os, "getpid", lambda: 1
    )  # spread: 0.5 + the last three figures of 7919 + 104729 n, in thousandths
    assert [s3._pause(n) for n in (1, 2, 4, 5, 10)] == pytest.approx(
        [0.4 * 1.148, 0.8 * 0.877, 3.2 * 1.335, 5.0 * 1.064, 5.0 * 0.709]
    )
    monkeypatch.setattr(os, "getpid", lambda: 2)
    assert s3._pause(1) == pytest.approx(0.4 * 1.067)


def test_listings_go_on_to_the_last_page_and_tell_keys_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, before in ((PLACE, "some/prefix/"), ("s3://bucket", "")):
        pages = [
            {
                "Contents": [{"Key": f"{before}a/{n}", "Size": n, "ETag": f"e{n}"} for n in (first, first + 1)],
                "IsTruncated": first < 4,
                "NextContinuationToken": f"after {first + 1}",
            }
            for first in (0, 2, 4)
        ]
        client = Client(list_objects_v2=lambda n, pages=pages: pages[n])  # type: ignore[misc]
        s3 = reached(monkeypatch, client, url)
        assert s3.listing("a") == {f"a/{n}": (n, f"e{n}") for n in range(6)}
        asked = [dict(arguments) for _, arguments in client.asked]
        assert [each.pop("ContinuationToken", None) for each in asked] == [None, "after 1", "after 3"]
        assert asked == [{"Bucket": "bucket", "Prefix": f"{before}a/"}] * 3
        client.asked.clear()
        assert s3.sizes("a") == {f"a/{n}": n for n in range(6)}
    assert reached(monkeypatch, Client(list_objects_v2=lambda _: {})).listing("a") == {}


def test_objects_are_read_whole_by_their_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = Client(get_object=lambda _: {"Body": Body(b"bytes"), "ETag": "e"}, head_object=lambda _: {"ETag": "e"})
    s3, file = reached(monkeypatch, client), tmp_path / "file"
    assert s3.read("k") == (b"bytes", "e")
    assert s3.etag("k") == "e"
    assert s3.sha256("k") == "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9"
    s3.fetch("k", "e", file)
    assert file.read_bytes() == b"bytes"
    name = {"Bucket": "bucket", "Key": "some/prefix/k"}
    get = ("get_object", name)
    assert client.asked == [get, ("head_object", name), get, ("get_object", {**name, "IfMatch": "e"})]


def test_what_is_not_there_or_no_longer_the_same_is_for_the_caller_to_judge(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def told(status: int, act: Callable[[S3], object]) -> type[BaseException]:
        answer = failing(then=refused(status))
        client = Client(get_object=answer, head_object=answer, download_fileobj=answer)
        with pytest.raises((CuresError, AnswerError)) as found:
            act(reached(monkeypatch, client))
        return found.type

    acts: dict[str, Callable[[S3], object]] = {
        "read": lambda s3: s3.read("k"),
        "etag": lambda s3: s3.etag("k"),
        "fetch": lambda s3: s3.fetch("k", "e", tmp_path / "f"),
        "download": lambda s3: s3.download("k", tmp_path / "f"),
        "sha256": lambda s3: s3.sha256("k"),
    }
    assert {name: told(404, act) is AnswerError for name, act in acts.items()} == {
        "read": True, "etag": True, "fetch": True, "download": True, "sha256": False,
    }  # fmt: skip
    assert [name for name, act in acts.items() if told(412, act) is AnswerError] == ["fetch"]


def test_files_go_through_a_client_that_repeats_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: dict[int, Client] = {}

    def make(endpoint: str | None, attempts: int) -> Client:
        assert endpoint == "http://s3"
        return made.setdefault(attempts, Client(upload_fileobj=lambda _: None, download_fileobj=lambda _: None))

    monkeypatch.setattr(s3_client, "make_client", make)
    s3, file = S3(PLACE, "http://s3"), tmp_path / "file"
    file.write_bytes(b"bytes")
    s3.upload("k", file)
    s3.download("l", file)
    assert set(made) == {1, 8}
    assert made[1].asked == []
    (up, sent), (down, fetched) = made[8].asked
    assert (up, sent.pop("ExtraArgs"), sent["values"][1:]) == (
        "upload_fileobj", {"ChecksumAlgorithm": "SHA256"}, ("bucket", "some/prefix/k"),
    )  # fmt: skip
    assert (down, fetched["values"][:2]) == ("download_fileobj", ("bucket", "some/prefix/l"))
    assert [values["values"][index].name for values, index in ((sent, 0), (fetched, 2))] == [str(file)] * 2


@pytest.mark.parametrize("last", [boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), ConnectionResetError()])
def test_a_download_that_breaks_off_again_and_again_is_an_outage(
    last: Exception, monkeypatch: pytest.MonkeyPatch, clock: Clock, tmp_path: Path
) -> None:
    given_up = s3_transfer.RetriesExceededError(last)
    client = Client(download_fileobj=failing(given_up, given_up))
    reached(monkeypatch, client).download("k", tmp_path / "file")
    assert (len(client.asked), len(clock.pauses)) == (3, 2)
    with pytest.raises(StoreUnavailable, match=f"some/prefix/k: no success in .* attempts, .*: {last}"):
        reached(monkeypatch, Client(download_fileobj=failing(then=given_up))).download("k", tmp_path / "file")


def test_an_object_that_is_replaced_while_it_is_fetched_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, tmp_path: Path
) -> None:
    client = Client(download_fileobj=failing(s3_transfer.S3DownloadFailedError("did not match expected ETag")))
    reached(monkeypatch, client).download("k", tmp_path / "file")
    assert (len(client.asked), len(clock.pauses)) == (2, 1)


def test_uploads_are_stale_beyond_a_day_of_the_servers_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    ages = {"new": 60, "a day": 86_400, "stale": 86_401}
    page = {
        "ResponseMetadata": {"HTTPHeaders": {"date": email.utils.format_datetime(now, usegmt=True)}},
        "Uploads": [
            {"Key": f"some/prefix/a/{name}", "UploadId": name, "Initiated": now - dt.timedelta(seconds=age)}
            for name, age in ages.items()
        ],
    }
    client = Client(list_multipart_uploads=lambda _: page, abort_multipart_upload=lambda _: None)
    reached(monkeypatch, client).abort_stale_uploads("a")
    assert client.asked == [
        ("list_multipart_uploads", {"Bucket": "bucket", "Prefix": "some/prefix/a/"}),
        ("abort_multipart_upload", {"Bucket": "bucket", "Key": "some/prefix/a/stale", "UploadId": "stale"}),
    ]
    without = {"ResponseMetadata": page["ResponseMetadata"]}
    reached(monkeypatch, Client(list_multipart_uploads=lambda _: without)).abort_stale_uploads("a")


def test_who_is_stopped_waits_seconds_for_an_outage_to_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "_stopping_since", None)
    s3 = reached(monkeypatch, Client(get_object=failing(then=refused(503))))

    def waited() -> float:
        began = clock.now
        with pytest.raises(StoreUnavailable):
            s3.read("k")
        return clock.now - began

    assert 50 < waited() <= 60
    s3_client.hurry(StoreUnavailable("no reason to hurry"))
    assert 50 < waited() <= 60
    s3_client.hurry(KeyboardInterrupt())
    assert 0 < waited() <= 5
    assert 0 < waited() <= 5  # each of its last words
    s3_client.hurry(None)
    assert 50 < waited() <= 60


def test_a_request_that_waits_is_cut_short_from_the_first_stop_on(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "_stopping_since", None)
    began = clock.now

    def away(_: int) -> None:
        if clock.now >= began + 20:  # again and again, as who presses Ctrl-C twice
            s3_client.hurry(KeyboardInterrupt())
        raise refused(503)

    with pytest.raises(StoreUnavailable):
        reached(monkeypatch, Client(get_object=away)).read("k")
    assert 20 < clock.now - began <= 32


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_clients_of_own_servers_and_of_amazons(no_aws: pytest.MonkeyPatch) -> None:
    def settings(endpoint: str | None, attempts: int = 1) -> tuple[Any, ...]:
        made = make_client(endpoint, attempts)
        config = made.meta.config
        return made.meta.endpoint_url, made.meta.region_name, config.s3["addressing_style"]

    assert settings("http://own") == ("http://own", "us-east-1", "path")
    for variable in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(variable, "http://named")
            assert settings(None) == ("http://named", "us-east-1", "path")
    for variable in ("AWS_DEFAULT_REGION", "AWS_REGION"):  # the latter counts before the former
        no_aws.setenv(variable, f"{variable.lower().replace('_', '-')}-1")
        region = f"{variable.lower().replace('_', '-')}-1"
        assert settings("http://own") == ("http://own", region, "path")
        assert settings(None)[1:] == (region, "auto")
    config = make_client("http://own", 8).meta.config
    assert (config.connect_timeout, config.read_timeout) == (3.0, 30.0)
    assert config.retries == {"total_max_attempts": 8, "mode": "standard"}


def test_a_process_keeps_the_clients_it_has_made_for_each_caller(no_aws: pytest.MonkeyPatch) -> None:
    first = make_client("http://own", 1)
    assert make_client("http://own", 1) is first
    assert make_client("http://own", 2) is not first
    no_aws.setenv("AWS_ACCESS_KEY_ID", "another")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert make_client("http://own", 1) is not first


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_address_with_a_password_is_refused(no_aws: pytest.MonkeyPatch, variable: str) -> None:
    no_aws.setenv(variable, "http://user:canary@own")
    with pytest.raises(ConfigError) as told:
        make_client(None, 1)
    assert str(told.value).startswith(f"{variable} holds ")
    assert str(told.value).endswith(", which would be logged: name the address alone")
    assert "canary" not in str(told.value)


@pytest.mark.parametrize(
    ("endpoint", "variables", "said"),
    [
        (None, {"AWS_ACCESS_KEY_ID": "canary"}, "missing: AWS_SECRET_ACCESS_KEY"),
        (None, {"AWS_PROFILE": "nobody"}, "profile (nobody) could not be found"),
        ("own:9000", {"AWS_ACCESS_KEY_ID": "canary", "AWS_SECRET_ACCESS_KEY": "canary"}, "Invalid endpoint: own:9000"),
    ],
)
def test_settings_that_make_no_client_are_told_with_what_is_set(
    no_aws: pytest.MonkeyPatch, endpoint: str | None, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        no_aws.setenv(name, value)
    with pytest.raises(ConfigError) as told:
        make_client(endpoint, 1)
    named = ", ".join(variables)
    assert said in str(told.value)
    assert str(told.value).endswith(f"Correct store.endpoint_url, or the variables that begin with AWS_ ({named})")
    assert "canary" not in str(told.value)
