"""The checks stage: run the expectations on the split, keep their report, and stop where one is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_parquet, write_json
from kdleak.data.checks.validation import failure_message, run_checks

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def run_gate(params: Params, project: Project) -> dict:
    """Write results/checks/report.json and the Data Docs; KdleakError where the split is not fit to be measured."""
    report = run_checks(read_parquet(project.records), params, project.data_docs)
    write_json(report, project.checks)
    if not report["success"]:
        raise KdleakError(failure_message(report))
    return report
