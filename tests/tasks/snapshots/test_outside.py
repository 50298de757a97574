"""A posterior that another trainer has learnt: published, read, compared, taken up again, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cures_core.config.data import PromptFile
from cures_core.config.prior import NoPrior
from cures_core.config.snapshot import SnapshotConfig
from cures_core.config.storage import StoreConfig
from cures_core.curriculum import CuresConfig, Curriculum, load_posterior, migrate, save_posterior
from cures_core.errors import ConfigError, CorruptArtifact, CuresError, DataRejected, MissingInput
from cures_core.jobs.prior import known_ids
from cures_core.prompts import content_id, load_prompts
from flows.cli.main import app
from tasks.runs.explain import explain, propose_flags
from tasks.runs.summary import posterior_summary
from tasks.runs.verify import verify
from tasks.snapshots import diff_snapshots, find_snapshot, read_snapshot
from tasks.snapshots.objects import object_name
from tasks.snapshots.published import load_published
from tasks.storage import open_store

NUM = 24


def rows() -> list[dict[str, Any]]:
    """As people have them: spaces around problems, numbers as answers, ids of their own."""
    return [{"key": f"u{i}", "problem": f" What is {i} + 1?", "answer": i + 1, "level": i % 3} for i in range(NUM)]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


def learnt(path: Path, steps: int = 3, by: str | None = None, num: int = NUM) -> Curriculum:
    """A posterior file after some steps of a loop of one's own."""
    columns = {name: [row[name] for row in rows()[:num]] for name in rows()[0]}
    config = CuresConfig(prompts_per_step=6, rollouts_per_step=24)
    curriculum = Curriculum.from_table(columns, config, id=by)
    for _ in range(steps):
        for ask in curriculum.ask():
            curriculum.tell(ask.request_id, correct=ask.row % 5, wrong=4 - ask.row % 5)
        assert curriculum.ready() is not None
    save_posterior(curriculum.posterior, path)
    return curriculum


