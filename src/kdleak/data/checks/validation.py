"""The gate, run with Great Expectations: its report, its one-line message, its Data Docs.

`run_checks` measures and never raises on bad data; what stops the pipeline is the stage that reads its report.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.core.files import replacing_folder
from kdleak.data.checks.evidence import COLUMNS, record_evidence, role_evidence, task_evidence
from kdleak.data.checks.expectations import Expectation, expectations

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params

# As many offending rows as a report lists and a message names.
_LISTED, _NAMED = 20, 4
_SHOWN = ("row", "record_id", "role", "task", "n_records", "n_asked")


def run_checks(records: pd.DataFrame, params: Params, docs_dir: Path | None) -> dict[str, Any]:
    """Check a records table; write the Data Docs site to `docs_dir` (none for None).

    Returns a report without text or time stamps, equal for equal tables: success, n_records, roles, and for each
    expectation its name, success, checked and unexpected counts, remedy, and the first offending rows.
    """
    tables = {"schema": records.iloc[:0]}
    if set(COLUMNS) <= set(records.columns):
        tables["records"] = record_evidence(records, params)
        tables["roles"] = role_evidence(records, params)
        tables["tasks"] = task_evidence(records)
    wanted = [e for e in expectations(params) if e.table in tables]
    if docs_dir is None:
        results = _validate(wanted, tables, None)
    else:
        with replacing_folder(docs_dir) as fresh:
            results = _validate(wanted, tables, fresh)
    entries = [_entry(e, result, tables[e.table]) for e, result in zip(wanted, results, strict=True)]
    counts = tables["records"]["role"].value_counts().sort_index() if "records" in tables else {}
    return {
        "success": all(entry["success"] for entry in entries),
        "n_records": len(records),
        "roles": {role: int(n) for role, n in counts.items()},
        "expectations": entries,
    }


def failure_message(report: Mapping[str, Any]) -> str:
    """One line: what is broken, how many rows, which, and what to do; the later of several failures are counted."""
    failed = [e for e in report["expectations"] if not e["success"]]
    first = failed[0]
    named = ", ".join(_place(row) for row in first["rows"][:_NAMED])
    more = f" and {first['unexpected'] - _NAMED} more" if first["unexpected"] > _NAMED else ""
    others = f"; also broken: {', '.join(e['name'] for e in failed[1:])}" if failed[1:] else ""
    where = f" ({named}{more})" if named else ""
    return (
        f"checks: '{first['name']}' does not hold for {first['unexpected']} of {first['checked']}{where}; "
        f"{first['remedy']}{others}"
    )


def _place(row: Mapping[str, Any]) -> str:
    """An offending row in words."""
    if "column" in row:
        return f"no column '{row['column']}'"
    if "record_id" in row:
        return f"row {row['row']}: {str(row['record_id'])[:12]} {row['role']}"
    of_wanted = f" of {row['n_asked']}" if "n_asked" in row else ""
    task = f" {row['task']}" if "task" in row else ""
    return f"{row['role']}{task}: {row['n_records']}{of_wanted} rows"


def _entry(expectation: Expectation, result: Mapping[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """An expectation's result for the report."""
    if expectation.table == "schema":
        missing = [{"column": name} for name in COLUMNS if name not in table.columns]
        checked, unexpected, rows = len(COLUMNS), len(missing), missing
    else:
        details = result["result"]
        # An expectation that could not be evaluated has failed for all it should have looked at.
        checked = details.get("element_count", len(table)) - details.get("missing_count", 0)
        unexpected = details.get("unexpected_count", checked)
        at = sorted(row["position"] for row in details.get("unexpected_index_list") or [])
        columns = [name for name in _SHOWN if name in table.columns]
        rows = [_plain(row) for row in table[columns].iloc[at[:_LISTED]].to_dict("records")]
    return {
        "name": expectation.name,
        "success": bool(result["success"]),
        "checked": checked,
        "unexpected": unexpected,
        "remedy": expectation.remedy,
        "rows": rows,
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.item() if hasattr(value, "item") else value for key, value in row.items()}


def _validate(
    wanted: Sequence[Expectation], tables: Mapping[str, pd.DataFrame], docs: Path | None
) -> list[dict[str, Any]]:
    """Results of great_expectations, in the order of `wanted`; Data Docs into `docs`."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    if docs is not None:
        for site in list(context.get_site_names()):
            context.delete_data_docs_site(site)
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
        index = {"class_name": "DefaultSiteIndexBuilder"}
        context.add_data_docs_site(
            "checks", {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store}
        )
    source = context.data_sources.add_pandas("split")
    results: dict[int, dict[str, Any]] = {}
    for name, table in tables.items():
        of_table = [i for i, e in enumerate(wanted) if e.table == name]
        claims = [
            getattr(gx.expectations, wanted[i].kind)(**wanted[i].options, meta={"index": i, "notes": wanted[i].name})
            for i in of_table
        ]
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=claims))
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        validation = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        located = table.assign(position=range(len(table)))
        outcome = validation.run(
            batch_parameters={"dataframe": located},
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["position"]},
        )
        for result in outcome.results:
            asked_for = result.expectation_config
            assert asked_for is not None  # `claims` gave every one its index
            results[asked_for.meta["index"]] = result.to_json_dict()
    if docs is not None:
        with _written_whole():
            context.build_data_docs()
    return [results[i] for i in range(len(wanted))]


@contextmanager
def _written_whole() -> Iterator[None]:
    """OSError of a page that could not be written: Great Expectations logs it in a page of lines and goes on."""
    lost = _LostPages()
    log = logging.getLogger("great_expectations.render.renderer.site_builder")
    log.addFilter(lost)
    try:
        yield
    finally:
        log.removeFilter(lost)
    if lost.errors:
        raise lost.errors[0]


class _LostPages(logging.Filter):
    """Takes from a log the system's errors that it reports, and keeps them."""

    def __init__(self):
        super().__init__()
        self.errors: list[OSError] = []

    def filter(self, record: logging.LogRecord) -> bool:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            return True
        self.errors.append(error)
        return False
