from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from cures_core.config.run import RunConfig
from cures_core.evaluation.scores import Estimate, LabelScore, SuiteScore
from cures_core.report import ReportData, render
from cures_core.report.charts import Series, histograms, line_chart, number, smooth, ticks
from cures_core.report.figures import allocation_figure
from cures_core.report.lineage import lineage_graph
from cures_core.report.metrics import plain
from cures_core.report.page import asked, safe_text

HOSTILE = "<script>alert(1)</script>\u202e\ud800\x00 {{ 7*7 }} </pre>"


def score(suite: str, value: float) -> SuiteScore:
    estimate = Estimate(value=value, low=value - 0.05, high=value + 0.05)
    return SuiteScore(
        suite=suite,
        n=321,
        k=4,
        avg=estimate,
        pass_at={"1": estimate, "4": Estimate(value=value + 0.04, low=value, high=value + 0.05)},
        greedy=estimate,
        unknown_share=0.0,
        truncated_share=0.25,
        tokens_mean=7.0,
        majority=Estimate(value=value + 0.02, low=value, high=value + 0.04),
        by_subject={
            "sets": LabelScore(avg=estimate, n=300, unknown_share=0.125, truncated_share=0.5, tokens_mean=6.5),
            "logic": LabelScore(avg=value, n=21),
        },
        settings={},
    )


def named(problem: str, before: float, after: float) -> dict[str, Any]:
    row = {"id": "f00d", "problem": problem, "answer": "15", "before": before, "after": after}
    return {**row, "successes": 2.5, "failures": 0.5}


def full() -> ReportData:
    steps = [
        {
            "step": float(i),
            "rollouts_total": 64.0 * i,
            "reward_mean": i / 40,
            "taught_share": 0.75,
            "informative_share": 0.5,
            "loss": 0.1,
            "entropy": 1 / i,
            "grad_norm": 1.5,
            "completion_tokens_mean": 7.25,
            "truncated_share": 0.0,
        }
        for i in range(1, 31)
    ]
    belief: dict[str, Any] = {"prompts": 60, "evidence": 9.0, "dead_share": 0.125, "frontier_share": 0.5}
    return ReportData.model_validate(
        {
            "run": "demo-1",
            "status": "completed",
            "started_at": "2026-11-27T21:02:30+00:00",
            "steps": steps,
            "scores": [
                {"label": "before", "suites": [score("algebra", 0.2)]},
                {
                    "label": "after epoch 1",
                    "rollouts": 1920,
                    "tokens": 23456,
                    "seconds": 12.5,
                    "suites": [score("algebra", 0.6)],
                },
            ],
            "gains": {"algebra": {"value": 0.4, "low": 0.31, "high": 0.49, "p_value": 1e-9}},
            "greedy_gains": {"algebra": {"value": 0.3, "low": 0.21, "high": 0.39, "p_value": 1e-9}},
            "posteriors": [
                {"label": "prior", "histogram": [0, 60, 0], **belief},
                {"label": "epoch 1", "histogram": [10, 20, 30], **belief},
            ],
            "reliability": [{"predicted": 0.25, "observed": 0.3, "rollouts": 64}],
            "calibration": [
                {"label": "epoch 1", "bins": [{"predicted": 0.25, "observed": 0.625, "rollouts": 64}]},
                {"label": "epoch 2", "bins": [{"predicted": 0.5, "observed": 0.5, "rollouts": 8}]},
            ],
            "stages": [
                {"name": "validate_dataset", "key": "1"},
                {"name": "train_epoch", "label": "1", "key": "2", "seconds": 12.5},
            ],
            "named": {
                "moved": [named("What is 7 + 8?", 0.1, 0.9)],
                "suspicious": [
                    {
                        "reason": "answer disputed",
                        "meaning": "Most agree on another answer.",
                        "total": 17,
                        "rows": [{**named(HOSTILE, 0.4, 0.02), "evidence": "6 of 8 rollouts answer <12>"}],
                    }
                ],
                "allocation": {"prompts": [0.75, 0.25], "rollouts": [0.125, 0.875]},
            },
            "suspicious_items": [
                {
                    "suite": "algebra",
                    "reason": "never solved",
                    "meaning": "No answer stands out.",
                    "total": 1,
                    "rows": [{**named("What is 0 / 0?", 0.0, 0.0), "evidence": "8 rollouts, none correct"}],
                }
            ],
            "examples": [
                {
                    "suite": "s",
                    "problem": HOSTILE,
                    "gold": "1",
                    "completion": HOSTILE * 900,
                    "outcome": "wrong",
                    "before": HOSTILE,
                    "before_outcome": "correct",
                }
            ],
            "validation": {"rows_read": 70, "kept": 60, "rejected": 9, "dropped": 1, "reasons": {"empty_answer": 9}},
            "snapshots": [{"tag": "posterior/demo-1/1", "md5": "d41d8"}],
            "decision": {"promoted": False, "reasons": ["the gain is too small"]},
            "cost": {
                "warm_start": {"rollouts": 0, "tokens": 0, "seconds": 60.5, "updates": 1400},
                "prior": {"rollouts": 12345, "tokens": 6, "seconds": 2.25},
                "train": {"rollouts": 1920, "tokens": 23456, "seconds": 12.5, "updates": 30},
                "eval": {"rollouts": 10, "tokens": 50, "seconds": 1.0},
            },
            "wasted": {"first_tries": 1200, "unused": 900, "unused_tokens": 11000},
            "versions": {"cures": "9.9", "commit": "0123456789ab changed", "python": "3.11.4"},
            "machines": [["train_epoch 1", {"processor": "Fast One", "device": "cuda", "gpu": "Big One"}]],
            "lineage": [["validate_dataset/1", "train_epoch/2"], ["elsewhere/3", "train_epoch/2"]],
            "notices": ["read this first"],
        }
    )


