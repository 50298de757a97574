"""The S3 store where things go wrong: outages, lost answers, refusals, servers that cannot be trusted."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import FlexibleChecksumError
from pydantic import ValidationError

from cures_core.config.loading import load_config
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, CorruptArtifact, CuresError, LeaseHeld, LeaseLost, StoreUnavailable
from cures_core.testing.store import folder_of
from tasks.runs.opening import open_run
from tasks.storage import S3Store, open_store
from tasks.storage import s3_client as client_module
from tasks.storage.fencing import commit
from tasks.storage.lease import Lease, acquire, this_process
from tests.end_to_end.pipeline import PROFILE
from tests.tasks.storage.servers import BUCKET, KEYS, Action, FaultyServer, moto_url

__all__ = ["moto_url"]


@pytest.fixture
def place() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_S", 0.01)


def test_passing_errors_are_repeated(tmp_path: Path, moto_url: str, place: str) -> None:
    answers: list[Action] = [(503, "SlowDown"), (500, "InternalError"), (409, "Conflict")]
    with FaultyServer(moto_url, lambda n, _: answers[n] if n < 3 else None) as server:
        assert S3Store(place, tmp_path, server.url).put_if_absent("k", b"1")
        assert len(server.requests) == 4
    assert S3Store(place, tmp_path, moto_url).get("k") == b"1"


@pytest.mark.parametrize("expected", [None, b"0"])
def test_a_write_whose_answer_was_lost_counts_as_ones_own(
    tmp_path: Path, moto_url: str, place: str, expected: bytes | None
) -> None:
    if expected is not None:
        S3Store(place, tmp_path, moto_url).put("k", expected)
    writes: list[int] = []

    def lose_the_first_write(number: int, method: str) -> Action:
        writes.extend([number] if method == "PUT" else [])
        return "lose" if method == "PUT" and writes == [number] else None

    with FaultyServer(moto_url, lose_the_first_write) as server:
        assert S3Store(place, tmp_path, server.url).compare_and_swap("k", expected, b"1")
    assert len(writes) == 2


def test_a_write_that_somebody_else_made_meanwhile_is_not_ones_own(tmp_path: Path, moto_url: str, place: str) -> None:
    direct = S3Store(place, tmp_path, moto_url)

    def overtaken(number: int, method: str) -> tuple[int, str] | None:
        if number == 0:
            direct.put("k", b"theirs")
            return (500, "InternalError")
        return None

    with FaultyServer(moto_url, overtaken) as server:
        assert not S3Store(place, tmp_path, server.url).put_if_absent("k", b"mine")
    assert direct.get("k") == b"theirs"


def test_what_is_there_whole_is_neither_sent_nor_read_again(tmp_path: Path, moto_url: str, place: str) -> None:
    once, again = (folder_of(tmp_path / name, {"weights": b"1" * 1000}) for name in ("once", "again"))
    with FaultyServer(moto_url, lambda *_: None) as server:
        store = S3Store(place, tmp_path / "cache", server.url)
        digest = store.publish_files("a", once)
        sent = len(server.requests)
        assert store.publish_files("a", again) == digest
        assert store.local_path("a").joinpath("weights").read_bytes() == b"1" * 1000
        later = server.requests[sent:]
    assert later
    assert not [request for request in later if not request.startswith("GET ") or "/a/weights" in request]


def test_a_manifest_that_cannot_be_read_is_named_by_its_address(tmp_path: Path, moto_url: str, place: str) -> None:
    store = S3Store(place, tmp_path, moto_url)
    store.put("a/manifest.json", b"{")
    with pytest.raises(CorruptArtifact, match=f"^{place}/a/manifest.json: "):
        store.local_path("a")


def test_a_value_that_changes_between_look_and_swap_is_left(tmp_path: Path, moto_url: str, place: str) -> None:
    direct = S3Store(place, tmp_path, moto_url)
    direct.put("k", b"0")

    def overtaken(_: int, method: str) -> None:
        if method == "PUT":
            direct.put("k", b"theirs")

    with FaultyServer(moto_url, overtaken) as server:
        assert not S3Store(place, tmp_path, server.url).compare_and_swap("k", b"0", b"mine")
    assert direct.get("k") == b"theirs"


@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDenied"), (403, "InvalidAccessKeyId"), (400, "ExpiredToken")]
)
def test_a_refusal_ends_at_once_and_names_bucket_key_and_caller_but_no_secret(
    tmp_path: Path, moto_url: str, place: str, status: int, code: str
) -> None:
    with FaultyServer(moto_url, lambda *_: (status, code)) as server:
        store = S3Store(place, tmp_path, server.url)
        started = time.monotonic()
        for act in (lambda: store.get("k"), lambda: store.put_if_absent("k", b""), lambda: list(store.list("k"))):
            with pytest.raises(ConfigError) as caught:
                act()
            message = str(caught.value)
            assert f"{place}/k" in message
            assert code in message
            assert "AKIA...0001 (from env)" in message
            assert KEYS["AWS_SECRET_ACCESS_KEY"] not in message
            assert KEYS["AWS_ACCESS_KEY_ID"] not in message
        assert len(server.requests) == 3
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("name", "shown"), [("AKIA567890123456", "AKIA...3456"), ("AKIA56789012345", r"\*\*\*")])
def test_of_a_short_access_key_nothing_is_shown(
    tmp_path: Path, moto_url: str, place: str, monkeypatch: pytest.MonkeyPatch, name: str, shown: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
    with (
        FaultyServer(moto_url, lambda *_: (403, "AccessDenied")) as server,
        pytest.raises(ConfigError, match=rf"refused to access key {shown} \(from env\)") as caught,
    ):
        S3Store(place, tmp_path, server.url).get("k")
    assert name not in str(caught.value)


def test_other_refusals_are_errors_that_are_not_repeated(tmp_path: Path, moto_url: str, place: str) -> None:
    with FaultyServer(moto_url, lambda *_: (400, "InvalidRequest")) as server:
        with pytest.raises(CuresError, match="InvalidRequest"):
            S3Store(place, tmp_path, server.url).get("k")
        assert len(server.requests) == 1


def test_an_object_that_cannot_be_read_is_named(tmp_path: Path, moto_url: str, place: str) -> None:
    with FaultyServer(moto_url, lambda *_: (403, "AccessDenied")) as server:
        s3 = S3Store(place, tmp_path, server.url)._s3
        for act in (
            lambda: s3.sha256("k"),
            lambda: s3.download("k", tmp_path / "k"),
            lambda: s3.fetch("k", "etag", tmp_path / "k"),
            lambda: s3.upload("k", Path(__file__)),
        ):
            with pytest.raises(ConfigError, match=f"{place}/k: refused"):
                act()


def test_an_object_that_is_gone_is_told_by_its_status(tmp_path: Path, moto_url: str, place: str) -> None:
    s3 = S3Store(place, tmp_path, moto_url)._s3
    for act in (lambda: s3.fetch("k", '"0"', tmp_path / "k"), lambda: s3.download("k", tmp_path / "k")):
        with pytest.raises(client_module.AnswerError) as caught:
            act()
        assert caught.value.status == 404


def test_a_bucket_that_is_not_there_is_a_configuration_error(tmp_path: Path, moto_url: str) -> None:
    store = S3Store("s3://no-such-bucket/x", tmp_path, moto_url)
    for act in (lambda: store.get("k"), lambda: store.put_if_absent("k", b""), lambda: list(store.list("k"))):
        with pytest.raises(ConfigError, match="no-such-bucket"):
            act()


def test_without_credentials_the_message_says_which_to_set(
    tmp_path: Path, moto_url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        S3Store(place, tmp_path, moto_url).get("k")


@pytest.mark.usefixtures("moto_url")  # for its credentials
def test_a_server_that_does_not_answer_is_given_up_at_the_deadline(tmp_path: Path, place: str) -> None:
    store = S3Store(place, tmp_path, "http://127.0.0.1:9", deadline_s=0.5)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=f"{place}/k: no success in .* attempts"):
        store.get("k")
    assert time.monotonic() - started < 2


def test_bytes_that_are_not_those_of_their_checksum_are_damaged_at_the_second_look(moto_url: str, place: str) -> None:
    answers: list[Exception | bytes] = []

    def request() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    mismatch = FlexibleChecksumError(error_msg="expected a, got b")
    s3 = client_module.S3(place, moto_url)
    answers += [mismatch, b"1"]
    assert s3.attempt("k", request) == b"1"
    answers += [mismatch, mismatch, b"1"]
    with pytest.raises(
        CorruptArtifact, match=f"{place}/k: damaged in the bucket .*expected a, got b.* delete it there"
    ):
        s3.attempt("k", request)
    assert answers == [b"1"]


@pytest.mark.parametrize("what", ["strip", "strip if-match", "strip if-none-match"])
def test_a_server_that_ignores_conditions_is_refused(tmp_path: Path, moto_url: str, place: str, what: Action) -> None:
    with FaultyServer(moto_url, lambda *_: what) as server:
        with pytest.raises(ConfigError, match=f"^{place}/?: this S3 server ignores conditional writes"):
            S3Store(place, tmp_path, server.url).check_conditional_writes()
        with pytest.raises(ConfigError, match="ignores conditional writes"):
            open_store(StoreConfig(url=place, scratch=str(tmp_path), endpoint_url=server.url))
    honest = S3Store(place, tmp_path, moto_url)
    honest.check_conditional_writes()
    assert list(honest.list("probes")) == []


def test_open_store_uses_the_configured_endpoint_and_scratch_folder(tmp_path: Path, moto_url: str, place: str) -> None:
    cfg = StoreConfig(url=place, scratch=str(tmp_path / "work"), endpoint_url=moto_url)
    store = open_store(cfg)
    store.publish_files("art", folder_of(tmp_path / "in", {"a": b"1"}))
    assert store.local_path("art").is_relative_to(tmp_path / "work")
    assert (cfg.folder, StoreConfig(url="here").folder) == (str(tmp_path / "work"), "here")
    assert S3Store(place, tmp_path, moto_url).local_path("art").joinpath("a").read_bytes() == b"1"


@pytest.mark.parametrize("url", ["", "gs://b/x", "s3://", "s3://UPPER/x", "s3://key:secret@bucket/x", "http://host/b"])
def test_store_urls_that_cannot_work_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        StoreConfig(url=url)


def test_large_files_go_in_parts(tmp_path: Path, moto_url: str, place: str) -> None:
    data = bytes(range(256)) * 80_000  # 20 MB; parts are 8 MB
    with FaultyServer(moto_url, lambda *_: None) as server:
        store = S3Store(place, tmp_path / "cache", server.url)
        digest = store.publish_files("art", folder_of(tmp_path / "in", {"weights": data}))
        assert sum("partNumber=" in request for request in server.requests) == 3
    other = S3Store(place, tmp_path / "elsewhere", moto_url)
    other.verify_files("art", digest)
    assert other.local_path("art").joinpath("weights").read_bytes() == data


def test_an_interrupted_publication_is_none_and_can_be_repeated(
    tmp_path: Path, moto_url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(place, tmp_path / "cache", moto_url)
    files = {"a": b"1", "b": b"2", "c": b"3"}
    upload = client_module.S3.upload

    def broken(s3: Any, key: str, path: Path) -> None:
        if key.endswith("/c"):
            raise KeyboardInterrupt
        upload(s3, key, path)

    with monkeypatch.context() as patch:
        patch.setattr(client_module.S3, "upload", broken)
        with pytest.raises(KeyboardInterrupt):
            store.publish_files("art", folder_of(tmp_path / "in", files))
    assert list(store.list("art")) == ["art/a", "art/b"]
    with pytest.raises(CorruptArtifact):
        store.verify_files("art", deep=False)
    store.verify_files("art", store.publish_files("art", folder_of(tmp_path / "again", files)))


def test_uploads_left_by_killed_processes_are_dropped(
    tmp_path: Path, moto_url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(place, tmp_path / "cache", moto_url)
    client, key = store._s3.client, store._s3.name("artifacts/x")

    def left() -> int:
        return len(client.list_multipart_uploads(Bucket=BUCKET, Prefix=key).get("Uploads", []))

    client.create_multipart_upload(Bucket=BUCKET, Key=key)  # moto dates it to 2010
    with monkeypatch.context() as patch:
        patch.setattr(client_module, "_STALE_UPLOAD_S", 1e12)
        store.publish_files("artifacts/one", folder_of(tmp_path / "a", {"a": b"1"}))
    assert left() == 1  # young enough to be under way
    store.publish_files("artifacts/two", folder_of(tmp_path / "b", {"a": b"1"}))
    assert left() == 0


def test_uploads_of_other_programs_are_left_alone_where_the_store_is_a_whole_bucket(
    tmp_path: Path, moto_url: str, place: str
) -> None:
    client, theirs = S3Store(place, tmp_path / "cache", moto_url)._s3.client, "artifactory/backup"
    client.create_bucket(Bucket="shared")
    client.create_multipart_upload(Bucket="shared", Key=theirs)
    client.create_multipart_upload(Bucket="shared", Key="artifacts/x")
    store = S3Store("s3://shared", tmp_path / "whole", moto_url)
    store.publish_files("artifacts/one", folder_of(tmp_path / "a", {"a": b"1"}))
    left = client.list_multipart_uploads(Bucket="shared")["Uploads"]
    assert [upload["Key"] for upload in left] == [theirs]


def test_fetched_files_are_checked_kept_and_fetched_again_if_lost(tmp_path: Path, moto_url: str, place: str) -> None:
    S3Store(place, tmp_path / "maker", moto_url).publish_files(
        "art", folder_of(tmp_path / "in", {"a": b"1", "b": b"22", "deep/er/c": b"333"})
    )
    with FaultyServer(moto_url, lambda *_: None) as server:
        store = S3Store(place, tmp_path / "reader", server.url)
        folder = store.local_path("art")
        first = len([r for r in server.requests if r.endswith("/art/b")])
        assert store.local_path("art") == folder
        assert len([r for r in server.requests if r.endswith("/art/b")]) == first
        assert (folder / "deep/er/c").read_bytes() == b"333"
        (folder / "b").write_bytes(b"2")
        assert (store.local_path("art") / "b").read_bytes() == b"22"


def test_what_has_been_read_is_noted_once_and_not_read_again(tmp_path: Path, moto_url: str, place: str) -> None:
    digest = S3Store(place, tmp_path / "maker", moto_url).publish_files("art", folder_of(tmp_path / "in", {"a": b"11"}))
    with FaultyServer(moto_url, lambda *_: None) as server:
        store = S3Store(place, tmp_path / "reader", server.url)

        def asked(deep: bool) -> list[str]:
            """Methods and names of what one look asks for, but for the manifest and the listing."""
            del server.requests[:]
            store.verify_files("art", digest, deep=deep)
            said = [f"{one.split()[0]} {one.rpartition('/')[2]}" for one in server.requests if "?" not in one]
            return [one for one in said if one != "GET manifest.json"]

        assert asked(deep=False) == ["GET .etags.json"]
        assert asked(deep=True) == ["GET .etags.json", "GET a"]
        store._s3.call("delete_object", "art/.etags.json")
        assert asked(deep=False) == ["GET .etags.json", "GET a", "PUT .etags.json"]
        assert asked(deep=False) == ["GET .etags.json"]
        store._s3.call("put_object", "art/.etags.json", Body=b"{}")  # as of other objects
        assert asked(deep=False) == ["GET .etags.json", "GET a", "PUT .etags.json"]
    with FaultyServer(moto_url, lambda _, method: (403, "AccessDenied") if method == "PUT" else None) as server:
        S3Store(place, tmp_path / "only reads", server.url).verify_files("art", digest)


def test_files_changed_on_the_server_are_not_handed_out(tmp_path: Path, moto_url: str, place: str) -> None:
    store = S3Store(place, tmp_path / "maker", moto_url)
    store.publish_files("art", folder_of(tmp_path / "in", {"a": b"11"}))
    store.put("art/a", b"12")
    with pytest.raises(CorruptArtifact, match="art/a"):
        S3Store(place, tmp_path / "reader", moto_url).local_path("art")
    store.delete("art/a")
    with pytest.raises(CorruptArtifact, match="art/a"):
        S3Store(place, tmp_path / "reader", moto_url).local_path("art")


def test_long_listings_come_in_pages(
    tmp_path: Path, moto_url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(place, tmp_path, moto_url)
    for i in range(7):
        store.put(f"runs/{i}", b"x" * i)
    whole = store._s3.client.list_objects_v2
    monkeypatch.setattr(store._s3.client, "list_objects_v2", lambda **arguments: whole(**arguments, MaxKeys=3))
    assert list(store.list("runs")) == [f"runs/{i}" for i in range(7)]


def test_leases_and_commits_hold_on_s3(tmp_path: Path, moto_url: str, place: str) -> None:
    store = S3Store(place, tmp_path, moto_url)
    lease = Lease(store, "run", 30)
    with pytest.raises(LeaseHeld):
        acquire(S3Store(place, tmp_path, moto_url), "run", 30, this_process())
    assert lease.commit("record", b"1")
    lease.close()
    second = Lease(store, "run", 30)
    assert second.token == lease.token + 1
    with pytest.raises(LeaseLost):
        commit(store, "run", lease.token, "late", b"1")
    assert store.get("late") is None
    second.close()


def test_a_server_that_has_answered_is_waited_for_longer_than_a_stranger(
    tmp_path: Path, moto_url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away_until = 0.0
    with FaultyServer(
        moto_url, lambda *_: (503, "ServiceUnavailable") if time.monotonic() < away_until else None
    ) as server:
        store = S3Store(place, tmp_path, server.url, deadline_s=0.2)
        away_until = time.monotonic() + 1
        with pytest.raises(StoreUnavailable):
            store.put("k", b"1")
        away_until = 0.0
        assert store.get("k") is None  # that, too, is an answer
        away_until = time.monotonic() + 1
        store.put("k", b"1")
        assert time.monotonic() >= away_until
        monkeypatch.setattr(client_module, "OUTAGE_S", 0.5)
        away_until = time.monotonic() + 60
        with pytest.raises(StoreUnavailable, match="nothing committed is lost"):
            store.put("k", b"2")


@pytest.mark.end_to_end
def test_who_is_stopped_during_an_outage_ends_soon_and_as_what_it_is(
    tmp_path: Path, moto_url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another thread has begun to wait: as for the lease's sign of life."""
    away, asked = False, 0.0
    (tmp_path / "tiny.toml").write_text(PROFILE)

    def stopped_while_away() -> None:
        nonlocal away, asked
        with open_run(load_config(tmp_path / "tiny.toml", settings)):
            away = True
            time.sleep(4)  # a sign of life is due, and waits
            client_module.hurry(StoreUnavailable("no reason to hurry"))
            asked = time.monotonic()
            raise KeyboardInterrupt

    with FaultyServer(moto_url, lambda *_: (503, "ServiceUnavailable") if away else None) as server:
        settings = [f"store.url={place}", f"store.endpoint_url={server.url}", "store.lease_ttl_s=5"]
        monkeypatch.setattr(client_module, "STOPPING_S", 0.5)
        with pytest.raises(KeyboardInterrupt):
            stopped_while_away()
    assert time.monotonic() - asked < 60
    assert client_module._stopping_since is None
