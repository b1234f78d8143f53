"""`defence.grid` of params.yaml: the defences and strengths that the frontier is drawn through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdleak.config.schema import Defence as Section
from kdleak.core.errors import KdleakError, nearest, shown
from kdleak.core.variants import Variant
from kdleak.defend.choice import chosen
from kdleak.defend.defences import DEFENCES
from kdleak.defend.registry import Acts, Defence

if TYPE_CHECKING:
    from kdleak.config.schema import Params

UNDEFENDED = "none"
#: Where a defence acts that has teachers of its own.
TEACHERS = (Acts.TEACHER, Acts.ENSEMBLE)


@dataclass(frozen=True)
class GridPoint:
    """A defence at one strength, and the seed of teacher and student."""

    defence: Defence
    seed: int

    @property
    def name(self) -> str:
        """One word, for paths: `none-seed-0`, `dp_sgd-sigma-0.2-seed-0`."""
        knobs = [f"{knob}-{getattr(self.defence, knob)}" for knob in sorted(self.defence.model_fields_set)]
        return "-".join([self.defence.name, *knobs, "seed", str(self.seed)])

    @property
    def teacher(self) -> GridPoint:
        """The point whose teacher this one's students learn from: of a defence that leaves the teacher alone, the
        undefended one."""
        return self if self.defence.acts_on in TEACHERS else GridPoint(DEFENCES[UNDEFENDED](), self.seed)

    def settings(self, params: Params) -> Params:
        """`params` as a run of this point alone has them."""
        knobs = {knob: getattr(self.defence, knob) for knob in self.defence.model_fields_set}
        return params.model_copy(update={"defence": section_of(self.defence.name, knobs), "seed": self.seed})

    @property
    def strength(self) -> float | str | None:
        """The value of the defence's knob; None where it has none."""
        return getattr(self.defence, self.defence.knob) if self.defence.knob else None


def grid_of(params: Params) -> list[GridPoint]:
    """The points that params.yaml asks for, seed by seed, the undefended one first; none while the list is empty.

    KdleakError names the entry that is wrong.
    """
    asked = params.defence.grid
    defences = default_grid() if asked == "default" else [_entry(entry, number) for number, entry in enumerate(asked)]
    if not defences:
        return []
    undefended = DEFENCES[UNDEFENDED]()
    distinct = {repr(each): each for each in [undefended, *defences]}
    for each in distinct.values():
        each.check(params)
    return [GridPoint(each, seed) for seed in (params.seed, *params.defence.seeds) for each in distinct.values()]


def default_grid() -> list[Defence]:
    """Every registered defence at the strengths that stand in its file."""
    return [
        made
        for each in DEFENCES.values()
        if each.acts_on is not None
        for made in ([each(**{each.knob: s}) for s in each.strengths] if each.knob else [each()])
    ]


def check_grid(params: Params, origin: str = "params.yaml") -> None:
    """Refuse a grid that names what there is not, or what contradicts other sections."""
    try:
        for key in ("methods", "on_policy"):
            for name in getattr(params.defence, key):
                if name not in params.kd.recipes:
                    raise KdleakError(f"defence.{key}: '{shown(name)}' is unknown; {nearest(name, params.kd.recipes)}")
        grid_of(params)
    except KdleakError as error:
        raise KdleakError(f"{origin}: {error}") from None


def students_of(params: Params) -> list[Variant]:
    """The students of each point: those of defence.methods, and the on-policy ones of defence.on_policy."""
    on_policy = [Variant(method, fraction=1.0) for method in params.defence.on_policy]
    return [*map(Variant, params.defence.methods), *on_policy]


def _entry(entry: dict[str, Any], number: int) -> Defence:
    name, knobs = entry.get("name"), {knob: value for knob, value in entry.items() if knob != "name"}
    if not isinstance(name, str) or not name:
        raise KdleakError(f"defence.grid.{number}: has no name; write {{name: dp_sgd, sigma: 0.2}}")
    try:
        return chosen(section_of(name, knobs))
    except KdleakError as error:
        raise KdleakError(f"defence.grid.{number}: {error}") from None


def section_of(name: str, knobs: dict[str, Any]) -> Section:
    return Section(name=name, grid=[], seeds=[], methods=["kd"], on_policy=[], shadows=0, **knobs)
