"""Where posterior snapshots are versioned: a git repository for the pointers, a DVC remote for the data."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator

from cures_core.config.base import Strict
from cures_core.config.marks import Placement
from cures_core.config.urls import GitUrl, LocalName, S3Url
from cures_core.errors import ConfigError
from cures_core.names import inside

_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")


class SnapshotConfig(Strict):
    """Git and DVC places of the snapshots. Secrets come from the environment (git's credential helper, AWS_*)."""

    repository: Placement[GitUrl | None] = None
    """Git repository that gets the tags: a path (a bare repository is made there on first use) or a URL that git can
    push to. None: `snapshots.git` in the store's folder."""
    remote: Placement[S3Url | None] = None
    """DVC remote that gets the Parquet files: a folder or `s3://bucket/prefix`. None: `dvc` in the store."""
    branch: Placement[LocalName] = Field(default="snapshots", max_length=100)
    """Branch that lists all snapshots."""
    endpoint_url: Placement[S3Url | None] = None
    """S3 endpoint, for servers other than Amazon's. None: the store's, else AWS_ENDPOINT_URL."""

    @field_validator("repository", "endpoint_url")
    @classmethod
    def _is_a_place(cls, url: str | None) -> str | None:
        if url is not None and (not url or url.startswith("-") or "::" in url.split("/")[0]):  # EXT::COMMAND runs it
            raise ValueError("is not a path or URL")
        return url

    @field_validator("remote")
    @classmethod
    def _remote_can_be_read_back(cls, remote: str | None) -> str | None:
        if (
            remote is not None
            and (not remote or "://" in remote)
            and not re.fullmatch(r"s3://[^/@:]+(/[^:]*)?", remote)
        ):
            raise ValueError("must be a folder or s3://bucket/prefix: what is pushed is read back and compared")
        if remote is not None and "://" in remote:
            inside(Path(), remote.removeprefix("s3://").rstrip("/"), "snapshot.remote")
        return remote

    @field_validator("branch")
    @classmethod
    def _is_a_branch(cls, branch: str) -> str:
        if not _BRANCH.fullmatch(branch) or ".." in branch or branch.endswith((".lock", ".")) or ".lock/" in branch:
            raise ValueError("must be a branch name of letters, digits, '.', '_', '-' and single '/'")
        return branch

    def within(self, store_url: str, endpoint_url: str | None = None) -> SnapshotConfig:
        """The same with its defaults filled in from the store's place and S3 endpoint.

        Raises `ConfigError` where the store is no folder, so that the repository has to be named.
        """
        if self.repository is None and "://" in store_url:
            raise ConfigError(f"snapshot.repository is needed: git cannot keep a repository in {store_url}")
        return self.model_copy(
            update={
                "repository": self.repository or f"{store_url.rstrip('/')}/snapshots.git",
                "endpoint_url": self.endpoint_url or endpoint_url,
                "remote": self.remote or f"{store_url.rstrip('/')}/dvc",
            }
        )
