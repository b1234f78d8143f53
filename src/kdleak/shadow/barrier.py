"""Does distillation keep back more than a teacher would that is as useful and was merely trained less?

A student leaks less than its teacher and is worse. A teacher stopped early, or regularised, is and does the same. Of
such control arms those that are at least as useful as the student are its peers, and the one of them that leaks least
is what it is measured against:

    Δ_net = leak(arm) − leak(student)

Above zero distillation is a barrier: no arm as useful keeps as much back. Below zero it is a regulariser at best: an
arm that is at least as useful leaks less. The arm is chosen by the estimates, which favours the arms a little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kdleak.shadow.clustered import Estimate, jackknife

#: Leak is the AUC of this attack, for all alike, so that none is measured by the luckiest of many.
LEAK = "lira_online:loss"


def usefulness(log_probs: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(1 + pairs,) mean over the records that a model was not trained on of their mean log-prob per token, nats; of all
    models and without each pair. Higher is more useful. log_probs, inside: (models, n)."""
    by_model = np.where(inside, 0.0, log_probs).sum(1) / (~inside).sum(1)
    by_pair = by_model.reshape(-1, 2).mean(1)
    without = (by_pair.sum() - by_pair) / (len(by_pair) - 1)
    return np.concatenate([[by_pair.mean()], without])


def barrier(
    student: str, arms: Mapping[str, Sequence[str]], useful: Mapping[str, np.ndarray], leak: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Δ_net of `student` against each kind of arm, with its 95 % interval over pairs.

    arms: names of arms by their kind (early_stop: its strengths). useful, leak: of every name (1 + pairs,), of all
    models and without each pair. None stands for a kind of which no arm is as useful as the student.
    """
    found: dict[str, Any] = {"usefulness": asdict(_estimate(useful[student])), "leak": asdict(_estimate(leak[student]))}
    found["against"] = {kind: _against(student, names, useful, leak) for kind, names in arms.items()}
    return found


def _against(
    student: str, names: Sequence[str], useful: Mapping[str, np.ndarray], leak: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    peers = [name for name in names if useful[name][0] >= useful[student][0]]
    if not peers:
        return None
    arm = min(peers, key=lambda name: leak[name][0])
    net, ahead = leak[arm] - leak[student], useful[arm] - useful[student]
    return {"arm": arm, "net": asdict(_estimate(net)), "more_useful_by": asdict(_estimate(ahead))}


def _estimate(values: np.ndarray) -> Estimate:
    return jackknife(float(values[0]), values[1:])
