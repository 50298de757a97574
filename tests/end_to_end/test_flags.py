"""A flagged prompt leaves a run's training; unflagged, it comes back with the evidence it had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cures_core import chains
from cures_core.prompts import PromptSet
from cures_core.prompts.flags import add
from tests.end_to_end.pipeline import cures, write_profile

pytestmark = pytest.mark.end_to_end


def test_unflagging_restores_the_posterior(tmp_path: Path) -> None:
    chains.write_builtin(tmp_path / "data" / "chains")
    profile = write_profile(tmp_path)
    profile.write_text(profile.read_text().replace("budget = 32\n", ""))
    rows = (tmp_path / "data/chains/train.jsonl").read_text().splitlines(keepends=True)[:60]
    (tmp_path / "set.jsonl").write_text("".join(rows))
    (tmp_path / "flags.jsonl").touch()
    settings = ["data.path=set.jsonl", "data.flags=flags.jsonl", "epochs=1", "prior.type=full",
                "prior.rollouts_per_prompt=2"]  # fmt: skip
    base = ["run", "--config", profile, "--json", *(text for one in settings for text in ("--set", one))]

    def summary(*more: str) -> dict[str, object]:
        ended = cures(*base, *more, cwd=tmp_path)
        assert ended.code == 0, ended.err
        return ended.summary

    first = summary()
    (clean,) = (tmp_path / ".cures").rglob("prompts.parquet")
    prompt_id = PromptSet.read_parquet(clean).ids[0]
    add(tmp_path / "flags.jsonl", "flag", [(prompt_id, "wrong gold")])
    second = summary("--set", f"prior.start_from=posterior/{first['run']}/0")
    assert second["run"] != first["run"]
    assert second["prompts"] == {"kept": first["prompts"]["reset"] - 1, "reset": 0, "archived": 1}  # type: ignore[index]
    add(tmp_path / "flags.jsonl", "unflag", [(prompt_id, "")])
    third = summary("--set", f"prior.start_from=posterior/{second['run']}/0")
    assert third["prompts"]["reset"] == 0  # type: ignore[index]
    assert third["rollouts"]["prior"] == 0  # type: ignore[index]
    assert json.loads((tmp_path / "flags.jsonl").read_text().splitlines()[1])["action"] == "unflag"