def cures(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def publish(tmp_path: Path, dataset: Path, *options: str, file: str = "posterior.parquet") -> Any:
    command = ["posterior", "publish", str(tmp_path / file), "--dataset", str(dataset), "--name", "night"]
    return json.loads(cures(*command, "--store", str(tmp_path / "store"), "--json", *options))


@pytest.mark.parametrize("by", [None, "key"])
def test_what_was_learnt_is_published_under_the_pipelines_ids(tmp_path: Path, dataset: Path, by: str | None) -> None:
    curriculum = learnt(tmp_path / "posterior.parquet", by=by)
    done = publish(tmp_path, dataset, *([] if by is None else ["--id", by]), "--trainer", "mine 1.0", "--policy", "p")
    assert (done["tag"], done["prompts"], done["known"], done["archived"]) == ("posterior/night/0", NUM, NUM, 0)
    places = SnapshotConfig().within(str(tmp_path / "store"))
    snapshot = find_snapshot("posterior/night/0", places)
    assert snapshot.lineage["trainer"] == "mine 1.0"
    assert snapshot.lineage["policy"] == "p"
    assert snapshot.lineage["parent"] is None
    (tmp_path / "back.parquet").write_bytes(read_snapshot("posterior/night/0", places))
    back = load_posterior(tmp_path / "back.parquet")
    assert [x.decode() for x in back.ids.tolist()] == sorted(
        content_id(f"What is {i} + 1?", str(i + 1)) for i in range(NUM)
    )
    theirs = curriculum.posterior.own_counts()[0]
    names = [x.decode() for x in curriculum.posterior.ids.tolist()]
    for i in range(NUM):
        new = content_id(f"What is {i} + 1?", str(i + 1))
        old = f"u{i}" if by else new
        assert back.own_counts(back.rows([new]))[0] == pytest.approx(theirs[names.index(old)])


@pytest.mark.parametrize("option", ["--trainer", "--policy"])
def test_an_address_with_a_password_does_not_get_into_the_lineage(tmp_path: Path, dataset: Path, option: str) -> None:
    learnt(tmp_path / "posterior.parquet")
    with pytest.raises(ConfigError, match=f"{option}: holds a user or a password") as caught:
        publish(tmp_path, dataset, option, "https://me:canary@example.org/model")
    assert "canary" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_texts_that_were_hashed_as_they_stand_are_matched_too(tmp_path: Path, dataset: Path) -> None:
    ids = [content_id(str(row["problem"]), str(row["answer"])) for row in rows()]
    curriculum = Curriculum.from_ids(ids, config=CuresConfig(prompts_per_step=6, rollouts_per_step=24))
    save_posterior(curriculum.posterior, tmp_path / "posterior.parquet")
    assert publish(tmp_path, dataset)["known"] == NUM


def test_it_goes_back_into_a_trainer_of_ones_own(tmp_path: Path, dataset: Path) -> None:
    first = learnt(tmp_path / "posterior.parquet")
    publish(tmp_path, dataset)
    out = tmp_path / "out.parquet"
    cures("posterior", "export", "posterior/night/0", str(out), "--store", str(tmp_path / "store"))
    columns = {name: [row[name] for row in rows()] for name in rows()[0]}
    later = Curriculum.from_table(columns, posterior=load_posterior(out))
    assert later.matched == {"kept": NUM, "restored": 0, "new": 0, "archived": 0}
    assert later.posterior.evidence() == pytest.approx(first.posterior.evidence())


def chats(rule: str) -> list[dict[str, Any]]:
    """Rows that differ in what was said before, alone or not; every second one has a system message."""
    system = [{"role": "system", "content": "Be brief. "}]
    turns = [[{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "Yes."}] for i in range(NUM)]
    asked = [{"role": "user", "content": f"And {i if rule == 'last_user' else 1} more is?"} for i in range(NUM)]
    return [{"prompt": [*system[: i % 2], *turns[i], asked[i]], "answer": 7, "level": i % 3} for i in range(NUM)]


@pytest.mark.parametrize("rule", ["chat", "last_user"])
def test_what_was_learnt_on_chats_is_found_by_a_run_on_chats(tmp_path: Path, rule: str) -> None:
    dataset, data = tmp_path / "chats.jsonl", chats(rule)
    dataset.write_text("".join(json.dumps(row) + "\n" for row in data))
    columns = {name: [row[name] for row in data] for name in data[0]}
    config = CuresConfig(prompts_per_step=6, rollouts_per_step=24)
    first = Curriculum.from_table(columns, config, problem="prompt")
    for ask in first.ask():
        first.tell(ask.request_id, correct=3, wrong=1)
    save_posterior(first.posterior, tmp_path / "posterior.parquet")
    done = publish(tmp_path, dataset, "--problem-rule", rule)
    assert (done["prompts"], done["known"], done["archived"]) == (NUM, NUM, 0)
    data_of_run = PromptFile(path=str(dataset), problem_rule=rule)  # type: ignore[arg-type]
    loaded = load_prompts(data_of_run)
    (tmp_path / "earlier.parquet").write_bytes(
        read_snapshot("posterior/night/0", SnapshotConfig().within(str(tmp_path / "store")))
    )
    earlier = load_posterior(tmp_path / "earlier.parquet")
    posterior, moved = migrate(earlier, loaded.prompts, config.posterior)  # as a run with prior.start_from does
    assert moved == {"kept": NUM, "restored": 0, "new": 0, "archived": 0}
    assert posterior.evidence().sum() == pytest.approx(24)
    assert set(loaded.prompts.ids) <= known_ids(earlier)


def test_the_commands_read_it_by_its_name(tmp_path: Path, dataset: Path) -> None:
    learnt(tmp_path / "posterior.parquet")
    publish(tmp_path, dataset)
    learnt(tmp_path / "posterior.parquet", steps=9)
    assert publish(tmp_path, dataset)["tag"] == "posterior/night/1"
    assert publish(tmp_path, dataset)["tag"] == "posterior/night/1"  # the same again is the same
    store = ["--store", str(tmp_path / "store")]
    shown = json.loads(cures("posterior", "show", "--run", "night", "--json", *store))
    assert (shown["epoch"], shown["prompts"]) == (1, NUM)
    assert json.loads(cures("posterior", "show", "--run", "night", "--epoch", "0", "--json", *store))["epoch"] == 0
    assert "predictions are not on record" in cures("posterior", "show", "--run", "night", *store)
    diff = json.loads(cures("posterior", "diff", "posterior/night/0", "posterior/night/1", "--json", *store))
    assert diff["added"] == diff["removed"] == 0
    assert diff["changed"] > 0
    assert diff["lineage"]["parent"] == [None, "posterior/night/0"]
    cures("posterior", "export", "posterior/night/1", str(tmp_path / "out.csv"), *store)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == NUM + 1
    said = cures("curriculum", "explain", "--run", "night", *store)
    assert "What is" in said
    assert "times as often as by uniform drawing" in said
    assert isinstance(json.loads(cures("curriculum", "hopeless", "--run", "night", "--json", *store)), list)


def test_a_run_starts_from_it(tmp_path: Path, dataset: Path) -> None:
    """What `prior.start_from` does with a snapshot: only prompts that it does not know are new."""
    learnt(tmp_path / "posterior.parquet", num=NUM - 4)
    publish(tmp_path, dataset)
    assert NoPrior(start_from="posterior/night/0").start_from == "posterior/night/0"
    data = read_snapshot("posterior/night/0", SnapshotConfig().within(str(tmp_path / "store")))
    (tmp_path / "earlier.parquet").write_bytes(data)
    earlier = load_posterior(tmp_path / "earlier.parquet")
    assert len(known_ids(earlier)) == NUM
    later = Curriculum(load_published(open_store(StoreConfig(url=str(tmp_path / "store"))), "night", None)[1],
                       posterior=earlier)  # fmt: skip
    assert np.array_equal(later.posterior.mean(), earlier.mean())


def test_what_the_set_has_not_is_kept_in_the_archive_and_counted(tmp_path: Path, dataset: Path) -> None:
    learnt(tmp_path / "posterior.parquet")
    lines = dataset.read_text().splitlines(keepends=True)
    dataset.write_text("".join(lines[:20]))
    done = publish(tmp_path, dataset)
    assert (done["prompts"], done["known"], done["archived"]) == (20, 20, 4)
    _, _, posterior = load_published(open_store(StoreConfig(url=str(tmp_path / "store"))), "night", None)
    assert posterior.archive is not None
    assert posterior.archive.num_rows == 4


def test_in_a_store_that_was_moved_it_is_found_where_that_is_now(tmp_path: Path, dataset: Path) -> None:
    learnt(tmp_path / "posterior.parquet")
    publish(tmp_path, dataset)
    (tmp_path / "store").rename(tmp_path / "moved")
    assert "all as it was written" in cures("runs", "verify", "--all", "--store", str(tmp_path / "moved"))


def test_a_damaged_remote_is_restored_and_a_damaged_copy_is_noticed(tmp_path: Path, dataset: Path) -> None:
    learnt(tmp_path / "posterior.parquet")
    publish(tmp_path, dataset)
    places = SnapshotConfig().within(str(tmp_path / "store"))
    (tmp_path / "store" / "dvc" / object_name(find_snapshot("posterior/night/0", places).md5)).unlink()
    assert "put back" in cures("posterior", "restore", "posterior/night/0", "--store", str(tmp_path / "store"))
    copy = tmp_path / "store" / "published" / "night" / "0" / "posterior.parquet"
    assert verify(StoreConfig(url=str(tmp_path / "store"))).damaged == ()
    copy.write_bytes(b"damaged")
    (found,) = verify(StoreConfig(url=str(tmp_path / "store"))).damaged
    assert found.place == "published/night/0/posterior.parquet"
    assert "cures posterior publish" in found.remedy
    with pytest.raises(CorruptArtifact, match="publish the same posterior again"):
        posterior_summary(StoreConfig(url=str(tmp_path / "store")), "night", None)
    publish(tmp_path, dataset)
    assert posterior_summary(StoreConfig(url=str(tmp_path / "store")), "night", None)["epoch"] == 0


def test_other_places_are_found_again_by_the_name(tmp_path: Path, dataset: Path) -> None:
    learnt(tmp_path / "posterior.parquet")
    publish(tmp_path, dataset, "--repository", str(tmp_path / "own.git"), "--remote", str(tmp_path / "own-dvc"))
    store = ["--store", str(tmp_path / "store")]
    cures("posterior", "export", "posterior/night/0", str(tmp_path / "out.parquet"), *store)
    assert len(diff_snapshots("posterior/night/0", "posterior/night/0",
                              SnapshotConfig(repository=str(tmp_path / "own.git"), remote=str(tmp_path / "own-dvc"))
                              ).largest_change) > 0  # fmt: skip


def test_bad_input_is_refused_and_publishes_nothing(tmp_path: Path, dataset: Path) -> None:
    learnt(tmp_path / "posterior.parquet", by="key")
    refused: list[tuple[type[CuresError], str, list[str]]] = [
        (DataRejected, r"none of its 24 prompts is in .*Name the column that holds its ids \(--id\)", []),
        (ConfigError, "--answer-rule", ["--answer-rule", "guess"]),
        (ConfigError, "up to 60 small letters", ["--name", "Night!"]),
        (MissingInput, "no such posterior", ["--trainer", "x"]),
        (CorruptArtifact, "not a readable posterior", ["--trainer", "y"]),
    ]
    (tmp_path / "broken").write_bytes(b"no parquet")
    files = {"--trainer x": "nothing", "--trainer y": "broken"}
    for kind, words, options in refused:
        with pytest.raises(kind, match=words):
            publish(tmp_path, dataset, *options, file=files.get(" ".join(options), "posterior.parquet"))
    with pytest.raises(MissingInput):
        publish(tmp_path, tmp_path / "nothing.jsonl")
    (tmp_path / "store" / "runs" / "night").mkdir(parents=True)
    (tmp_path / "store" / "runs" / "night" / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="night is a run of this store"):
        publish(tmp_path, dataset, "--id", "key")
    assert not (tmp_path / "store" / "published").exists()


def test_an_unknown_name_or_number_says_what_there_is(tmp_path: Path, dataset: Path) -> None:
    learnt(tmp_path / "posterior.parquet")
    publish(tmp_path, dataset)
    at = StoreConfig(url=str(tmp_path / "store"))
    for call in (posterior_summary, lambda cfg, run, k: explain(cfg, run, k, None)):
        with pytest.raises(ConfigError, match=r"no posterior 7 was published under night; there are \[0\]"):
            call(at, "night", 7)
        with pytest.raises(ConfigError, match="no run day"):
            call(at, "day", None)
    with pytest.raises(ConfigError, match="is not in this posterior"):
        explain(at, "night", None, "nobody")
    assert propose_flags(at, "night", None, 0.0)[0]["problem"].startswith("What is")
