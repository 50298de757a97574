from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum import Posterior, load_posterior, migrate, save_posterior
from cures_core.curriculum.beta import (
    expected_spread,
    expected_variance,
    fit_prior,
    log_all_wrong,
    plugin_spread,
)
from cures_core.curriculum.migration import renamed
from cures_core.errors import ConfigError, CorruptArtifact, MissingInput
from cures_core.prompts import PromptSet
from cures_core.testing.curriculum import prompt_set

PLAIN = PosteriorConfig(fading=1.0, group_fading=1.0, dead_prior=0.0, strength=3.0)
POOL = prompt_set(20)
shape = st.floats(0.05, 200)
Visit = tuple[int, int, int]
visits = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 8), st.integers(0, 8)), max_size=12)


def filled(rounds: list[list[Visit]], cfg: PosteriorConfig = PLAIN, pool: PromptSet = POOL) -> Posterior:
    """A posterior after one update a round; a visit is (row, right, wrong)."""
    posterior = Posterior.fresh(pool, cfg)
    for step, batch in enumerate(rounds, 1):
        ids = [POOL.ids[row] for row, _, _ in batch]
        posterior.update(ids, [r for _, r, _ in batch], [w for _, _, w in batch], step)
    return posterior


def same(one: Posterior, two: Posterior) -> None:
    np.testing.assert_allclose(one.parameters(), two.parameters(), rtol=1e-12)
    np.testing.assert_allclose(one.dead(), two.dead(), rtol=1e-12)


@given(visits, st.randoms(use_true_random=False))
def test_without_fading_order_and_batches_do_not_matter(batch: list[Visit], shuffle: object) -> None:
    together = filled([batch])
    one_by_one = filled([[visit] for visit in batch])
    backwards = filled([batch[::-1]])
    same(together, one_by_one)
    same(together, backwards)


@given(visits, visits)
def test_fading_to_nothing_is_a_reset(first: list[Visit], second: list[Visit]) -> None:
    forgetful = PosteriorConfig(fading=0.0, group_fading=0.0, dead_prior=0.0, strength=3.0)
    fresh = Posterior.fresh(POOL, forgetful)
    ids = [POOL.ids[row] for row, _, _ in second]
    fresh.update(ids, [r for _, r, _ in second], [w for _, _, w in second], 2)
    same(filled([first, second], forgetful), fresh)


def test_counts_fade_and_the_prior_does_not() -> None:
    cfg = PosteriorConfig(fading=0.5, group_fading=1.0, dead_prior=0.0, strength=4.0)
    posterior = filled([[(3, 6, 2)]], cfg)
    row = slice(3, 4)
    m = posterior.group_rates()[posterior.groups[3]]
    posterior.update([], [], [], 3)
    a, b = posterior.parameters(row)
    assert a[0] == pytest.approx(6 * 0.25 + 4 * m)
    assert b[0] == pytest.approx(2 * 0.25 + 4 * (1 - m))
    assert posterior.evidence()[3] == pytest.approx(2.0)


def test_by_default_counts_fade_by_0_97_and_the_prior_is_worth_three_rollouts() -> None:
    posterior = filled([[(3, 6, 2)]], PosteriorConfig())
    posterior.update([], [], [], 2)
    assert posterior.evidence()[3] == pytest.approx(8 * 0.97)
    a, b = posterior.parameters()
    assert a + b == pytest.approx(posterior.evidence() + 3)


def test_a_group_lends_its_rate_to_what_was_never_visited() -> None:
    rate = {"a": (8, 0), "b": (0, 8)}
    visited = [row for row in range(20) if row % 3]
    posterior = filled([[(row, *rate[POOL[row].source]) for row in visited]])
    unseen = {POOL[row].source: posterior.mean()[row] for row in range(20) if row % 3 == 0}
    assert unseen["a"] > 0.9
    assert unseen["b"] < 0.1
    assert np.ptp(Posterior.fresh(POOL, PLAIN).mean()) == 0


def test_without_pooling_what_was_never_visited_starts_at_one_half() -> None:
    alone = PLAIN.model_copy(update={"pooling": "none"})
    posterior = filled([[(row, 8, 0) for row in range(20) if row % 3]], alone)
    assert posterior.mean()[::3][:7] == pytest.approx(0.5)
    assert posterior.mean()[1] == pytest.approx((8 + 1.5) / (8 + 3.0))


