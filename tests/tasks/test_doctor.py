from __future__ import annotations

import json
from pathlib import Path

import pytest

from cures_core.config.storage import StoreConfig
from cures_core.rewards import code
from tasks.doctor import examine
from tests.end_to_end.pipeline import cures


def by_name(store: StoreConfig) -> dict[str, str]:
    return {f.name: f.status for f in examine(store)}


def test_a_good_machine_lacks_nothing_and_the_store_is_left_as_it_was(tmp_path: Path) -> None:
    found = by_name(StoreConfig(url=str(tmp_path / "store")))
    assert {found[name] for name in ("python", "git", "store", "disk")} == {"ok"}
    assert not list((tmp_path / "store").rglob("doctor*"))


def test_what_is_missing_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = {f.name: f for f in examine(StoreConfig(url=str(tmp_path / "file" / "store")))}
    assert findings["git"].status == "missing"
    assert "apt-get install git" in findings["git"].remedy
    assert findings["store"].status == "missing"
    assert "file" in findings["store"].found
    assert findings["chromium"].status == "optional"


def test_where_programs_cannot_be_confined_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(code, "why_not", lambda: "the kernel has no Landlock")
    [found] = [f for f in examine(StoreConfig(url=str(tmp_path))) if f.name == "sandbox"]
    assert (found.status, "Landlock" in found.found) == ("optional", True)


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    outcome = cures("doctor", "--json", cwd=tmp_path, env={"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert outcome.code == 1
    assert {f["name"]: f["status"] for f in json.loads(outcome.out)}["prefect"] == "missing"
    assert cures("doctor", cwd=tmp_path).code == 0
