"""Knows the Great Expectations suite of a clean prompt set, and runs it: a second look at what will be used.

Great Expectations takes seconds to import, so that happens inside the functions. Nothing of it leaves this process:
analytics are off, and its pages are made self-contained (`tasks.validation.data_docs`).
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypedDict

from cures_core.config.data import PromptFile
from cures_core.prompts.checks import LABEL_CHARS, not_an_answer
from cures_core.prompts.identity import ID_HEX, content_id
from cures_core.prompts.promptset import COLUMNS
from tasks.validation.data_docs import make_self_contained

MAX_FAILING_IDS = 100
MAX_GROUPS = 200
"""More distinct levels than this are not levels: rows would be pooled with nobody."""

# Characters above ASCII as themselves, and no \S: else Python's engine searches, many times slower than Arrow's.
_NO_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f" + "\u200b\u202a-\u202e\u2066-\u2069]"
_NOT_BLANK = r"[^ \t\n\v\f\r\x85\xa0" + "\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"


class ExpectationRow(TypedDict):
    """What became of one expectation."""

    expectation: str
    column: str
    description: str
    severity: str
    success: bool
    unexpected: int
    """Rows that do not meet it."""
    failing_ids: list[str]
    error: str


class Expectations(TypedDict):
    """expectations.json: no times, no random ids, so equal sets give equal results."""

    success: bool
    failed_critical: int
    expectations: list[ExpectationRow]


def run_expectations(frame: Any, folder: Path, cfg: PromptFile) -> Expectations:
    """Check a pandas frame with the columns of a `PromptSet`; write Data Docs to `folder`/data_docs.

    Raises:
        OSError: the pages cannot be written, as on a full disk.
    """
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    for site in list(context.list_data_docs_sites()):
        context.delete_data_docs_site(site)
    context.add_data_docs_site("prompts", _site(folder / "data_docs"))
    source = context.data_sources.add_pandas("prompts")
    batch = source.add_dataframe_asset("prompts").add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name="prompts", expectations=build_suite(cfg)))
    validation = context.validation_definitions.add(gx.ValidationDefinition(name="prompts", data=batch, suite=suite))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name="prompts",
            validation_definitions=[validation],
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]},
        )
    )
    outcome = checkpoint.run(batch_parameters={"dataframe": frame})
    with _nothing_swallowed():
        context.build_data_docs()
    make_self_contained(folder / "data_docs")
    (result,) = outcome.run_results.values()
    rows = [_summary(one) for one in result.to_json_dict()["results"]]
    rows.sort(key=lambda row: (row["column"], row["expectation"], row["description"]))
    return {
        "success": all(row["success"] for row in rows),
        "failed_critical": sum(not row["success"] and row["severity"] == "critical" for row in rows),
        "expectations": rows,
    }


def build_suite(cfg: PromptFile) -> list[Any]:
    """The expectations, bounds from the configuration."""
    _great_expectations()
    e: Any = import_module("great_expectations.expectations")
    final_answers, content_ids = _custom_expectations()
    return [
        e.ExpectTableColumnsToMatchOrderedList(column_list=list(COLUMNS), description="the columns of a prompt set"),
        e.ExpectTableRowCountToBeBetween(min_value=1, description="at least one prompt"),
        e.ExpectColumnValuesToBeUnique(column="id", description="every prompt once"),
        e.ExpectColumnValuesToMatchRegex(
            column="id", regex=f"^[0-9a-f]{{{ID_HEX}}}$", description="ids are digests of the content"
        ),
        content_ids(
            column_list=["id", "problem", "answer", "turns"], description="ids belong to turns, problem and answer"
        ),
        *(
            expectation
            for column, limit in (("problem", cfg.max_problem_chars), ("answer", cfg.max_answer_chars))
            for expectation in (
                e.ExpectColumnValuesToNotBeNull(column=column, description=f"every prompt has a(n) {column}"),
                e.ExpectColumnValueLengthsToBeBetween(
                    column=column, min_value=1, max_value=limit, description=f"{column} length, characters"
                ),
                e.ExpectColumnValuesToNotMatchRegex(
                    column=column, regex=_NO_CONTROL, description="no control or invisible characters"
                ),
                e.ExpectColumnValuesToMatchRegex(column=column, regex=_NOT_BLANK, description="not blank"),
            )
        ),
        final_answers(column="answer", description="whole, final answers: no placeholders, nothing cut off"),
        *(
            e.ExpectColumnValueLengthsToBeBetween(
                column=column, min_value=0, max_value=LABEL_CHARS, description="labels are short"
            )
            for column in ("source", "level", "subject", "verifier")
        ),
        e.ExpectColumnUniqueValueCountToBeBetween(
            column="level",
            min_value=0,
            max_value=MAX_GROUPS,
            severity="warning",
            description="few levels: prompts of one level share evidence",
        ),
    ]


@functools.cache
def _custom_expectations() -> tuple[Any, Any]:
    """(answers have the form of final answers, ids are the content's): built once the library is imported."""
    import pandas
    import pyarrow.compute

    library = "great_expectations"
    providers: Any = import_module(f"{library}.expectations.metrics.map_metric_provider")
    bases: Any = import_module(f"{library}.expectations.expectation")
    engine: Any = import_module(f"{library}.execution_engine").PandasExecutionEngine

    class FinalAnswer(providers.ColumnMapMetricProvider):  # type: ignore[misc]
        condition_metric_name = "column_values.final_answer"

        @providers.column_condition_partial(engine=engine)  # type: ignore[untyped-decorator]
        def _pandas(cls, column: Any, **_: object) -> Any:  # noqa: N805 (the decorator passes the class)
            texts = pyarrow.array(column)
            final = pyarrow.compute.utf8_is_decimal(texts).to_numpy(zero_copy_only=False)  # most answers are numbers
            for i in (~final).nonzero()[0]:
                final[i] = not_an_answer(texts[i].as_py()) is None
            return pandas.Series(final, index=column.index)

    class ExpectColumnValuesToBeFinalAnswers(bases.ColumnMapExpectation):  # type: ignore[misc]
        """Expect every value to have the form of a gold answer."""

        map_metric = "column_values.final_answer"

    class ContentId(providers.MulticolumnMapMetricProvider):  # type: ignore[misc]
        condition_metric_name = "multicolumn_values.content_id"
        condition_domain_keys = (
            "batch_id",
            "table",
            "column_list",
            "row_condition",
            "condition_parser",
            "ignore_row_if",
        )

        @providers.multicolumn_condition_partial(engine=engine)  # type: ignore[untyped-decorator]
        def _pandas(cls, column_list: Any, **_: object) -> Any:  # noqa: N805
            columns = (pyarrow.array(column_list[name]).to_pylist() for name in column_list.columns)
            same = [content_id(p, a, t) == i for i, p, a, t in zip(*columns, strict=True)]
            return pandas.Series(same, index=column_list.index)

    class ExpectMulticolumnValuesToBeContentIds(bases.MulticolumnMapExpectation):  # type: ignore[misc]
        """Expect the first column to hold the content id of the others."""

        map_metric = "multicolumn_values.content_id"

    return ExpectColumnValuesToBeFinalAnswers, ExpectMulticolumnValuesToBeContentIds


def _great_expectations() -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read while the library is imported
    library = import_module("great_expectations")
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)  # it sets INFO itself
    return library


