"""Where records, files, pointers and leases live."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from cures_core.config.base import Strict
from cures_core.config.marks import Operation, Placement
from cures_core.config.urls import LocalName, S3Url
from cures_core.names import check_key


class StoreConfig(Strict):
    """The store of stage records and their files. S3 credentials come from the environment (AWS_*)."""

    url: Placement[S3Url] = ".cures"
    """A folder (relative to the working directory), or `s3://bucket/prefix`."""
    endpoint_url: Placement[S3Url | None] = None
    """S3 endpoint, for servers other than Amazon's. None: AWS_ENDPOINT_URL, else Amazon's."""
    scratch: Placement[LocalName] = ".cures"
    """Folder for unfinished work and fetched files where the store is on S3; a store in a folder keeps them itself."""
    lease_ttl_s: Operation[float] = Field(default=60.0, gt=1)
    """Seconds without a heartbeat after which another process may take over a run."""

    @field_validator("url")
    @classmethod
    def _is_a_folder_or_s3(cls, url: str) -> str:
        if not url or (
            "://" in url and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_./-]*)?", url)
        ):
            raise ValueError("must be a folder or s3://bucket/prefix")
        if "://" in url:
            check_key(url.removeprefix("s3://").rstrip("/"))
        return url

    @property
    def folder(self) -> str:
        """The local folder of scratch work and, for a store in a folder, of the store."""
        return self.scratch if "://" in self.url else self.url
