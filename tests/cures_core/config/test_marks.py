"""Every setting says once what another value of it changes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.marks import (
    EVERYTHING,
    Later,
    Mark,
    Ongoing,
    Operation,
    Placement,
    Result,
    Settled,
    changes,
    leaves,
    marked_fields,
    results,
)
from cures_core.config.run import RunConfig
from cures_core.own_code import code_digest, keyed


def config(**options: Any) -> RunConfig:
    training = {"learning_rate": 1e-3, **options.pop("training", {})}
    return RunConfig.model_validate(
        {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": training, **options}
    )


def test_every_setting_has_one_mark() -> None:
    """In all models of all unions, whether a profile names them or not."""
    marks = dict(marked_fields(RunConfig))
    assert {name: found for name, found in marks.items() if len(found) != 1} == {}
    assert {"curriculum.allocation.min_rollouts", "reward.format.tags", "training.zero_stage", "fork.step"} <= set(
        marks
    )


class _Inner(Strict):
    """Reached through a union only."""

    kept: Result[int] = 1
    forgotten: int = 2


class _Outer(Strict):
    """Two levels and the containers between them."""

    inner: _Inner | None = None
    many: tuple[_Inner, ...] = ()
    named: dict[str, _Inner] = Field(default_factory=dict)


def test_a_setting_without_a_mark_is_found_by_its_dotted_name() -> None:
    found = [name for name, marks in marked_fields(_Outer) if not marks]
    assert found == ["inner.forgotten", "many.forgotten", "named.forgotten"]
    with pytest.raises(TypeError, match=r"named\.a\.forgotten: declare it as Result"):
        list(leaves(_Outer(named={"a": _Inner()})))


class _Leaf(Strict):
    """One of each."""

    what: Result[float | None] = Field(default=None, gt=0)
    how: Operation[int] = 1
    where: Placement[tuple[str, ...]] = ()


class _Tree(Strict):
    """Containers of models."""

    one: _Leaf | None = None
    many: tuple[_Leaf, ...] = ()
    named: dict[str, _Leaf] = Field(default_factory=dict)


class _Grown(Strict):
    """A model that has got settings in a later version."""

    old: Result[int] = 1
    new: Annotated[Result[str], Later("as before")] = "as before"
    part: Annotated[_Leaf | None, Later()] = None


def test_a_later_setting_is_a_result_only_where_it_says_something_new() -> None:
    assert results(_Grown()) == {"old": 1}
    assert results(_Grown(new="other"))["new"] == "other"
    assert results(_Grown(part=_Leaf(what=2.0))) == {"old": 1, "part.what": 2.0}
    assert [change.path for change in changes(_Grown(), _Grown(new="other"))] == ["new"]
    assert keyed(_Grown()) == {"old": 1}


def test_leaves_are_found_in_models_lists_and_tables() -> None:
    tree = _Tree(many=(_Leaf(), _Leaf(what=2.0)), named={"a": _Leaf(where=("x",))})
    found = {leaf.path: (leaf.mark.value, leaf.value) for leaf in leaves(tree)}
    assert found == {
        "one": ("result", None),
        "many.0.what": ("result", None),
        "many.0.how": ("operation", 1),
        "many.0.where": ("placement", []),
        "many.1.what": ("result", 2.0),
        "many.1.how": ("operation", 1),
        "many.1.where": ("placement", []),
        "named.a.what": ("result", None),
        "named.a.how": ("operation", 1),
        "named.a.where": ("placement", ["x"]),
    }
    assert results(tree) == {"one": None, "many.0.what": None, "many.1.what": 2.0, "named.a.what": None}


def test_changes_tell_both_values_and_what_is_on_one_side_only() -> None:
    before, after = _Tree(one=_Leaf(how=1)), _Tree(one=_Leaf(how=2), many=(_Leaf(what=1.5),))
    told = [(c.path, c.mark, c.before, c.after) for c in changes(before, after)]
    assert told == [
        ("one.how", Mark.OPERATION, 1, 2),
        ("many.0.what", Mark.RESULT, None, 1.5),
        ("many.0.how", Mark.OPERATION, None, 1),
        ("many.0.where", Mark.PLACEMENT, None, []),
    ]
    assert changes(before, before) == []


class _Kind(Strict):
    """One of several."""

    type: Literal["kind"] = "kind"
    what: Result[int] = 1
    where: Placement[str] = ""
    fixed: Annotated[Result[int], Settled("it is fixed")] = 1
    below: Annotated[_Leaf, Settled("so is this")] = _Leaf()
    left_out: _Leaf | None = None


class _Resumed(Strict):
    """A run."""

    first: Result[int] = 1
    kind: Annotated[_Kind, Ongoing(kind="other state")] = _Kind()
    any_kind: Annotated[tuple[_Kind, ...], Ongoing()] = (_Kind(),)


def test_what_may_change_while_a_run_goes_on_follows_from_the_declaration() -> None:
    """The innermost one counts; a result of which none says anything may not, and whatever is no result may."""
    inner = {"fixed": "it is fixed", "below.what": "so is this"}
    assert {leaf.path: leaf.settled for leaf in leaves(_Resumed()) if leaf.settled} == {
        "first": EVERYTHING,
        "kind.type": "other state",
        **{f"kind.{name}": why for name, why in inner.items()},
        **{f"any_kind.0.{name}": why for name, why in inner.items()},
    }
    later = _Resumed(first=2, kind=_Kind(what=2, fixed=2))
    told = {change.path: change.settled for change in changes(_Resumed(), later)}
    assert told == {"first": EVERYTHING, "kind.what": "", "kind.fixed": "it is fixed"}


def test_a_table_that_is_left_out_is_not_one_with_defaults() -> None:
    without, with_lora = config(), config(training={"lora": {}})
    assert results(without)["training.lora"] is None
    assert "training.lora" not in results(with_lora)
    assert results(with_lora)["training.lora.rank"] == 16


def test_the_form_says_the_mark() -> None:
    """Forms are made of the JSON schema and show a field's description."""
    defs = RunConfig.model_json_schema()["$defs"]
    shown = defs["HfRolloutConfig"]["properties"]
    assert (shown["temperature"]["x-mark"], shown["batch_rows"]["x-mark"]) == ("result", "operation")
    assert shown["batch_rows"]["description"].startswith("Rollouts decoded at once")
    assert "(Operation: how, not what" in shown["batch_rows"]["description"]
    assert "(Placement:" in defs["StoreConfig"]["properties"]["url"]["description"]
    unmarked = [
        f"{name}.{key}"
        for name, model in defs.items()
        for key, field in model.get("properties", {}).items()
        if "x-mark" not in field and not any(word in str(field) for word in ("$ref", "$defs"))
    ]
    assert unmarked == []


