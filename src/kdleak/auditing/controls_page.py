"""The part of an audit's page on its controls: each with its state, and the blind battery scorer by scorer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdleak.auditing.controls import BLIND_MODELS, FAILED, PASSED
from kdleak.render.blocks import Block, Callout, Heading, Paragraph, Table
from kdleak.render.page import Section
from kdleak.render.wording import number, p_value, with_interval


def controls_section(controls: Mapping[str, Any], records: Mapping[str, Any]) -> Section:
    """The section on controls. controls: of membership.json; records: the sizes of the lists."""
    shuffled, overlap = controls["permutation"], controls["overlap"]
    best, shared = shuffled["best"], overlap["some"]["n_nonmembers"]
    blocks: list[Block] = [*_blind(controls["blind"]), Heading("Members and non-members at random")]
    if best is not None:
        blocks.append(
            Paragraph(
                f"With the labels shuffled {shuffled['n_permutations']} times, the best attack's AUC "
                f"stays below {number(best['null_q95'])} in 95 % of cases; it is {number(best['auc'])} with the true "
                f"labels ({p_value(best['p_value'])})."
            )
        )
    blocks.append(_state(shuffled))
    for attack, control in controls.get("placebo", {}).items():
        shown = with_interval(control["auc"], control["auc_ci95"])
        blocks += [Heading(f"A placebo for '{attack}'"), _state(control, f" AUC {shown}.")]
    left_out = records["overlap_left_out"]
    blocks += [
        Heading("Overlap of the lists"),
        Paragraph(
            f"No record, and no near-duplicate, stands in both lists. {shared} of {records['nonmembers']} non-members "
            f"share a run of {overlap['ngram']} words with a member."
        ),
    ]
    if any(left_out.values()):
        blocks.append(
            Paragraph(f"Left out as overlapping: {left_out['member']} members, {left_out['nonmember']} non-members.")
        )
    return Section("Controls", blocks, "What has to hold for the figures above to mean anything.")


def _blind(blind: Mapping[str, Any]) -> list[Block]:
    """The blind battery: its outcome, what it would have seen, and each of its scorers."""
    shown, strongest = with_interval(blind["auc"], blind["auc_ci95"]), blind["scorer"]
    which = f" The strongest scorer, '{strongest}': AUC {shown}." if strongest else ""
    words = "Scorers that cannot know who was a member: classifiers of the texts alone, each cross-fitted on one trait "
    words += "of them, and models that saw neither list. Where one succeeds, the lists differ in themselves."
    if blind["noticeable_auc"] is not None:
        words += f" An AUC above {number(blind['noticeable_auc'])} would have been noticed (95 %)."
    rows = [
        [name, BLIND_MODELS.get(name, "the texts"), with_interval(area["auc"], area["auc_ci95"])]
        for name, area in blind["scorers"].items()
    ]
    count = len(rows)
    header = ["blind scorer", "reads", f"AUC [interval, 95 % for all {count} at once]"]
    table = [Table(header, rows, words=2)] if rows else []
    return [Heading("Blind attacks"), _state(blind, which), Paragraph(words), *table]


def _state(control: Mapping[str, Any], more: str = "") -> Callout:
    """A control's state (passed, failed, could not run) and what it means."""
    tone = {PASSED: "good", FAILED: "bad"}.get(control["state"], "warn")
    return Callout(f"{control['state'].capitalize()}. {control['verdict']}{more}", tone)
