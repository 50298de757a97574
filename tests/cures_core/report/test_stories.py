"""The part of the report that goes from what was believed of a prompt to what the policy wrote."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cures_core.report import ReportData, render
from tests.cures_core.report.test_report import HOSTILE, checked, full, named


def story(name: str, completion: str = "so it is 15", num: int = 2, **other: Any) -> dict[str, Any]:
    beliefs = [
        {"label": "prior", "step": 0, "mean": 0.125, "low": 0.0, "high": 0.5},
        {"label": "epoch 1", "step": 30, "mean": 0.75, "low": 0.5, "high": 0.875},
    ]
    written = [
        {
            "step": 10 * i + 7,
            "outcome": "wrong" if i == 0 else "correct",
            "reason": "read 12",
            "reward": float(i > 0),
            "advantage": i - 0.5,
            "tokens": 34,
            "truncated": i == 0,
            "completion": completion,
        }
        for i in range(num)
    ]
    text = {"problem": "What is 7 + 8?", "answer": "15", "kept": 9}
    return {"id": name, **text, "beliefs": beliefs, "rollouts": written, **other}


def page(*stories: dict[str, Any]) -> str:
    return render(ReportData.model_validate({**full().model_dump(), "stories": stories}))


def test_a_prompt_of_a_table_leads_to_its_posterior_and_its_completions() -> None:
    html = page(story("other"), story("f00d"))
    found = checked(html)
    assert set(found.addresses) == {"#prompt-2"}
    assert html.count('id="prompt-2"') == 1
    told = " ".join(re.sub("<[^>]+>", " ", html[html.index('id="prompt-2"') :]).split())
    for words in (
        "Gold answer: 15. Content id: f00d",
        "prior 0 12.5 % 0.0 % 50.0 % epoch 1 30 75.0 % 50.0 % 87.5 %",
        "Step 7: wrong, cut at the token limit Reward 0, advantage -0.50, 34 tokens; read 12 so it is 15",
        "Step 17: correct Reward 1, advantage +0.50, 34 tokens; read 12 so it is 15",
    ):
        assert words in told
    assert "cures rollouts show --run demo-1" in html


def test_a_report_without_kept_rollouts_says_so_and_links_nowhere() -> None:
    html = page()
    assert "No rollout was kept" in html
    assert checked(html).addresses == []


@pytest.mark.parametrize("field", ["problem", "answer", "id"])
def test_hostile_texts_stay_texts(field: str) -> None:
    html = page({**story("f00d", HOSTILE), field: HOSTILE})
    checked(html)
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;U+202E&gt;" in html
    html.encode()


def test_the_size_is_bounded_whatever_completions_hold() -> None:
    empty = len(page())
    rows = [named("What is 7 + 8?", 0.1, 0.9)]
    assert rows

    def grown(character: str) -> int:
        texts = {"problem": character * 600, "answer": character * 200}
        many = [story(f"{i:032x}", character * 1240, num=6, **texts) for i in range(24)]
        return len(page(*many).encode()) - empty

    assert grown("a") < 400_000
    assert grown("\x00") < 3_500_000
