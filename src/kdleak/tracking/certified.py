"""What the coin canaries of results/epsilon/report.json certify, for the run of the method that they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.certify.names import defence_key
from kdleak.core.files import read_json
from kdleak.core.variants import TEACHER
from kdleak.shadow.report import settings_of
from kdleak.tracking.metrics import known_figures

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def epsilon_metrics(method: str, params: Params, project: Project) -> dict[str, float]:
    """One-run bounds of the student and of the teacher with canaries, and what these cost; nothing where no audit was
    made under the defence and settings of `params`."""
    audits = read_json(project.epsilon_report)["audits"] if project.epsilon_report.is_file() else {}
    audit, own = audits.get(defence_key(params), {}), settings_of(params)
    if not audit or any(audit[key] != own[key] for key in own):
        return {}
    low = {name: each["one_run"]["epsilon_lower"] for name, each in audit["models"].items()}
    found = {"epsilon_lower": low.get(method), "teacher_epsilon_lower": low[TEACHER]}
    return known_figures(found | {"canary_perplexity_cost": audit["perplexity"]["cost"]})