@contextmanager
def _nothing_swallowed() -> Iterator[None]:
    """The library logs an error of a page and leaves the page half written: here it is raised."""
    swallowed = _Swallowed()
    logger = logging.getLogger("great_expectations.render.renderer.site_builder")
    logger.addHandler(swallowed)
    try:
        yield
    finally:
        logger.removeHandler(swallowed)
    if swallowed.errors:
        raise swallowed.errors[0]


class _Swallowed(logging.Handler):
    """Keeps the exceptions that are being handled where an error is logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (error := sys.exception()) is not None:
            self.errors.append(error)


def _site(folder: Path) -> dict[str, object]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "show_cta_footer": False},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.absolute())},
    }


def _summary(result: Mapping[str, Any]) -> ExpectationRow:
    config, outcome = result["expectation_config"], result["result"]
    kwargs = config["kwargs"]
    failing = [row["id"] for row in outcome.get("unexpected_index_list") or []]
    return {
        "expectation": config["type"],
        "column": kwargs.get("column") or ", ".join(kwargs.get("column_list", [])),
        "description": config.get("description") or "",
        "severity": str(config.get("severity", "critical")),
        "success": bool(result["success"]),
        "unexpected": int(outcome.get("unexpected_count") or 0),
        "failing_ids": sorted(str(i) for i in failing)[:MAX_FAILING_IDS],
        "error": str((result.get("exception_info") or {}).get("exception_message") or "")[:300],
    }
