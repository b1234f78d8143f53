"""A section for a model card, in Markdown: what an audit found, what it rests on, and what it could not see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdleak.core.version import __version__
from kdleak.render.wording import number, percent, with_interval

#: Attacks in the table: the strongest by AUC.
_SHOWN = 5


def model_card(figures: Mapping[str, Any]) -> str:
    """The section of `figures` (the content of audit.json); ids, names of models and numbers only."""
    verdict, lists, attacks = figures["verdict"], figures["lists"], figures["membership"]["attacks"]
    strongest = sorted(attacks, key=lambda name: (-(attacks[name]["auc"] or 0.0), name))[:_SHOWN]
    rows = [
        f"| `{name}` | {with_interval(attacks[name]['auc'], attacks[name]['auc_ci95'])} | "
        f"{percent(attacks[name]['tpr_at_fpr']['0.01'])} | {number(_excess(verdict, name))} |"
        for name in strongest
    ]
    controls = ", ".join(f"{name}: {each['state']}" for name, each in figures["controls"].items())
    power = verdict["power"]
    others = [name for name in figures["inputs"]["models"] if name != "student"]
    lines = [
        "### Privacy of the teacher's training data",
        "",
        f"**{verdict['headline']}** {verdict['sentences'][0]}",
        "",
        f"{figures['list']['headline']} {figures['list']['sentences'][0]}",
        "",
        f"Membership inference on {lists['members']} members and {lists['nonmembers']} non-members "
        f"({lists['groups']['members']} and {lists['groups']['nonmembers']} groups of records), by kdleak "
        f"{__version__}; compared with: {', '.join(others) or 'no other model'}.",
        "",
        "| attack | AUC [95 % interval] | TPR at 1 % FPR | excess AUC, at least |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        f"Controls: {controls}. An AUC above {number(power['noticeable_auc'], 2)} would have been noticed with a "
        f"probability of {percent(power['probability'], 0)}.",
        f"Attacks that did not run: {', '.join(f'`{name}`' for name in figures['left_out']) or 'none'}. The figures "
        "are of one training and of these records; no leak found is no proof that there is none.",
    ]
    return "\n".join(lines) + "\n"


def _excess(verdict: Mapping[str, Any], name: str) -> float | None:
    """The lower bound of the attack's excess over every model that never met the teacher, for all attacks at once."""
    return verdict["excess"]["attacks"].get(name, {}).get("at_least")
