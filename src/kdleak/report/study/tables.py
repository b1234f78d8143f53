"""What git keeps of a study: a row for each model and attack, and one for each model. The files that they are made
from are DVC outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.report.headline import best_attack
from kdleak.report.study.sections.headline import excess

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.report.study.results import Study

_ATTACK = ("method", "attack", "auc", "auc_low", "auc_high", "tpr_at_1pct_fpr", "excess", "excess_low", "excess_high")
_MODEL = ("method", "members", "nonmembers", "best_attack", "perplexity", "rouge_l")
_GAP = ("token_accuracy_gap", "token_accuracy_gap_low", "token_accuracy_gap_high")


def attacks_table(study: Study) -> pd.DataFrame:
    """Each model by each attack: AUC and its interval, TPR at 1 % FPR, how far above the no-KD student."""
    import pandas as pd

    rows = []
    for name in study.with_("membership"):
        for attack, figures in study.models[name].membership["attacks"].items():
            over = excess(study, name, attack) or {"difference": None, "ci95": (None, None)}
            leak = (figures["auc"], *figures["auc_ci95"], figures["tpr_at_fpr"]["0.01"])
            rows.append((name, attack, *leak, over["difference"], *over["ci95"]))
    return pd.DataFrame(rows, columns=list(_ATTACK))


def models_table(study: Study) -> pd.DataFrame:
    """Each model that has been attacked: how many records, the best attack, utility and memorization."""
    import pandas as pd

    rows = []
    for name in study.with_("membership"):
        model = study.models[name]
        sizes = model.membership["n_members"], model.membership["n_nonmembers"]
        useful, accuracy = model.utility or {}, (model.memorization or {}).get("token_accuracy", {})
        gap = (accuracy.get("gap"), *(accuracy.get("gap_ci95") or (None, None)))
        best = best_attack(model.membership)
        rows.append((name, *sizes, best, useful.get("perplexity"), useful.get("rouge_l"), *gap))
    return pd.DataFrame(rows, columns=[*_MODEL, *_GAP])
