from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cures_core.config.curriculum import PosteriorConfig
from cures_core.config.data import DataConfig, SuiteConfig
from cures_core.config.rewards import MathConfig
from cures_core.curriculum import Posterior
from cures_core.curriculum.migration import migrate
from cures_core.errors import ConfigError, DataRejected
from cures_core.prompts import PromptSet, make_prompt
from cures_core.prompts.checks import TextJudge
from cures_core.prompts.flags import add
from cures_core.rewards import make_verifier
from tasks.validation import validate
from tasks.validation.expectations import run_expectations
from tests.cures_core.prompts.files import jsonl

HELD = "A train leaves Boston at 3 p.m. and travels 60 miles an hour. How many miles does it travel in 5 hours?"
ROWS = [
    {"problem": f"Ann has {i} eggs and buys {i} more. How many eggs has she now?", "answer": str(2 * i), "level": i % 3}
    for i in range(40)
]


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    """40 good rows, one of them in the suite below, and one bad row."""
    rows = [*ROWS, {"problem": HELD.upper(), "answer": "300"}, {"problem": "How many?", "answer": ""}]
    return DataConfig(path=str(jsonl(tmp_path / "train.jsonl", rows)))


@pytest.fixture
def suite(tmp_path: Path) -> SuiteConfig:
    rows = [{"problem": HELD, "answer": "300"}, {"problem": "What is the sum of 2 and 2?", "answer": "4"}]
    return SuiteConfig(name="exam", path=str(jsonl(tmp_path / "exam.jsonl", rows)))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_everything_is_written_and_accounted_for(data: DataConfig, suite: SuiteConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = validate(data, [suite], out)
    prompts = PromptSet.read_parquet(out / "prompts.parquet")
    assert (len(prompts), summary["prompts"]["digest"]) == (40, prompts.digest)
    assert len(PromptSet.read_parquet(out / "suites/exam.parquet")) == 2
    assert {(d["line"], d["reason"], d["severity"]) for d in read(out / "quarantine.jsonl")} == {
        (41, "eval_leak", "dropped"),
        (42, "empty_answer", "rejected"),
    }
    assert all({"file", "line", "reason", "remedy", "excerpt"} <= d.keys() for d in read(out / "quarantine.jsonl"))
    figures = summary["prompts"]
    assert (figures["rows_read"], figures["kept"], figures["rejected"], figures["dropped"]) == (42, 40, 1, 1)
    assert figures["labels"]["level"] == {"0": 14, "1": 13, "2": 13}
    table = summary["contamination"]["by_suite"]["exam"]
    assert table == {"exact": 0, "normalised": 1, "contained": 0, "ngram": 0, "near": 0}
    assert summary["contamination"]["matches"][0]["line"] == 41
    assert summary["contamination"]["trained_on"] == {"exam": 0}
    assert summary["expectations"] == {"success": True, "failed_critical": 0}
    assert json.loads((out / "validation.json").read_bytes()) == summary


def test_the_same_input_gives_the_same_bytes(data: DataConfig, suite: SuiteConfig, tmp_path: Path) -> None:
    for name in ("a", "b"):
        validate(data, [suite], tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    stable = [f for f in files if f.parts[0] != "data_docs"]
    assert {f.name for f in stable} == {
        "prompts.parquet", "exam.parquet", "quarantine.jsonl", "warnings.jsonl", "expectations.json", "validation.json",
    }  # fmt: skip
    for file in stable:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_contamination_policies(data: DataConfig, suite: SuiteConfig, tmp_path: Path) -> None:
    warned = validate(data.model_copy(update={"contamination": "warn"}), [suite], tmp_path / "warn")
    kept = warned["prompts"]
    assert (kept["kept"], kept["reasons"]["eval_leak_kept"]) == (41, 1)
    assert warned["contamination"]["trained_on"] == {"exam": 1}
    with pytest.raises(DataRejected, match=r"1 prompts are in an evaluation suite too.*\n.*train\.jsonl:41: exam"):
        validate(data.model_copy(update={"contamination": "reject"}), [suite], tmp_path / "reject")
    clean = validate(data.model_copy(update={"contamination": "reject"}), [], tmp_path / "none")
    assert clean["prompts"]["kept"] == 41


def test_the_strongest_matches_come_first(tmp_path: Path, suite: SuiteConfig) -> None:
    rows = [*ROWS, {"problem": HELD.replace("60", "70"), "answer": "350"}, {"problem": HELD, "answer": "300"}]
    cfg = DataConfig(path=str(jsonl(tmp_path / "train.jsonl", rows)))
    matches = validate(cfg, [suite], tmp_path / "out")["contamination"]["matches"]
    assert [(match["line"], match["kind"]) for match in matches] == [(42, "exact"), (41, "near")]


def test_copies_contradictions_and_leaks_are_for_the_verifier_to_tell(tmp_path: Path) -> None:
    """The math verifier takes two spellings of pi/2 for one answer, wherever answers are compared."""
    half, other = "\\frac{\\pi}{2}", "\\pi/2"
    problem = "Evaluate the angle that the third line of the table on page twelve gives for the roof of the old barn."
    rows = [*ROWS, *({"problem": problem, "answer": answer} for answer in (half, other))]
    reworded = {"problem": problem.replace("the old barn", "an old barn"), "answer": other}
    suite = SuiteConfig(name="exam", path=str(jsonl(tmp_path / "exam.jsonl", [reworded])))
    cfg = DataConfig(path=str(jsonl(tmp_path / "train.jsonl", rows)), max_reject_share=0.1)
    with make_verifier(MathConfig(workers=1)) as verifier:
        summary = validate(cfg, [suite], tmp_path / "out", verifier)
    assert summary["prompts"]["reasons"] == {"duplicate_copy": 1, "duplicate_problem": 1, "eval_leak": 1}
    assert summary["contamination"]["matches"][0]["kind"] == "ngram"
    assert validate(cfg, [suite], tmp_path / "bare")["prompts"]["reasons"] == {"contradictory_answer": 2}


def test_the_summary_says_how_the_files_were_read(data: DataConfig, suite: SuiteConfig, tmp_path: Path) -> None:
    summary = validate(data, [suite], tmp_path / "out")
    for figures in (summary["prompts"], summary["suites"]["exam"]):
        assert (figures["read_as"]["layout"], figures["read_as"]["problem"]) == ("columns", "problem (text)")
        assert "usual names" in figures["read_as"]["why"]


def test_a_refused_set_leaves_its_reasons(data: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match="1 of 42 rows rejected") as caught:
        validate(data.model_copy(update={"max_reject_share": 0.0}), [], tmp_path / "out")
    assert caught.value.exit_code == 3
    assert [d["line"] for d in read(tmp_path / "out/quarantine.jsonl")] == [42]
    assert not (tmp_path / "out/prompts.parquet").exists()


def test_a_bad_suite_is_refused_too(data: DataConfig, tmp_path: Path) -> None:
    bad = SuiteConfig(name="bad", path=str(jsonl(tmp_path / "bad.jsonl", [{"problem": "What?", "answer": ""}])))
    with pytest.raises(DataRejected, match=r"bad\.jsonl"):
        validate(data, [bad], tmp_path / "out")


def test_suites_need_their_own_names(data: DataConfig, suite: SuiteConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two evaluation suites are named 'exam'"):
        validate(data, [suite, suite], tmp_path / "out")


class Judge(TextJudge):
    """A verifier to which 78 is too big, and all other golds are one."""

    def check_gold(self, answer: str) -> str | None:
        return "too big" if answer == "78" else None

    def same_answer(self, first: str, second: str) -> bool:
        return True


def test_the_verifier_and_the_tokenizer_have_their_say(data: DataConfig, tmp_path: Path) -> None:
    cfg = data.model_copy(update={"max_problem_tokens": 15, "max_reject_share": 0.9})
    counts = validate(cfg, [], tmp_path / "out", Judge(), lambda text: len(text.split()))["prompts"]["reasons"]
    assert (counts["gold_rejected"], counts["too_many_tokens"]) == (1, 1)


def test_flagged_prompts_leave_training_and_suites(data: DataConfig, suite: SuiteConfig, tmp_path: Path) -> None:
    flags = tmp_path / "flags.jsonl"
    ids = [make_prompt(ROWS[3]["problem"], "6").id, make_prompt("What is the sum of 2 and 2?", "4").id, "f" * 32]
    add(flags, "flag", [(i, "wrong gold") for i in ids])
    cfg = data.model_copy(update={"flags": str(flags)})
    summary = validate(cfg, [suite], tmp_path / "flagged")
    assert (summary["prompts"]["reasons"]["flagged"], summary["prompts"]["kept"]) == (1, 39)
    assert (summary["suites"]["exam"]["reasons"]["flagged"], summary["suites"]["exam"]["kept"]) == (1, 1)
    assert (summary["flags"]["listed"], summary["flags"]["taken_out"]) == (3, 2)
    assert ids[0] not in PromptSet.read_parquet(tmp_path / "flagged/prompts.parquet").ids
    (note,) = [d for d in read(tmp_path / "flagged/quarantine.jsonl") if d["line"] == 4]
    assert (note["reason"], note["detail"]) == ("flagged", "wrong gold")
    add(flags, "unflag", [(i, "") for i in ids])
    assert ids[0] in validate_ids(cfg, tmp_path / "back")


def validate_ids(cfg: DataConfig, out: Path) -> list[str]:
    validate(cfg, [], out)
    return PromptSet.read_parquet(out / "prompts.parquet").ids


def test_unflagging_restores_the_evidence(data: DataConfig, tmp_path: Path) -> None:
    flags = tmp_path / "flags.jsonl"
    flags.touch()
    cfg, posterior_cfg = data.model_copy(update={"flags": str(flags)}), PosteriorConfig()
    prompt_id = make_prompt(ROWS[3]["problem"], "6").id

    def prompts(name: str) -> PromptSet:
        validate(cfg, [], tmp_path / name)
        return PromptSet.read_parquet(tmp_path / name / "prompts.parquet")

    before = Posterior.fresh(prompts("before"), posterior_cfg)
    before.update([prompt_id], np.array([3.0]), np.array([1.0]), step=0)
    add(flags, "flag", [(prompt_id, "wrong gold")])
    during, moved = migrate(before, prompts("during"), posterior_cfg)
    assert (moved["archived"], prompt_id.encode() in during.ids.tolist()) == (1, False)
    add(flags, "unflag", [(prompt_id, "")])
    after, moved = migrate(during, prompts("after"), posterior_cfg)
    assert (moved["restored"], moved["new"]) == (1, 0)
    rows = [p.rows([prompt_id]) for p in (before, after)]
    assert [float(x[r][0]) for x, r in zip((before.own_counts()[0], after.own_counts()[0]), rows, strict=True)] == [
        3,
        3,
    ]


def test_near_copies_are_named_or_left_out(tmp_path: Path) -> None:
    rows = [
        *ROWS,
        {"problem": HELD, "answer": "300"},
        {"problem": HELD.replace("A train", "One train"), "answer": "300"},
    ]
    cfg = DataConfig(path=str(jsonl(tmp_path / "near.jsonl", rows)))
    for policy, reason, kept in (("off", "", 42), ("warn", "near_duplicate", 42), ("drop", "near_duplicate_copy", 41)):
        figures = validate(cfg.model_copy(update={"near_duplicates": policy}), [], tmp_path / policy)["prompts"]
        assert figures["kept"] == kept
        assert figures["reasons"] == ({reason: 1} if reason else {})


def test_a_reason_can_have_its_own_limit(data: DataConfig, suite: SuiteConfig, tmp_path: Path) -> None:
    limits = {"eval_leak": 1 / 42}
    validate(data.model_copy(update={"max_reason_share": limits}), [suite], tmp_path / "allowed")
    with pytest.raises(DataRejected, match=r"1 of 42 rows show eval_leak \(2\.4%, allowed 0\.0%\). First: .*:41"):
        validate(data.model_copy(update={"max_reason_share": {"eval_leak": 0.0}}), [suite], tmp_path / "refused")
    with pytest.raises(ConfigError, match="max_reason_share names 'bad_karma'"):
        validate(data.model_copy(update={"max_reason_share": {"bad_karma": 0.0}}), [], tmp_path / "none")


# Great Expectations


def frame(*prompts: Any) -> Any:
    return PromptSet.of(prompts).table.to_pandas()


GOOD = make_prompt("How many eggs has Ann?", "7")


@pytest.fixture(scope="module")
def cfg() -> DataConfig:
    return DataConfig(path="set.jsonl")


def failing(outcome: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    return {
        (row["expectation"], row["column"]): row["failing_ids"] for row in outcome["expectations"] if not row["success"]
    }


def test_a_clean_frame_meets_all_expectations(cfg: DataConfig, tmp_path: Path) -> None:
    outcome = run_expectations(frame(GOOD, make_prompt("Why?", "\\frac{1}{2}")), tmp_path, cfg)
    assert (outcome["success"], failing(outcome)) == (True, {})
    assert len(outcome["expectations"]) == 19
    assert all(row["error"] == "" for row in outcome["expectations"])


@pytest.mark.parametrize(
    ("column", "value", "expectation"),
    [
        ("id", "0" * 32, "expect_multicolumn_values_to_be_content_ids"),
        ("id", "XYZ", "expect_column_values_to_match_regex"),
        ("problem", "", "expect_column_value_lengths_to_be_between"),
        ("problem", "a\u202eb", "expect_column_values_to_not_match_regex"),
        ("problem", None, "expect_column_values_to_not_be_null"),
        ("problem", "x" * 20_000, "expect_column_value_lengths_to_be_between"),
        ("answer", " ", "expect_column_values_to_match_regex"),
        ("answer", "\u00a0\n\u3000", "expect_column_values_to_match_regex"),
        ("answer", "N/A", "expect_column_values_to_be_final_answers"),
        ("source", "x" * 300, "expect_column_value_lengths_to_be_between"),
    ],
)
def test_each_expectation_names_the_failing_prompt(
    column: str, value: Any, expectation: str, cfg: DataConfig, tmp_path: Path
) -> None:
    rows = frame(GOOD, make_prompt("Why?", "1"))
    rows.loc[0, column] = value
    outcome = run_expectations(rows, tmp_path, cfg)
    found = {name: ids for (name, columns), ids in failing(outcome).items() if column in columns.split(", ")}
    assert found[expectation] == [rows.loc[0, "id"]]
    assert not outcome["success"]


def test_a_repeated_id_is_seen(cfg: DataConfig, tmp_path: Path) -> None:
    rows = frame(GOOD, make_prompt("Why?", "1"))
    rows.loc[1] = rows.loc[0]
    assert ("expect_column_values_to_be_unique", "id") in failing(run_expectations(rows, tmp_path, cfg))


def test_too_many_levels_only_warn(cfg: DataConfig, tmp_path: Path) -> None:
    rows = frame(*(make_prompt(f"Why {i}?", "1", level=str(i)) for i in range(201)))
    outcome = run_expectations(rows, tmp_path, cfg)
    assert (outcome["success"], outcome["failed_critical"]) == (False, 0)


def test_bounds_come_from_the_configuration(tmp_path: Path) -> None:
    tight = DataConfig(path="set.jsonl", max_problem_chars=5, max_answer_chars=1)
    outcome = run_expectations(frame(make_prompt("Why not?", "12")), tmp_path, tight)
    assert {column for _, column in failing(outcome)} == {"problem", "answer"}


def test_failed_expectations_refuse_the_set(data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row checks leave nothing for the expectations to find, so they are switched off here."""
    monkeypatch.setattr("cures_core.prompts.checks.not_an_answer", lambda text: None)
    path = jsonl(tmp_path / "bad.jsonl", [{"problem": "How many eggs?", "answer": "N/A"}])
    with pytest.raises(DataRejected, match=r"1 expectations failed.*data_docs/index\.html\n.*final_answers"):
        validate(DataConfig(path=str(path)), [], tmp_path / "out")
    assert (tmp_path / "out/data_docs/index.html").is_file()


def test_a_full_disk_under_the_pages_is_told(cfg: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from great_expectations.data_context.store.tuple_store_backend import TupleFilesystemStoreBackend

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TupleFilesystemStoreBackend, "_set", full)  # the library logs what this raises, and goes on
    with pytest.raises(OSError, match="No space left") as raised:
        run_expectations(frame(GOOD), tmp_path, cfg)
    assert raised.value.errno == errno.ENOSPC


def test_data_docs_stand_alone_and_run_nothing(cfg: DataConfig, tmp_path: Path) -> None:
    hostile = make_prompt(
        'Why <script>alert(1)</script> <svg onload="alert(1)"> <img src="http://evil.example/x">?', "N/A"
    )
    run_expectations(frame(hostile, GOOD), tmp_path, cfg)
    pages = sorted((tmp_path / "data_docs").rglob("*"))
    files = [p for p in pages if p.is_file()]
    assert {p.suffix for p in files} == {".html"}
    assert sum(p.stat().st_size for p in files) < 200_000
    for page in files:
        text = page.read_text()
        assert not re.search(r"<script|<link|<img|https?://", text), page
        assert text.index("Content-Security-Policy") < text.index("<body")
    index = (tmp_path / "data_docs/index.html").read_text()
    links = re.findall(r'href="([^"]+)"', index)
    assert len(links) == 2
    assert all((tmp_path / "data_docs" / link).is_file() for link in links)
