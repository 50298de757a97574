"""A posterior whose prompts get other names."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum import Curriculum, Posterior
from cures_core.curriculum.migration import renamed

NAMES = st.sampled_from(["a", "b", "c", "d", "x", "y", "z", "é"])


def learnt() -> Posterior:
    posterior = Posterior.fresh(Curriculum.from_ids(["a", "b", "c", "d"], list("uvuv")).prompts, PosteriorConfig())
    posterior.update(["a", "b", "c"], [3, 1, 0], [1, 1, 4], step=2)
    return posterior


@given(st.dictionaries(NAMES, NAMES, max_size=6))
def test_prompts_keep_what_is_known_of_them_and_stay_different(names: dict[str, str]) -> None:
    old = learnt()
    new = renamed(old, names)
    ids = [x.decode() for x in new.ids.tolist()]
    assert ids == sorted(ids, key=str.encode)
    assert len(set(ids)) == 4
    free = {old_id: names[old_id] for old_id in "abcd" if names.get(old_id, "a") not in "abcd"}
    for before, after in free.items():
        if list(free.values()).count(after) == 1:
            for one, two in zip(old.parameters(old.rows([before])), new.parameters(new.rows([after])), strict=True):
                assert np.array_equal(one, two)
    assert np.array_equal(np.sort(new.mean()), np.sort(old.mean()))
    assert new.step == old.step
