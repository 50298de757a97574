from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cures_core.config.loading import load_config
from cures_core.errors import ConfigError, CuresError, DataRejected, MissingInput
from cures_core.prompts import PromptSet
from flows.cli.data import app
from tests.cures_core.prompts.files import jsonl
from tests.end_to_end.pipeline import PROFILE, PROJECT

ROWS = [{"question": f"Ann has {i} eggs and buys {i} more. How many now?", "answer": str(2 * i)} for i in range(20)]


def run(*arguments: object) -> str:
    """Standard output of a command; its error, if it ends with one."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, CuresError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def run_json(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json"))


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "train.jsonl", [*ROWS, ROWS[0], {"question": "<p>Why?</p>", "answer": "9"}])


def test_import_writes_a_clean_set_once(train: Path, tmp_path: Path) -> None:
    target = tmp_path / "new/clean.parquet"
    figures = run_json("import", train, target)
    prompts = PromptSet.read_parquet(target)
    assert (len(prompts), figures["kept"], figures["dropped"], figures["digest"]) == (21, 21, 1, prompts.digest)
    with pytest.raises(ConfigError, match=r"exists; .*--force"):
        run("import", train, target)
    assert "21 prompts written" in run("import", train, target, "--force")


def test_the_terminal_says_how_a_file_was_read(train: Path) -> None:
    said = run("validate", train)
    assert "read as columns: problem from question (text), answer from answer (field); no published layout fits" in said
    assert "read as columns" in run("stats", train)
    with pytest.raises(ConfigError, match="layout orz does not fit: there is no column 0"):
        run("validate", train, "--layout", "orz")


def test_import_and_back_is_the_same_set(train: Path, tmp_path: Path) -> None:
    run("import", train, tmp_path / "a.jsonl")
    run("import", tmp_path / "a.jsonl", tmp_path / "b.parquet")
    run("import", tmp_path / "b.parquet", tmp_path / "c.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "c.jsonl").read_bytes()


def test_import_keeps_the_quarantine_even_when_it_refuses(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "bad.jsonl", [ROWS[0], {"question": "Why?", "answer": ""}])
    with pytest.raises(DataRejected, match="1 of 2 rows rejected"):
        run("import", path, tmp_path / "o.jsonl", "--quarantine", tmp_path / "q.jsonl")
    assert not (tmp_path / "o.jsonl").exists()
    (row,) = (json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines())
    assert (row["line"], row["reason"]) == (2, "empty_answer")
    assert "1 prompts written" in run("import", path, tmp_path / "o.jsonl", "--max-reject-share", 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "xml"], "format"),
        (["--answer-rule", "guess"], "answer_rule"),
        (["--problem-rule", "poem"], "problem_rule"),
        (["--problem", "body"], "no column 'body'"),
        (["--answer", "gold"], "no column 'gold'"),
    ],
)
def test_options_reach_the_reader(options: list[str], message: str, train: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run("stats", train, *options)


def test_import_needs_a_known_ending(train: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.parquet or a \.jsonl"):
        run("import", train, tmp_path / "clean.txt")


def test_stats_describe_the_set(train: Path) -> None:
    figures = run_json("stats", train)
    assert (figures["rows_read"], figures["kept"], figures["reasons"]["html"]) == (22, 21, 1)
    assert figures["characters"]["answer"] == {"min": 1, "10 %": 1, "median": 2, "90 %": 2, "99 %": 2, "max": 2}
    text = run("stats", train)
    assert "22 rows, 21 kept, 0 rejected, 1 dropped" in text
    titles = ("Lengths, characters:", "Where prompts come from:", "Levels:", "Subjects:", "Kinds of gold answers:")
    assert [line for line in text.splitlines() if line in titles] == list(titles)
    lines = text.splitlines()
    assert lines[lines.index("Lengths, characters:") + 1].split()[:4] == ["min", "10", "%", "median"]
    assert lines[lines.index("Lengths, characters:") + 2].split()[:2] == ["problem", "11"]
    assert lines[lines.index("Kinds of gold answers:") + 1].split() == ["21", "integer"]


def test_stats_of_nothing_are_empty(tmp_path: Path) -> None:
    assert run_json("stats", jsonl(tmp_path / "none.jsonl", []))["kept"] == 0


def test_diff_names_every_fate(tmp_path: Path) -> None:
    old = jsonl(tmp_path / "old.jsonl", ROWS[:10])
    new = jsonl(tmp_path / "new.jsonl", [*ROWS[1:10], {**ROWS[0], "answer": "1"}, {"question": "Why?", "answer": "9"}])
    found = run_json("diff", old, new)
    assert found["counts"] == {"same": 9, "relabelled": 0, "edited": 1, "new": 1, "removed": 0}
    assert found["edited"][0]["what"] == "answer"
    text = run("diff", old, new)
    assert text.startswith("9 same, 0 relabelled, 1 edited, 1 new, 0 removed\n")
    with pytest.raises(ConfigError, match="no column 'gold'"):
        run("diff", old, new, "--answer", "gold")
    assert ": Why?" in text


def test_validate_reports_and_keeps_what_it_is_told_to(train: Path, tmp_path: Path) -> None:
    exam = jsonl(tmp_path / "exam.jsonl", [{"problem": ROWS[3]["question"], "answer": "6"}])
    summary = run_json("validate", train, "--suite", f"exam={exam}", "--out", tmp_path / "out")
    assert summary["prompts"]["reasons"]["eval_leak"] == 1
    assert (tmp_path / "out/prompts.parquet").is_file()
    text = run("validate", train, "--suite", f"exam={exam}", "--contamination", "warn")
    assert "suite exam: 1 of 1 kept; overlap: 1 exact" in text
    assert "nothing written" in text


def test_validate_asks_for_language_near_copies_and_a_verifier(tmp_path: Path) -> None:
    rows = [
        *ROWS,
        {"question": "Anna hat 24 Äpfel und kauft 12 weitere. Wie viele Äpfel hat sie?", "answer": "36"},
        {"question": "A train travels 60 miles an hour. How many miles does it get in 5 hours?", "answer": "300"},
        {"question": "One train travels 60 miles an hour. How many miles does it get in 5 hours?", "answer": "300"},
        {"question": "How many eggs has Bob?", "answer": "a few"},
    ]
    path = jsonl(tmp_path / "set.jsonl", rows)
    assert run_json("validate", path)["prompts"]["reasons"] == {}
    options = ["--language", "en", "--near-duplicates", "drop", "--verifier", "numeric"]
    found = run_json("validate", path, *options)
    assert found["accepted"] is True
    assert found["prompts"]["reasons"] == {"other_language": 1, "near_duplicate_copy": 1, "gold_rejected": 1}
    for options in (["--near-duplicates", "maybe"], ["--verifier", "oracle"], ["--language", "English"]):
        with pytest.raises(ConfigError, match=f"{options[1]}'"):
            run("validate", path, *options)


def test_a_profile_is_changed_with_set_and_counts_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "set.jsonl", ROWS)
    jsonl(tmp_path / "exam.jsonl", [{"problem": "What is the sum of 2 and 2?", "answer": "4"}])
    paths = PROFILE.replace("data/chains/train.jsonl", "set.jsonl").replace("data/chains/heldout.jsonl", "exam.jsonl")
    (tmp_path / "tiny.toml").write_text(paths)
    assert run_json("validate", "--config", "tiny.toml")["prompts"]["kept"] == 20
    found = run_json(
        "validate", "--config", "tiny.toml", "--set", "data.max_problem_tokens=46", "--set", "data.max_reject_share=1"
    )
    assert found["prompts"]["reasons"] == {"too_many_tokens": 10}  # the policy's tokens are characters
    with pytest.raises(ConfigError, match="change what the profile says with --set"):
        run("validate", "--config", "tiny.toml", "--language", "en")
    with pytest.raises(ConfigError, match="--set changes a profile"):
        run("validate", "set.jsonl", "--set", "data.language=en")


def test_a_refusal_is_said_in_json_too(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "bad.jsonl", [ROWS[0], {"question": "Why?", "answer": ""}])
    for command in (["validate", path], ["import", path, tmp_path / "out.jsonl"]):
        result = CliRunner().invoke(app, [*(str(a) for a in command), "--json"])
        assert isinstance(result.exception, DataRejected)
        said = json.loads(result.stdout)
        assert (said["accepted"], "1 of 2 rows rejected" in said["error"]) == (False, True)


def test_validate_needs_one_source_of_truth(train: Path) -> None:
    with pytest.raises(ConfigError, match="name a prompt set, or a profile"):
        run("validate")
    with pytest.raises(ConfigError, match="not both"):
        run("validate", train, "--config", "x.toml")
    with pytest.raises(ConfigError, match="write NAME=PATH"):
        run("validate", train, "--suite", "exam.jsonl")
    with pytest.raises(ConfigError, match="a name may hold"):
        run("validate", train, "--suite", f"Big Exam={train}")
    with pytest.raises(MissingInput, match="no such file"):
        run("validate", "nowhere.jsonl")


def test_flags_are_set_listed_honoured_and_lifted(train: Path, tmp_path: Path) -> None:
    run("import", train, tmp_path / "clean.jsonl")
    prompt_id = json.loads((tmp_path / "clean.jsonl").read_text().splitlines()[0])["id"]
    flags = tmp_path / "flags.jsonl"
    figures = run_json("flag", prompt_id, "--reason", "wrong gold", "--list", flags)
    assert (figures["flagged"], figures["active"]) == (1, 1)
    assert run_json("flags", "--list", flags)["flags"] == {prompt_id: "wrong gold"}
    assert run_json("validate", train, "--flags", flags)["prompts"]["reasons"]["flagged"] == 1
    assert "1 unflagged, 0 flagged now" in run("unflag", prompt_id, "--list", flags)
    assert "flagged" not in run_json("validate", train, "--flags", flags)["prompts"]["reasons"]
    source = jsonl(tmp_path / "wanted.jsonl", [{"id": prompt_id, "reason": "unclear"}])
    assert f"--set data.flags={flags}" in run("flag", "--from", source, "--list", flags)
    assert f"{prompt_id}  unclear" in run("flags", "--list", flags)
    with pytest.raises(ConfigError, match="name the ids"):
        run("flag", "--list", flags)


def test_stats_draw_a_page_that_stands_alone(tmp_path: Path) -> None:
    rows = [*ROWS, {"question": "Why?", "answer": "<b>", "level": "<script>"}, {"question": "What?", "answer": "1/2"}]
    path = jsonl(tmp_path / "set.jsonl", rows)
    figures = run_json("stats", path, "--picture", tmp_path / "set.html")
    assert figures["answers"] == {"integer": 20, "formula": 1, "fraction": 1}
    page = (tmp_path / "set.html").read_text()
    assert page.count("<svg") == 2
    for title in ("Length of problems", "Length of gold answers"):
        assert f'<p class="title">{title}</p>' in page
    for title in ("Levels", "Kinds of gold answers"):
        assert f"<h2>{title}</h2>" in page
    assert page.count('class="bar s0"') == 80
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "http" not in page


def test_split_parts_a_file_and_says_how_the_parts_are_used(train: Path, tmp_path: Path) -> None:
    out = tmp_path / "own"
    said = run("split", train, "--held-out", 5, "--out", out)
    assert f"16 prompts written to {out}/train.jsonl, 5 to {out}/held-out.jsonl" in said
    settings = shlex.split(said.splitlines()[-1].removeprefix("for a run: "))
    assert settings[::2] == ["--set", "--set"]
    cfg = load_config(PROJECT / "configs" / "smollm2.toml", settings[1::2])
    assert (cfg.data.path, cfg.evaluation.suites[0].path) == (f"{out}/train.jsonl", f"{out}/held-out.jsonl")
    with pytest.raises(ConfigError, match=r"own/train\.jsonl: exists; name another folder with --out"):
        run("split", train, "--held-out", 5, "--out", out)
    again = run_json("split", train, "--held-out", "0.24", "--out", tmp_path / "again")  # of 21, the copy is none
    assert again["parts"] == {"train": 16, "held_out": 5, "repeats": 0}
    other = run_json("split", train, "--held-out", 5, "--seed", 1, "--out", tmp_path / "other")
    texts = [(tmp_path / name / "held-out.jsonl").read_text() for name in ("own", "again", "other")]
    assert texts[0] == texts[1] != texts[2]
    assert other["files"]["held_out"] == str(tmp_path / "other/held-out.jsonl")


@pytest.mark.parametrize("wanted", ["0", "21", "0.001", "0.999", "1.5", "-3", "ten", "nan", "inf"])
def test_split_holds_some_out_and_not_all(wanted: str, train: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--held-out {wanted}: "):
        run("split", train, f"--held-out={wanted}", "--out", tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_split_refuses_a_set_that_a_run_would_refuse(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "bad.jsonl", [*ROWS[:2], {"question": "Why?", "answer": ""}])
    with pytest.raises(DataRejected, match="1 of 3 rows rejected"):
        run("split", path, "--held-out", 1, "--out", tmp_path)
    assert run_json("split", path, "--held-out", 1, "--out", tmp_path, "--max-reject-share", 0.5)["parts"]["train"] == 1
