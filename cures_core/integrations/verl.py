"""verl's curriculum sampler (`AbstractCurriculumSampler` of verl 0.7.1; 0.8.0 and later have none).

    data.sampler.class_path=pkg://cures_core.integrations.verl data.sampler.class_name=CuresSampler
    data.dataloader_num_workers=0 +data.sampler.num_generations=8

verl saves its data loader before it updates the sampler: a run that is resumed counts the rewards of the step in which
it was saved as unknown, and draws on otherwise as if never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cures_core.curriculum import Curriculum, CurriculumConfig
from cures_core.errors import ConfigError, CurriculumMisuse, MissingExtra
from cures_core.integrations.torch_sampler import CurriculumSampler

try:
    from verl.experimental.dataset.sampler import AbstractCurriculumSampler
except ImportError as error:
    raise MissingExtra(
        "CuresSampler runs inside verl 0.7.1: pip install verl==0.7.1 (later ones have no sampler)"
    ) from error


_LOST_AFTER = 4
"""Steps after which a row that no batch has brought back was dropped: filtered out, or cut off by the loader's
`drop_last`. A trainer that generates a step ahead still brings it."""


class CuresSampler(AbstractCurriculumSampler):  # type: ignore[misc]
    """Draws rows of verl's dataset, and learns from the scores of the batches that were made of them.

    Settings, below `data.sampler`: `num_generations` (the same as `actor_rollout_ref.rollout.n`), `threshold` (least
    score of a correct rollout, 0.5) and `curriculum` (fields of a strategy's configuration, such as `type`). Prompts
    are named by the content of their messages and of `reward_model.ground_truth`, and told apart in a batch by
    `extra_info.index`, which has to differ between rows. Rows that no batch brings back within four steps were dropped:
    their rollouts are unknown.
    """

    def __init__(self, data_source: Any, data_config: Mapping[str, Any]) -> None:
        settings = data_config["sampler"]
        table = data_source.dataframe
        self._rows = _rows_by_index(table["extra_info"] if "extra_info" in table.column_names else [])
        if len(self._rows) != len(data_source):
            raise ConfigError(f"{len(data_source)} rows, {len(self._rows)} of them with extra_info.index")
        prompts = {
            "problem": table[data_config.get("prompt_key", "prompt")],
            "answer": [str((model or {}).get("ground_truth", "")) for model in table["reward_model"]],
            "source": table["data_source"],
            "level": [str((extra or {}).get("level", "")) for extra in table["extra_info"]],
        }
        self._sampler = CurriculumSampler(
            Curriculum.from_table(
                prompts,
                _config(data_config),
                seed=int(data_config.get("seed") or 0),
                threshold=float(settings.get("threshold", 0.5)),
            ),
            lost_after=_LOST_AFTER,
        )

    @property
    def curriculum(self) -> Curriculum:
        """To look at, and for its posterior."""
        return self._sampler.draws.curriculum

    def __iter__(self) -> Iterator[int]:
        return iter(self._sampler)

    def __len__(self) -> int:
        return len(self._sampler)

    def update(self, batch: Any) -> None:
        """Take the scores of a batch: rows in any order, each as often as its rollouts that are left.

        Raises `CurriculumMisuse` for rows that this sampler did not draw.
        """
        scores = batch.batch["token_level_scores"].sum(-1).tolist()
        by_row: dict[int, list[float]] = {}
        for extra, score in zip(batch.non_tensor_batch["extra_info"], scores, strict=True):
            index = extra.get("index")
            if index not in self._rows:
                raise CurriculumMisuse(f"extra_info.index {index!r} is in no row of the dataset; nothing was counted")
            by_row.setdefault(self._rows[index], []).append(score)
        for row, rewards in by_row.items():
            self._sampler.tell(row, rewards)

    def state_dict(self) -> dict[str, Any]:
        return self._sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sampler.load_state_dict(state)


def _config(data_config: Mapping[str, Any]) -> CurriculumConfig:
    settings = data_config["sampler"]
    num = settings.get("num_generations")
    if num is None:
        raise ConfigError("+data.sampler.num_generations is needed: the same number as actor_rollout_ref.rollout.n")
    prompts = int(data_config.get("gen_batch_size") or data_config["train_batch_size"])
    sizes = {"prompts_per_step": prompts, "rollouts_per_step": prompts * int(num)}
    try:
        adapter: TypeAdapter[CurriculumConfig] = TypeAdapter(CurriculumConfig)
        return adapter.validate_python({"type": "cures", **sizes, **dict(settings.get("curriculum") or {})})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"data.sampler.curriculum: {place}: {first['msg']}") from error


def _rows_by_index(extras: Any) -> dict[Any, int]:
    rows: dict[Any, int] = {}
    for row, extra in enumerate(extras):
        index = (extra or {}).get("index")
        if index is None:
            raise ConfigError(f"row {row} has no extra_info.index: number the rows, so that a batch's rows are known")
        if rows.setdefault(index, row) != row:
            raise ConfigError(
                f"rows {rows[index]} and {row} have the same extra_info.index {index!r}: number the rows of all files "
                "together"
            )
    return rows
