"""Code that a configuration names runs only where the environment of the process allows it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cures_core.config.curriculum import CustomConfig as CustomStrategy
from cures_core.config.loading import load_config
from cures_core.config.rewards import CustomConfig as CustomReward
from cures_core.curriculum.strategies.custom import load_strategy
from cures_core.errors import ConfigError
from cures_core.plugins import load_plugin, require_allowed, require_plugins_allowed
from cures_core.rewards import make_verifier

QUICKSTART = Path("configs/quickstart.toml")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's, which says when it is imported."""
    (tmp_path / "mine_for_plugins.py").write_text(
        "from pathlib import Path\nfrom subprocess import run\n"
        f"Path({str(tmp_path / 'imported')!r}).touch()\n"
        "def judge(completion, gold):\n    return True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "mine_for_plugins", sys.modules.pop("mine_for_plugins", None))  # type: ignore[arg-type]
    del sys.modules["mine_for_plugins"]
    return "mine_for_plugins"


@pytest.mark.parametrize("allowed", [None, "", "other", "mine", "mine_for_plugins:other", "mine_for_plugins.*", "*"])
def test_what_is_not_allowed_is_not_even_imported(
    allowed: str | None, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CURES_PLUGINS")
    if allowed is not None:
        monkeypatch.setenv("CURES_PLUGINS", allowed)
    with pytest.raises(ConfigError, match=r"^reward\.function: .*export CURES_PLUGINS=.*mine_for_plugins:judge$"):
        make_verifier(CustomReward(function=f"{own}:judge"))
    with pytest.raises(ConfigError, match=r"^curriculum\.strategy: .*export CURES_PLUGINS="):
        load_strategy(CustomStrategy(prompts_per_step=1, rollouts_per_step=2, strategy=f"{own}:judge"))
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("allowed", ["mine_for_plugins", "mine_for_plugins:judge", "a, mine_for_plugins:judge ,b"])
def test_what_is_allowed_is_loaded(allowed: str, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURES_PLUGINS", allowed)
    with make_verifier(CustomReward(function=f"{own}:judge")) as verifier:
        assert verifier.judge_pairs([("1", "1")])[0].outcome.value == "correct"


def test_the_line_that_would_allow_it_works_as_printed(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURES_PLUGINS", "theirs")
    with pytest.raises(ConfigError) as caught:
        load_plugin(f"{own}:judge", "reward.function")
    name, value = str(caught.value).rsplit("export ", 1)[1].split("=")
    monkeypatch.setenv(name, value)
    assert value.startswith("theirs,")
    assert callable(load_plugin(f"{own}:judge", "reward.function"))


def test_a_module_that_is_allowed_gives_what_it_defines_not_what_it_imports(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURES_PLUGINS", own)
    with pytest.raises(ConfigError, match="is subprocess:run; name it there"):
        load_plugin(f"{own}:run", "reward.function")


@pytest.mark.parametrize("module", ["a.b.c", "a.b.c.d"])
def test_what_lies_below_a_package_can_be_allowed(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURES_PLUGINS", "a.b.*")
    assert require_allowed(f"{module}:f", "reward.function") == "a.b.*"
    for other in ("a.b:f", "a.bc.d:f", "b.a.b.c:f"):
        with pytest.raises(ConfigError):
            require_allowed(other, "reward.function")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (['reward={type="custom", function="timeit:timeit"}'], "reward.function"),
        (
            [
                'reward={type="weighted", answer={type="custom", function="timeit:timeit"}, '
                'format=[{type="box", weight=0.1}]}'
            ],
            "reward.answer.function",
        ),
        (
            ['evaluation.suites.1.reward={type="custom", function="timeit:timeit"}'],
            "evaluation.suites.1.reward.function",
        ),
        (
            ['curriculum={type="custom", strategy="timeit:Timer", prompts_per_step=1, rollouts_per_step=2}'],
            "curriculum.strategy",
        ),
    ],
)
def test_a_run_asks_before_it_does_any_work(overrides: list[str], key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(QUICKSTART, overrides)
    with pytest.raises(ConfigError, match=rf"^{key}: timeit:\w+ is code of yours"):
        require_plugins_allowed(config)
    monkeypatch.setenv("CURES_PLUGINS", "timeit")
    require_plugins_allowed(config)