class Checker(HTMLParser):
    """Balance of tags, and every address the page would fetch."""

    void = frozenset({"meta", "br", "circle", "line", "path", "rect", "polyline", "polygon"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.void

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    return checker


def test_the_page_is_whole_fetches_nothing_and_runs_nothing() -> None:
    page = checked(render(full()))
    assert page.addresses == []
    assert "script" not in page.tags
    assert not re.search(r"https?://|url\(|@import", render(full()))


def test_the_numbers_of_the_tables_are_those_of_the_data() -> None:
    text = " ".join(re.sub("<[^>]+>", " ", render(full())).split())
    assert "20.0 % [15.0 %, 25.0 %] 60.0 % [55.0 %, 65.0 %] +40.0 [+31.0, +49.0] 321 4" in text
    assert "from 20.0 % to 60.0 %" in text
    assert "greedy 20.0 % [15.0 %, 25.0 %] 60.0 % [55.0 %, 65.0 %] +30.0 [+21.0, +39.0] 321 1" in text
    assert "maj@4 22.0 % [20.0 %, 24.0 %] 62.0 % [60.0 %, 64.0 %] +40.0" in text
    assert "sets 20.0 % [15.0 %, 25.0 %] 60.0 % [55.0 %, 65.0 %] 300 12.5 % 50.0 % 6.5" in text
    assert "logic 20.0 % 60.0 % 21 - - -" in text
    assert "algebra 0.0 % to 0.0 % 25.0 % to 25.0 % 7.0 to 7.0" in text
    assert "70 rows read, 60 kept, 9 rejected, 1 dropped" in text
    assert "empty_answer 9" in text
    assert "12,345" in text
    assert "Not promoted. the gain is too small" in text
    assert "read this first" in text
    assert "What is 7 + 8? 15 10.0 % 90.0 % 2.5 / 0.5 f00d" in text
    assert "Suspicious, answer disputed: 17 prompts Most agree on another answer. Look at them" in text
    assert "Here those tried most. problem gold answer evidence" in text
    assert "Suspicious, never solved: 1 items of algebra No answer stands out. Look at them" in text
    assert "What is 0 / 0? 15 8 rollouts, none correct 0.0 % 0.0 % 2.5 / 0.5 f00d" in text
    assert "6 of 8 rollouts answer &lt;12&gt;" in text
    assert "Hardest" not in text  # there is none
    assert "50 to 100 87.5 25.0" in text  # allocation as a table: second bin
    assert "after epoch 1 algebra 60.0 55.0 65.0 1,920 23,456 12 0" in text
    assert "0 to 33.3333 0 10" in text  # prompts by expected pass rate: counts are whole
    assert "started 2026-11-27 21:02 UTC, completed" in text


def words(html: str) -> str:
    return " ".join(re.sub("<[^>]+>", " ", html).split())


def test_the_account_has_every_kind_of_work_and_the_sum() -> None:
    text = words(render(full()))
    assert "for rollouts completion tokens wall time, s updates" in text
    assert "warm start of the policy - - 60.5 1,400 estimating the prior 12,345 6 2.2 -" in text
    assert "training 1,920 23,456 12.5 30 of these, first tries of screening 1,200" in text
    assert "of these, in no update 900 11,000 evaluation 10 50 1.0 -" in text
    assert "all of it 14,275 23,512 76.2 1,430" in text


def test_what_computed_the_numbers_is_in_sight() -> None:
    html = render(full())
    text = words(html)
    assert "cures 9.9 commit 0123456789ab changed python 3.11.4" in text
    assert "processor Fast One device cuda gpu Big One" in text
    versions = html.index("0123456789ab")
    assert html.rfind("<details", 0, versions) < html.rfind("</details>", 0, versions)  # not folded away


def test_steps_are_drawn_and_tabled_with_units() -> None:
    html = render(full())
    for title in ("Loss", "Entropy", "Gradient norm", "Length", "Truncation", "Prompts by outcome"):
        assert f"<title>{title}</title>" in html
        assert f'<p class="title">{title}</p>' in html
    assert "<title>KL divergence</title>" not in html  # the steps have none
    text = words(html)
    assert "step rollouts so far entropy, nats a token 1 64 1" in text
    assert "step rollouts so far cut at the token limit, % 1 64 0.0" in text
    assert "0.000" not in text


def test_a_completion_is_shown_before_and_after() -> None:
    text = words(render(full()))
    assert "s: correct before, wrong after" in text
    assert text.index("Completion before training: correct") < text.index("Completion after training: wrong")


def test_screening_is_explained_where_rollouts_are_drawn() -> None:
    screens = {"curriculum": {"allocation": {"type": "screen", "max_rollouts": 8}}}
    assert "one rollout each" in words(allocation_figure(full().named.allocation, screens["curriculum"]).caption)
    plain = allocation_figure(full().named.allocation, {"allocation": {"type": "neyman"}}).caption
    assert plain.endswith("Rollouts belong where the pass rate is neither 0 nor 1.")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12, "12"), (1234567.0, "1,234,567"), (0.5, "0.500"), (5e-4, "0.0005"), (12.34, "12.3")],
)
def test_numbers_are_short_and_counts_whole(value: float, text: str) -> None:
    assert plain(value) == text


