"""The checks stage: run the expectations on the split, keep their report, and stop where one is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.artifacts import read_parquet, write_json
from kdleak.data.checks import failure_message, run_checks
from kdleak.errors import KdleakError

if TYPE_CHECKING:
    from kdleak.config import Params
    from kdleak.paths import Project


def run_gate(params: Params, project: Project) -> dict:
    """Write results/checks/report.json and the Data Docs; KdleakError where the split is not fit to be measured."""
    report = run_checks(read_parquet(project.records), params, project.data_docs)
    write_json(report, project.checks)
    if not report["success"]:
        raise KdleakError(failure_message(report))
    return report