def test_failures_condemn_only_where_the_group_succeeds_and_one_success_acquits() -> None:
    cfg = PosteriorConfig(fading=1.0, group_fading=1.0)
    solved = [(row, 8, 0) for row in range(1, 20)]
    lone = filled([solved, [(0, 0, 8)]], cfg)
    among_failures = filled([[(row, 0, 8) for row in range(1, 20)], [(0, 0, 8)]], cfg)
    assert lone.dead()[0] > 0.9
    assert among_failures.dead()[0] < 0.5
    assert lone.mean()[0] < 0.05
    lone.update([POOL.ids[0]], [1], [7], 3)
    assert lone.dead()[0] < 1e-9


def test_suspicion_fades_towards_its_prior_and_an_acquittal_stays() -> None:
    cfg = PosteriorConfig(fading=0.97, strength=3.0, dead_prior=0.1, dead_fading=0.9)
    posterior = filled([[(0, 0, 8), (1, 1, 7)], [(row, 8, 0) for row in range(2, 20)]], cfg)
    for step in range(3, 6):
        posterior.update([POOL.ids[0]], [0], [8], step)
    suspected, acquitted = posterior.dead(np.array([0, 1]))
    assert suspected > 0.5 > acquitted
    posterior.update([POOL.ids[2]], [8], [0], 200)
    assert posterior.dead(np.array([0]))[0] == pytest.approx(0.1, abs=1e-3)
    assert posterior.dead(np.array([1]))[0] < 1e-9
    loaded = Posterior.fresh(POOL, cfg)
    loaded.load_state_dict(posterior.state_dict())
    np.testing.assert_array_equal(loaded.dead(), posterior.dead())
    np.testing.assert_allclose(migrate(posterior, POOL, cfg)[0].dead(), posterior.dead(), rtol=1e-9)


def spoilt(share: float, rate: float = 0.6, num: int = 600, visits: int = 4) -> Posterior:
    """A pool of which a share is never right, the rest at one rate; four rollouts of each in each visit."""
    prompts = prompt_set(num)
    posterior = Posterior.fresh(prompts, PosteriorConfig(fading=1.0, group_fading=1.0, dead_prior="fitted"))
    rng = np.random.default_rng(7)
    rates = np.where(rng.random(num) < share, 0.0, rate)
    for step in range(1, visits + 1):
        right = rng.binomial(4, rates)
        posterior.update(prompts.ids, right, 4 - right, step)
    return posterior


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.7])
def test_the_share_of_dead_prompts_is_read_off_what_came_true(share: float, tmp_path: Path) -> None:
    posterior = spoilt(share)
    assert posterior.dead_prior == pytest.approx(share, abs=0.06)
    assert posterior.dead().mean() == pytest.approx(share, abs=0.06)
    # It is in no file and no state: whoever has the evidence has it.
    save_posterior(posterior, tmp_path / "posterior.parquet")
    loaded = load_posterior(tmp_path / "posterior.parquet")
    again = Posterior(posterior.ids, posterior.groups, posterior.group_names, posterior.cfg)
    again.load_state_dict(posterior.state_dict())
    moved = migrate(posterior, prompt_set(600), posterior.cfg)
    for other in (loaded, again, moved[0], renamed(posterior, {})):
        assert other.dead_prior == posterior.dead_prior
        np.testing.assert_array_equal(other.dead(), posterior.dead())


def test_a_fitted_share_starts_as_the_default_and_moves_those_that_were_never_visited() -> None:
    cfg = PosteriorConfig(fading=1.0, group_fading=1.0, dead_prior="fitted")
    assert Posterior.fresh(POOL, cfg).dead() == pytest.approx(0.1)
    solved = [(row, 8, 0) for row in range(10, 20)]
    few, many = (filled([solved, [(row, 0, 24) for row in range(num)]], cfg) for num in (1, 8))
    assert few.dead(np.array([9]))[0] < 0.1 < many.dead(np.array([9]))[0]


def test_an_acquittal_outlasts_any_number_of_failures() -> None:
    solved = [(row, 8, 0) for row in range(1, 20)]
    # Its own failures are forgotten at once, so that each visit is as great a surprise as the first.
    cfg = PosteriorConfig(fading=0.0, group_fading=1.0, strength=30.0)
    posterior = filled([[(0, 8, 0), *solved], *([[(0, 0, 8), *solved]] * 30)], cfg)
    assert posterior.dead(np.array([0]))[0] < 1e-9