def test_it_says_what_was_asked() -> None:
    config = RunConfig.model_validate(
        {
            "data": {"path": "sums.jsonl"},
            "policy": {"type": "pretrained", "path": "models/small"},
            "rollout": {"max_new_tokens": 8},
            "training": {"learning_rate": 1e-3, "lora": {"rank": 4}},
            "curriculum": {"type": "uniform", "prompts_per_step": 8, "rollouts_per_step": 1024},
            "prior": {"type": "none"},
            "evaluation": {"suites": [{"name": "exam", "path": "e.jsonl", "samples": 4, "greedy": True}]},
            "promotion": {"model": "small", "suites": ["exam"]},
        }
    )
    told = dict(asked(config.model_dump(mode="json")))
    assert told == {
        "Policy": "pretrained model models/small; adapters of rank 4 are trained",
        "Prompts": "sums.jsonl, answers judged by the verifier exact",
        "Training": "1 epochs of 10 steps, 1,024 rollouts of 8 prompts in each; prompts chosen by uniform (no rollouts "
        "first); seed 0",
        "Evaluation": "exam (4 samples of each item, and a greedy one)",
        "Promotion": "as small, if better",
    }
    page = render(full().model_copy(update={"config": config.model_dump(mode="json")}))
    assert "<dt>Policy</dt><dd>pretrained model models/small" in page


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ({"type": "none"}, "(no rollouts first)"),
        ({"type": "sample", "budget": 1024}, "(1,024 rollouts first)"),
        ({"type": "full", "rollouts_per_prompt": 4}, "(4 rollouts of each prompt first)"),
    ],
)
def test_it_says_what_came_before_training(prior: dict[str, Any], said: str) -> None:
    config = RunConfig.model_validate(
        {
            "data": {"path": "sums.jsonl"},
            "rollout": {"max_new_tokens": 8},
            "training": {"learning_rate": 1e-3},
            "prior": prior,
        }
    )
    assert said in dict(asked(config.model_dump(mode="json")))["Training"]


def test_a_legend_has_as_many_rows_as_it_needs() -> None:
    def height(num: int) -> int:
        svg = line_chart("t", [Series(f"suite {i}", [0, 1], [0, 1]) for i in range(num)], "x", "y")
        assert svg.count('class="key') == num
        return int(re.findall(r'viewBox="0 0 \d+ (\d+)"', svg)[0])

    assert height(1) == height(3) < height(4) == height(6) < height(7)


def test_learning_is_drawn_against_rollouts_tokens_and_seconds() -> None:
    html = render(full())
    for title in ("training rollouts", "tokens of training", "seconds of training"):
        assert f"<title>Suite scores against {title}</title>" in html
    before = full().model_dump()
    before["scores"] = before["scores"][:1]
    assert "Suite scores against" not in render(ReportData.model_validate(before))


