"""Items on disk, and scores from items."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cures_core.config.evaluation import EvaluatedSuite, EvaluationConfig
from cures_core.errors import ConfigError, CorruptArtifact, DataRejected, MissingInput
from cures_core.evaluation.intervals import wilson
from cures_core.evaluation.items import ItemResult, read_items, score, write_items
from cures_core.evaluation.scores import SuiteScore

CFG = EvaluationConfig(resamples=200)


def item(number: int, correct: int = 1, **changes: Any) -> ItemResult:
    base = ItemResult(f"{number:04d}", "easy", "book", correct, 0, 4, 0, 40, None)
    return replace(base, **changes)


def suite(samples: int = 4, greedy: bool = False) -> EvaluatedSuite:
    return EvaluatedSuite(name="exam", path="exam.jsonl", samples=samples, greedy=greedy)


def test_items_survive_the_disk_in_order_of_id(tmp_path):
    items = [item(2, greedy=1, rival="1/2", rival_votes=3), item(1, level="", unknown=2), item(3, greedy=0)]
    write_items(items, tmp_path / "a.parquet")
    assert read_items(tmp_path / "a.parquet") == [items[1], items[0], items[2]]
    write_items(items[::-1], tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_no_items_survive_the_disk(tmp_path):
    write_items([], tmp_path / "a.parquet")
    assert read_items(tmp_path / "a.parquet") == []


def test_files_that_are_no_items_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(MissingInput, match="no such table"):
        read_items(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(CorruptArtifact, match="not a readable Parquet file"):
        read_items(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(CorruptArtifact, match="schema none, this version reads 3"):
        read_items(path)
    write_items([item(1), item(1)], path)
    with pytest.raises(CorruptArtifact, match="ids are not ascending"):
        read_items(path)


def test_items_of_the_second_schema_are_still_read(tmp_path):
    write_items([item(1, majority=0.5, rival="9", rival_votes=3)], tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").drop_columns(["rival", "rival_votes"])
    pq.write_table(table.replace_schema_metadata({"cures.items.schema": "2"}), tmp_path / "old.parquet")
    assert read_items(tmp_path / "old.parquet") == [item(1, majority=0.5)]


def test_items_of_the_first_schema_are_still_read(tmp_path):
    write_items([item(1, majority=0.5, subject="sets")], tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").drop_columns(["majority", "subject", "rival", "rival_votes"])
    pq.write_table(table.replace_schema_metadata({b"cures.items.schema": b"1"}), tmp_path / "b.parquet")
    (old,) = read_items(tmp_path / "b.parquet")
    assert (old.correct, old.majority, old.subject) == (1, None, "")
    assert read_items(tmp_path / "a.parquet") == [item(1, majority=0.5, subject="sets")]


def test_scores_of_earlier_versions_are_still_read():
    row = score([item(1)], suite(), CFG, {}).model_dump(mode="json")
    row = {**row, "by_level": {"easy": [0.25, 1]}}
    del row["by_subject"], row["majority"]
    old = SuiteScore.model_validate(row)
    assert (old.by_level["easy"].avg, old.by_level["easy"].n, old.majority) == (0.25, 1, None)


def test_a_vote_is_scored_with_an_interval_where_it_is_known():
    items = [item(i, majority=vote) for i, vote in enumerate((1.0, 0.5, 0.0, 1.0))]
    got = score(items, suite(), CFG, {}).majority
    assert got.value == 0.625
    assert got.low < 0.625 < got.high
    assert score([*items, item(9)], suite(), CFG, {}).majority is None
    assert score([item(0, samples=1, majority=1.0)], suite(1), CFG, {}).majority is None


def test_score_of_sampled_completions():
    items = [item(0, 0), item(1, 2, level="hard", unknown=1), item(2, 4, truncated=2, tokens=20)]
    got = score(items, suite(), CFG, {"engine": "hf"})
    assert (got.n, got.k, got.greedy, got.suite, got.settings) == (3, 4, None, "exam", {"engine": "hf"})
    assert got.avg.value == 0.5
    assert got.avg.low <= 0.5 <= got.avg.high
    assert {j: e.value for j, e in got.pass_at.items()} == pytest.approx({"1": 0.5, "2": (5 / 6 + 1) / 3, "4": 2 / 3})
    assert got.pass_at["1"] == got.avg
    assert (got.pass_at["4"].low, got.pass_at["4"].high) == wilson(2, 3, 0.95)
    assert {label: (row.avg.value, row.n) for label, row in got.by_level.items()} == {
        "easy": (0.5, 2),
        "hard": (0.5, 1),
    }
    assert {label: (row.avg.value, row.n) for label, row in got.by_source.items()} == {"book": (0.5, 3)}
    hard, easy = got.by_level["hard"], got.by_level["easy"]
    assert (hard.unknown_share, hard.truncated_share, hard.tokens_mean) == (0.25, 0.0, 10.0)
    assert (easy.unknown_share, easy.truncated_share, easy.tokens_mean) == (0.0, 0.25, 7.5)
    assert easy.avg.low < 0.5 < easy.avg.high
    assert got.by_subject == {}
    assert got.majority is None
    assert score([replace(i, subject="sets") for i in items], suite(), CFG, {}).by_subject["sets"].n == 3
    assert (got.unknown_share, got.truncated_share, got.tokens_mean) == pytest.approx((1 / 12, 2 / 12, 100 / 12))


def test_single_completions_and_greedy_ones_have_wilsons_interval():
    items = [item(i, int(i < 3), samples=1, greedy=int(i < 5)) for i in range(10)]
    got = score(items, suite(samples=1, greedy=True), CFG, {})
    assert (got.avg.value, got.avg.low, got.avg.high) == (0.3, *wilson(3, 10, 0.95))
    assert got.greedy is not None
    assert (got.greedy.value, got.greedy.low, got.greedy.high) == (0.5, *wilson(5, 10, 0.95))
    assert set(got.pass_at) == {"1"}


def test_labels_that_nobody_has_are_left_out():
    got = score([item(0, source="", level=""), item(1, source="", level="hard")], suite(), CFG, {})
    assert got.by_source == {}
    assert {label: row.avg.value for label, row in got.by_level.items()} == {"": 0.25, "hard": 0.25}


def test_confidence_resamples_and_seed_matter():
    items = [item(i, i % 5) for i in range(997)]
    base = score(items, suite(), CFG, {}).avg
    assert score(items[::-1], suite(), CFG, {}).avg == base
    for change in ({"confidence": 0.8}, {"resamples": 300}, {"seed": 1}):
        other = score(items, suite(), CFG.model_copy(update=change), {}).avg
        assert (other.low, other.high) != (base.low, base.high)


def test_items_that_do_not_fit_the_suite_are_refused():
    with pytest.raises(DataRejected, match="suite exam holds no item"):
        score([], suite(), CFG, {})
    with pytest.raises(ConfigError, match=r"exam, item 0001: 4 samples, greedy None; .* 8 samples, greedy = false"):
        score([item(1)], suite(samples=8), CFG, {})
    with pytest.raises(ConfigError, match="greedy = true"):
        score([item(1)], suite(greedy=True), CFG, {})
