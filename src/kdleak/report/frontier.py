"""What frontier.json says in words: a sentence for each comparison, and advice for a loss of utility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError, nearest
from kdleak.core.files import read_json
from kdleak.defend.defences import DEFENCES
from kdleak.defend.frontier import APART, BETTER, SAME
from kdleak.render.frontier import NO_KD, UNDEFENDED
from kdleak.render.wording import listed, number, p_value, signed, with_interval
from kdleak.stats.contrasts import Contrast

if TYPE_CHECKING:
    from kdleak.core.paths import Project

COMMAND = "dvc exp run -S defence.grid=default"
NOT_ADAPTIVE = "not under the adaptive attack"
#: What the points are called that are no defence.
CALLED = {UNDEFENDED: "the undefended student", NO_KD: "the no-KD student"}


@dataclass(frozen=True)
class Advice:
    """A defence that is not dominated: its cost in perplexity, as a share of the undefended one, its leak with an
    interval, and what it does not protect."""

    name: str
    loss: float
    leak: str
    epsilon: str
    verdict: str
    does_not_protect: str


def read_frontier(project: Project) -> dict[str, Any]:
    """frontier.json; KdleakError where no defences have been compared."""
    found = read_json(project.frontier) if project.frontier.is_file() else {}
    if not found.get("points"):
        raise KdleakError(f"{project.frontier}: no defences have been compared; run '{COMMAND}'")
    return found


def advise(found: Mapping[str, Any], most: float, method: str | None = None) -> list[Advice]:
    """The defences of a method that no other one dominates and that cost at most the share `most` of perplexity, the
    one that leaks least first. method: by default the first of the grid."""
    methods = list(dict.fromkeys(row["method"] for row in found["points"]))
    method = methods[0] if method is None else method
    if method not in methods:
        raise KdleakError(f"--method: no student of '{method}' was compared; {nearest(method, methods)}")
    if most < 0:
        raise KdleakError("--max-utility-loss: a share of perplexity, 0 or more; 0.05 accepts a twentieth")
    rows = {row["point"]: row for row in found["compared"] if row["method"] == method}
    undefended = rows[UNDEFENDED]["perplexity"]
    losses = {name: row["perplexity"] / undefended - 1 for name, row in rows.items()}
    kept = [name for name, row in rows.items() if not row["dominated"] and losses[name] <= most]
    kept.sort(key=lambda name: rows[name]["leak"])
    return [_advice(rows[name], losses[name], found) for name in kept]


def _advice(row: Mapping[str, Any], loss: float, found: Mapping[str, Any]) -> Advice:
    name = row["point"]
    points = [each for each in found["points"] if each["name"] == name and each["method"] == row["method"]]
    protects_not = DEFENCES[points[0]["defence"]].does_not_protect if points else "what public records say themselves"
    return Advice(name, loss, leak_words(row), epsilon_words(points), verdict_words(row), protects_not)


def print_advice(found: Mapping[str, Any], kept: Sequence[Advice], most: float) -> None:
    """A paragraph for each defence, on standard output."""
    print(f"Within {most:.0%} of the undefended student's perplexity, not dominated (leak by '{found['attack']}'):\n")
    for each in kept:
        epsilon = f"; {each.epsilon}" if each.epsilon else ""
        print(f"{each.name}: leak {each.leak}, perplexity {each.loss:+.1%}{epsilon}.")
        print(f"  Does not protect {each.does_not_protect}.")
        print(f"  {each.verdict[0].upper()}{each.verdict[1:]}.")
    if not kept:
        print("none; accept more, or train a grid of more strengths.")


def leak_words(row: Mapping[str, Any]) -> str:
    """The folded AUC with its interval."""
    reach = Contrast("", row["leak"], row["error"], 0)
    low, high = reach.interval
    return with_interval(row["leak"], (max(0.5, low), min(1.0, high)))


def epsilon_words(points: Sequence[Mapping[str, Any]]) -> str:
    """ε and whose records it covers; "" of a defence without."""
    spent = [point for point in points if point["epsilon_covers"] is not None]
    if not spent:
        return ""
    first = spent[0]
    if first["epsilon"] is None:
        return f"no ε (of {first['epsilon_covers']})"
    return f"ε {first['epsilon']:.3g} at δ {first['delta']:.2g}, of {first['epsilon_covers']}"


def verdict_words(row: Mapping[str, Any]) -> str:
    """What may be said of a point beside the controls at its perplexity, and what was not tried."""
    says = row.get("verdict")
    if row["point"] == NO_KD or says is None:
        return "a control"
    if says == APART:
        return "worth less than every control, the no-KD student too: not compared"
    controls = f"{listed([CALLED.get(name, str(name)) for name in row['beside']])} at its perplexity"
    runs = max((each["runs"] for each in row["difference"].values()), default=1)
    how = f"{runs} trainings" if runs > 1 else "one training of each"
    under = "" if row["adaptive_attack"] else f", {NOT_ADAPTIVE}"
    looked = ""
    if "adaptive" in row:
        gained = signed(row["adaptive"]["looked_better_by"])
        looked = f"; without shadow models of the defence it looked better by {gained}"
    if says == SAME:
        visible = number(row["detectable"])
        return f"no difference from {controls}; {visible} would have been seen ({how}{under}){looked}"
    word = "leaks less" if says == BETTER else "leaks more"
    return f"{word} than {controls} by every attack ({p_value(row['p_holm'])}, Holm; {how}{under}){looked}"
