"""What an audit leaves: figures, a table and a page, in memory and as files."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from html import escape
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from kdleak.auditing.judgement import LEAK, NONE
from kdleak.auditing.list_verdict import LEARNED, NO_EVIDENCE
from kdleak.auditing.model_card import model_card
from kdleak.core.errors import KdleakError
from kdleak.core.files import json_text, replacing_file

if TYPE_CHECKING:
    import pandas as pd


#: Of audit.json, whose keys `audit.schema.json` beside this file describes: raised where a key goes or changes meaning.
SCHEMA_VERSION = 3
#: What `AuditResult.save` writes.
FILES = ("audit.json", "report.html", "scores.parquet")
#: What it writes beside, on request: the one file with texts of records.
TEXTS = "exposed-texts.html"


def check_out(folder: Path) -> None:
    """Refuse a folder that cannot take the results, or be made to, before any pass is made; nothing is left there."""
    try:
        str(folder).encode()
        with TemporaryFile(dir=next(place for place in (folder, *folder.absolute().parents) if place.exists())):
            pass
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or "not a name that can be written").lower()
        raise KdleakError(f"--out {folder}: {why}; name a folder that can be written") from None
    for name in FILES:
        if (folder / name).exists() and not (folder / name).is_file():
            raise KdleakError(f"--out {folder}: {name} there is no file; name another folder")


@dataclass(frozen=True)
class AuditResult:
    """The result of an audit. No text of a record stands in it, but for `texts`.

    figures: the content of audit.json.
    table:   a row a record: record_id, role, task, place (file and line), one column an attack (higher = member), and
             the cross-fitted score of all of them (`ensemble`).
    report:  the HTML page.
    texts:   of an audit with `show_text`, a page with the texts of the most exposed records; else "".
    """

    figures: dict[str, Any]
    table: pd.DataFrame
    report: str
    texts: str = ""

    @property
    def verdict(self) -> str:
        """The verdict in plain words: on single records, on the list as a whole, and on identifiers if asked for."""
        parts = [self.figures[part] for part in ("verdict", "list", "identifiers") if part in self.figures]
        return "\n".join(line for part in parts for line in (part["headline"], *part["sentences"]))

    @property
    def leaks(self) -> bool | None:
        """Whether a leak was found; False is no proof that there is none. None where the lists cannot tell: they differ
        without any model, are swapped, or no control could run."""
        return {LEAK: True, NONE: False}.get(self.figures["verdict"]["kind"])

    @property
    def learned_from_list(self) -> bool | None:
        """Whether the student is shown to have learned from the list as a whole; False is no proof that it did not.
        None where these lists cannot tell: without a baseline or a pretrained base, a list that stands out cannot."""
        return {LEARNED: True, NO_EVIDENCE: False}.get(self.figures["list"]["kind"])

    @property
    def model_card(self) -> str:
        """The outcome as a section for a model card, in Markdown."""
        return model_card(self.figures)

    @property
    def auc(self) -> float:
        """AUC of the attack that the verdict is about; .5 is chance."""
        return self.figures["verdict"]["strongest"]["auc"]

    def to_frame(self) -> pd.DataFrame:
        """A row an attack: attack, auc, auc_low, auc_high, p_holm, and tpr_at_<fpr> for each rate, the best first."""
        import pandas as pd

        attacks = self.figures["membership"]["attacks"]
        rows = [
            {
                "attack": name,
                "auc": area["auc"],
                "auc_low": area["auc_ci95"][0],
                "auc_high": area["auc_ci95"][1],
                "p_holm": area["p_holm"],
                **{f"tpr_at_{rate}": tpr for rate, tpr in area["tpr_at_fpr"].items()},
            }
            for name, area in attacks.items()
        ]
        return pd.DataFrame(rows).sort_values("auc", ascending=False, ignore_index=True)

    def save(self, folder: str | Path) -> Path:
        """Write audit.json, scores.parquet and report.html into `folder`, and exposed-texts.html (0600) where there are
        texts, all or none; returns it. A page of texts that an earlier audit left there goes."""
        folder = Path(folder)
        check_out(folder)
        with ExitStack() as together:  # all three are whole before the first takes its place
            figures, report, table = (together.enter_context(replacing_file(folder / name)) for name in FILES)
            if self.texts:
                texts = together.enter_context(replacing_file(folder / TEXTS))
                texts.touch(mode=0o600)
                texts.write_text(self.texts, encoding="utf-8")
            figures.write_text(json_text(self.figures, digits=6), encoding="utf-8")
            report.write_text(self.report, encoding="utf-8")
            self.table.to_parquet(table, index=False)
        if not self.texts:
            (folder / TEXTS).unlink(missing_ok=True)
        return folder

    def __repr__(self) -> str:
        return f"AuditResult({self.figures['verdict']['headline']!r})"

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that a notebook's styles and the page's do not meet."""
        return f'<iframe srcdoc="{escape(self.report)}" style="width:100%;height:48rem;border:0"></iframe>'
