"""The configuration of snapshots: defaults from the store's place, and what is refused before anything runs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cures_core.config.snapshot import SnapshotConfig
from cures_core.errors import ConfigError


def test_defaults_lie_in_the_store() -> None:
    cfg = SnapshotConfig().within("some/store/")
    assert (cfg.repository, cfg.remote, cfg.branch) == ("some/store/snapshots.git", "some/store/dvc", "snapshots")


def test_given_places_are_kept() -> None:
    given = {"repository": "git@host:a/b.git", "remote": "s3://b/p", "branch": "x/y", "endpoint_url": "http://e"}
    assert SnapshotConfig.model_validate(given).within("s", "http://other").model_dump() == given
    assert SnapshotConfig().within("s", "http://other").endpoint_url == "http://other"


def test_a_store_in_s3_needs_a_repository() -> None:
    with pytest.raises(ConfigError, match=r"snapshot\.repository"):
        SnapshotConfig().within("s3://bucket/x")
    cfg = SnapshotConfig(repository="r.git").within("s3://bucket/x")
    assert cfg.remote == "s3://bucket/x/dvc"


@pytest.mark.parametrize(
    "values",
    [
        {"repository": "https://user:token@host/r.git"},
        {"repository": ""},
        {"repository": "--upload-pack=x"},
        {"endpoint_url": "http://key:secret@localhost:9000"},
        {"remote": "gs://bucket"},
        {"remote": "s3://key:secret@bucket/x"},
        {"remote": ""},
        {"branch": ""},
        {"branch": "-x"},
        {"branch": "a..b"},
        {"branch": "a b"},
        {"branch": "a.lock"},
        {"branch": "refs/"},
        {"unknown": 1},
    ],
)
def test_what_cannot_work_or_holds_a_secret_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SnapshotConfig.model_validate(values)
