"""What a manifest says of published files."""

from __future__ import annotations

import pytest

from cures_core.errors import CorruptArtifact
from tasks.storage.folders import parse_manifest


def test_a_manifest_that_is_gone_is_named() -> None:
    with pytest.raises(CorruptArtifact, match=r"^objects/a/MANIFEST: gone, so the files beside it were never finished"):
        parse_manifest(None, "objects/a/MANIFEST")