def test_a_warm_start_and_thinking_are_drawn_where_they_are() -> None:
    plain = full().model_dump()
    assert not {"Loss of the warm start", "Thinking and answers"} & set(
        re.findall("<title>(.*?)</title>", render(full()))
    )
    thinking = {"thinking_tokens_mean": 30.0, "answer_tokens_mean": 4.0}
    taught = [{"step": i, "loss": 3.0 / i, "tokens": 40} for i in range(1, 900)]
    shown = {**plain, "warm_start": taught, "steps": [{**row, **thinking} for row in plain["steps"]]}
    for suites in (shown["scores"][0]["suites"], shown["scores"][1]["suites"]):
        suites[0]["thinking_tokens_mean"] = 5.5
    html = render(ReportData.model_validate(shown))
    assert "<title>Loss of the warm start</title>" in html
    assert "<title>Thinking and answers</title>" in html
    assert "7.0 to 7.0, thinking 5.5 to 5.5" in html


def test_lineage_puts_what_was_made_below_what_was_read_and_cuts_nothing() -> None:
    long = "evaluate_checkpoint 12 of a long name <b>"
    names = {"a": "first", "b": long, "c": "third"}
    svg = lineage_graph(names, [("a", "b"), ("a", "c"), ("b", "c"), ("gone", "c")])
    boxes = re.findall(r'<rect class="node" x="(\d+)" y="(\d+)" width="(\d+)"', svg)
    heights = [int(y) for _, y, _ in boxes]
    assert heights == sorted(set(heights))
    assert svg.count('class="edge"') == 3
    assert "of a long name &lt;b&gt;" in svg
    assert int(boxes[0][2]) > 6 * len(long)
    siblings = re.findall(r'<rect class="node" x="(\d+)" y="(\d+)"', lineage_graph(names, [("a", "b"), ("a", "c")]))
    assert siblings[1][1] == siblings[2][1]
    assert siblings[1][0] != siblings[2][0]
    assert lineage_graph({}, []) == ""


@pytest.mark.parametrize(
    ("gain", "word"),
    [((0.4, 0.31, 0.49), "better"), ((-0.1, -0.2, -0.01), "worse"), ((0.0, -0.1, 0.1), "No clear change")],
)
def test_the_headline_says_what_the_interval_allows(gain: tuple[float, float, float], word: str) -> None:
    shown = dict(zip(("value", "low", "high"), gain, strict=True)) | {"p_value": 0.5}
    data = ReportData.model_validate({**full().model_dump(), "gains": {"algebra": shown}})
    assert word in render(data)


def test_a_loss_is_not_hidden_behind_a_gain() -> None:
    loss = {"value": -0.1, "low": -0.2, "high": -0.05, "p_value": 0.001}
    data = ReportData.model_validate({**full().model_dump(), "gains": {**full().model_dump()["gains"], "logic": loss}})
    assert "points, 95 % interval +31.0 to +49.0). On logic it got worse (-10.0 points)." in render(data)


def test_an_empty_report_says_so_everywhere() -> None:
    html = render(ReportData(run="r"))
    checked(html)
    for sentence in ("has not been scored", "No training step", "no posterior yet", "No snapshot", "No completions"):
        assert sentence in html


def test_hostile_texts_stay_texts() -> None:
    html = render(full())
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;U+202E&gt;&lt;U+D800&gt;&lt;U+0000&gt;" in html
    assert "{{ 7*7 }}" in html
    assert len(html) < 100_000
    assert safe_text("a" * 3000).endswith("... (3,000 characters)")
    html.encode()


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 76800, 6) == [0, 20000, 40000, 60000]
    assert [number(v) for v in (0.2, 3.0, 20000.0)] == ["0.2", "3", "20k"]


def test_charts_put_larger_values_higher() -> None:
    svg = line_chart("t", [Series("a", [0, 1], [0.0, 1.0])], "x", "y")
    (points,) = re.findall(r'polyline class="line s0" points="([^"]+)"', svg)
    (x0, y0), (x1, y1) = (tuple(map(float, p.split(","))) for p in points.split())
    assert x0 < x1
    assert y0 > y1
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"/>', histograms("t", ["a"], [[1, 3]], "x", "y"))[:2]]
    assert heights[1] == pytest.approx(3 * heights[0], abs=0.2)
    assert line_chart("t", [], "x", "y") == histograms("t", [], [], "x", "y") == ""
    assert smooth([0, 2, 4], 2) == [0, 1, 3]
