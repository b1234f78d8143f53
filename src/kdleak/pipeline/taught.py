"""What the teacher of a run is fine-tuned on, canaries aside: its members."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.data.records import read_role

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.core.paths import Project
    from kdleak.core.variants import Variant


def taught_rows(variant: Variant, project: Project) -> pd.DataFrame:
    """The private records, by record id; of the control, as many auxiliary ones.

    A defence that reads what it protects reads these: the control's is not to depend on members, which its teacher has
    not seen.
    """
    private = read_role(project.records, "private")
    return read_role(project.records, "auxiliary").head(len(private)) if variant.control else private