def test_the_dead_do_not_drag_their_group_down() -> None:
    solved = [(row, 8, 0) for row in range(4, 20)]
    believing = filled([solved, [(row, 0, 8) for row in range(4)]], PosteriorConfig(fading=1.0, group_fading=1.0))
    naive = filled([solved, [(row, 0, 8) for row in range(4)]])
    assert believing.group_rates().min() > naive.group_rates().min() + 0.05


def test_bad_evidence_is_refused_and_leaves_no_trace() -> None:
    posterior = filled([[(1, 2, 2)]])
    before = posterior.state_dict()
    for ids, right, wrong, step in (
        (["nobody"], [1], [1], 2),
        ([POOL.ids[0]], [-1], [1], 2),
        ([POOL.ids[0]], [1], [1], 0),
    ):
        with pytest.raises(ConfigError):
            posterior.update(ids, right, wrong, step)
    after = posterior.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_unknown_verdicts_alone_change_nothing() -> None:
    posterior = filled([[(1, 2, 2)]])
    mean, unvisited = posterior.mean().copy(), posterior.without_evidence()
    posterior.update([POOL.ids[5]], [0], [0], 1)
    np.testing.assert_array_equal(posterior.mean(), mean)
    assert posterior.without_evidence() == unvisited


@given(shape, shape)
def test_expected_spread_is_symmetric_and_below_that_of_the_mean(a: float, b: float) -> None:
    pair = np.array([a]), np.array([b])
    value = expected_spread(*pair)[0]
    assert 0 < value <= 0.5
    assert value == pytest.approx(expected_spread(*pair[::-1])[0])
    assert value <= plugin_spread(*pair)[0] + 1e-12


@pytest.mark.parametrize(("a", "b"), [(1, 1), (0.3, 0.3), (0.3, 4.3), (9, 2)])
def test_closed_forms_agree_with_draws(a: float, b: float) -> None:
    p = np.random.default_rng(0).beta(a, b, 400_000)
    pair = np.array([float(a)]), np.array([float(b)])
    assert expected_spread(*pair)[0] == pytest.approx(np.sqrt(p * (1 - p)).mean(), abs=2e-3)
    assert expected_variance(*pair)[0] == pytest.approx((p * (1 - p)).mean(), abs=2e-3)
    assert np.exp(log_all_wrong(*pair, np.array([5.0])))[0] == pytest.approx(((1 - p) ** 5).mean(), abs=2e-3)


def test_signal_grows_with_evidence_near_one_half_and_falls_at_the_ends() -> None:
    n = np.arange(1.0, 40.0)
    near, solved = expected_spread(0.5 + n, 0.5 + n), expected_spread(0.5 + 2 * n, np.full_like(n, 0.5))
    assert np.all(np.diff(near) > 0)
    assert np.all(np.diff(solved) < 0)


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.3), (2.0, 5.0), (1.0, 0.2)])
def test_the_fitted_prior_is_that_of_the_data(a: float, b: float) -> None:
    rng = np.random.default_rng(1)
    s = rng.binomial(8, rng.beta(a, b, 20_000)).astype(float)
    found = fit_prior(s, 8 - s)
    assert found == pytest.approx((a, b), rel=0.1)
    assert fit_prior(np.zeros(3), np.zeros(3)) == (1.0, 1.0)
    assert np.isfinite(fit_prior(np.full(50, 8.0), np.zeros(50))).all()


