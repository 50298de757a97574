"""A recording that was renewed is told in CHANGELOG.md, which names what is recorded now."""

from __future__ import annotations

from tests.end_to_end.pipeline import PROJECT
from tests.recorded.recording import digest


def test_the_changelog_names_what_is_recorded_now() -> None:
    said = f"Recorded runs: `{digest()}`"
    newest = (PROJECT / "CHANGELOG.md").read_text().split("\n## ")[1]
    assert said in newest, f"CHANGELOG.md: say what changes results, and put {said!r} there"