def test_the_text_of_own_code_is_part_of_a_key(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is not run for it: it would raise."""
    package = tmp_path / "plugin"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError\n")
    module = package / "rules.py"
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for text in ("raise RuntimeError\n", "raise RuntimeError  # another text\n"):
        module.write_text(text)
        keys.append(keyed(config(reward={"type": "custom", "function": "plugin.rules:judge"}), ("reward",)))
    assert [{**key, "reward.function (code)": ""} for key in keys] == 2 * [
        {"reward.type": "custom", "reward.function": "plugin.rules:judge", "reward.function (code)": ""}
    ]
    assert keys[0] != keys[1]


def test_the_text_of_all_of_an_environment_is_part_of_a_key(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_sums"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for text in ("a = 1\n", "a = 2\n", "a = 2\n"):
        (package / "parts" / "rewards.py").write_text(text)
        (package / "parts" / "__pycache__").mkdir(exist_ok=True)
        (package / "parts" / "__pycache__" / f"{len(keys)}.pyc").write_text("")
        keys.append(keyed(config(reward={"type": "verifiers", "environment": "my-sums"}), ("reward",)))
    assert keys[0]["reward.environment"] == "my_sums"
    differ = {name for name in keys[0] if keys[0][name] != keys[1][name]}
    assert differ == {"reward.environment (code)"}
    assert keys[1] == keys[2]
    with pytest.raises(ValueError, match=r"no module my_products\. Install its package, or put it on PYTHONPATH"):
        code_digest("my_products", "reward.environment")


@pytest.mark.parametrize("name", ["no_such_package:f", "json.no_such_module:f", "json.decoder.too_deep:f"])
def test_own_code_that_is_not_there_is_told_with_its_setting(name: str) -> None:
    with pytest.raises(ValueError, match=f"reward.function '{name}': no module"):
        code_digest(name, "reward.function")


def test_own_code_is_found_in_the_working_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a job finds it, though the command that starts the job may not."""
    (tmp_path / "mine.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    assert len(code_digest("mine:f", "reward.function")) == 64


def test_a_model_whose_source_is_not_there_has_a_schema_without_texts() -> None:
    made: type[Strict] = type("Made", (Strict,), {"__annotations__": {"size": Result[int]}, "__module__": "nowhere"})
    (shown,) = made.model_json_schema()["properties"].values()
    assert shown["description"] == "(Result: another value computes something else.)"