def test_parquet_round_trip_is_the_same_bytes_and_reads_anywhere(tmp_path: Path) -> None:
    posterior = filled([[(1, 2, 2), (7, 0, 8)], [(1, 1, 0)]], PosteriorConfig(fading=0.9, strength=2.0))
    save_posterior(posterior, tmp_path / "a.parquet")
    again = load_posterior(tmp_path / "a.parquet")
    save_posterior(again, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    again.update([POOL.ids[7]], [1], [0], 5)
    posterior.update([POOL.ids[7]], [1], [0], 5)
    same(posterior, again)
    frame = pq.read_table(tmp_path / "a.parquet").to_pandas()
    np.testing.assert_allclose(frame["mean"], load_posterior(tmp_path / "a.parquet").mean())


def test_a_file_of_the_first_version_still_loads() -> None:
    old = load_posterior(Path(__file__).parent / "posterior_v1.parquet")
    assert (len(old), old.step, old.archive is not None) == (6, 4, True)
    np.testing.assert_allclose(old.mean()[:3], [0.57906354, 0.31901395, 0.67877887], rtol=1e-6)


def test_a_posterior_with_a_drift_says_what_it_said_when_it_was_written() -> None:
    """Of a version that kept a common shift of all pass rates beside the counts."""
    path = Path(__file__).parent / "posterior_drift.parquet"
    told = pq.read_table(path).column("mean").to_numpy()
    old = load_posterior(path)
    np.testing.assert_allclose(old.mean(), told, rtol=1e-9)
    assert "drift" not in old.cfg.model_dump()
    assert old.summary()["prompts_with_evidence"] == 10


def test_what_is_no_posterior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="no such posterior"):
        load_posterior(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(CorruptArtifact, match="not a readable posterior"):
        load_posterior(tmp_path / "text.parquet")
    POOL.write_parquet(tmp_path / "prompts.parquet")
    with pytest.raises(CorruptArtifact, match="posterior schema none"):
        load_posterior(tmp_path / "prompts.parquet")


def test_a_changed_set_keeps_what_is_known_archives_what_left_and_takes_it_back() -> None:
    cfg = PosteriorConfig(fading=0.5, dead_prior=0.0)
    old = filled([[(row, 6, 2) for row in range(20)], [(3, 0, 8)]], cfg)
    smaller = POOL.take([i for i in range(20) if i >= 5])
    new, counts = migrate(old, PromptSet.of([*smaller, *prompt_set(3, offset=100)]), cfg)
    assert counts == {"kept": 15, "restored": 0, "new": 3, "archived": 5}
    np.testing.assert_allclose(new.evidence()[new.rows(smaller.ids)], old.evidence()[old.rows(smaller.ids)])
    assert len(new.without_evidence()) == 3
    back, counts = migrate(new, POOL, cfg)
    assert counts == {"kept": 15, "restored": 5, "new": 0, "archived": 3}
    np.testing.assert_allclose(back.evidence(), old.evidence())
    assert back.archive is not None
    assert back.archive.num_rows == 3


def test_migration_to_the_same_set_changes_nothing() -> None:
    old = filled([[(row, row % 5, 3) for row in range(20)]])
    new, counts = migrate(old, PromptSet.of(reversed(list(POOL))), PLAIN)
    assert counts == {"kept": 20, "restored": 0, "new": 0, "archived": 0}
    same(old, new)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.1), (0.1, 0.0), (0.1, 0.4), (0.4, "fitted")])
def test_another_share_of_dead_prompts_reaches_prompts_that_are_kept(before: float, after: float | str) -> None:
    """Solved, never solved, never visited: in the set, in the archive, and back from there."""
    old, cfg = PosteriorConfig(dead_prior=before), PosteriorConfig.model_validate({"dead_prior": after})
    visits: list[list[Visit]] = [[(row, 8, 0) for row in range(4, 12)], [(0, 0, 8), (13, 0, 8)]]
    known = filled(visits, old)
    moved = migrate(known, POOL.take(range(12)), cfg)[0]
    moved = migrate(moved, POOL, cfg)[0]
    first = Posterior.fresh(POOL, cfg).dead()
    assert moved.dead()[4:12] == pytest.approx(0, abs=1e-9)
    if after != "fitted":
        np.testing.assert_array_equal(moved.dead()[[1, 2, 3, 12, 14]], first[[1, 2, 3, 12, 14]])
    evidence = moved.dead_odds() - np.log(moved.dead_prior / (1 - moved.dead_prior)) if after else np.zeros(20)
    expected = known.dead_odds() - np.log(before / (1 - before)) if before and after else np.zeros(20)
    np.testing.assert_allclose(evidence[[0, 1, 12, 13]], expected[[0, 1, 12, 13]], atol=1e-12)


def test_the_summary_counts() -> None:
    summary = filled([[(row, 8, 0) for row in range(10)], [(12, 4, 4)]]).summary(bins=10)
    assert (summary["prompts"], summary["prompts_with_evidence"], sum(summary["histogram"])) == (20, 11, 20)
    assert summary["evidence"] == 88
