"""Every parameter, set to what it must not be: refused in a line that names it, or text that no shell ever reads."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from functools import reduce

import pytest
import yaml

from kdleak.config.load import load_params, parse_params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.defend.choice import check_defence
from kdleak.defend.defences import DEFENCES
from kdleak.defend.grid import check_grid
from kdleak.distill.methods import METHODS
from kdleak.distill.recipes import check_methods
from kdleak.pipeline.validate import check_environment
from tests.config.test_config import DEFAULT, changed
from tests.support.pipeline_project import ROOT

LISTS = {"lr_multipliers": 0.3, "seeds": 7, "grids": "paper", "fractions": 0.5, "lm_weights": 0.7}
WITH_RATES = reduce(lambda content, name: changed(f"study.{name}", [LISTS[name]], content), LISTS, DEFAULT)
FOR_A_SHELL = ("kd; touch x", "$(touch x)", "`touch x`", "../../x", "kd\ntouch x", "| touch x", "kd && touch x #", "-x")
#: Text that the pipeline hands on as a name: DVC as a path to watch, the hub as an id, families.yaml as a key.
FREE_TEXT = {
    "data.path", "data.hub.name", "data.hub.revision", "data.hub.split",
    "model.family", "model.student",
}  # fmt: skip
NULLABLE = re.compile(
    r"data\.max_(prompt|response)_chars|compute\.micro_batch_tokens"
    r"|defence\.(?!name$)|kd\.student_fraction|kd\.start|kd\.lm_weight|kd\.recipes\.\w+\.(?!lr$|epochs$|batch)"
)


def leaves(content: object, key: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, value) of every value; entries of a list by their number."""
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for name, value in entries:
        place = f"{key}.{name}".lstrip(".")
        if isinstance(value, dict | list):
            yield from leaves(value, place)
        else:
            yield place, value


LEAVES = dict(leaves(WITH_RATES))


def accepted(key: str, value: object) -> bool:
    """Whether params.yaml with `value` at `key` is valid; a refusal is one line and names the key, or its section."""
    try:
        params = parse_params(changed(key, value, WITH_RATES))
        check_methods(params)
        check_defence(params)
        check_grid(params)
    except KdleakError as error:
        said = str(error)
        assert said.startswith("params.yaml: ") and said.isprintable() and len(said) < 400, said
        parts = key.split(".")
        assert any(".".join(parts[:n]) in said for n in range(len(parts), 0, -1)) or parts[-1] in said, (key, said)
        return False
    return True


def taken(values: tuple, keys: object = LEAVES) -> set[str]:
    return {key for key in keys for value in values if accepted(key, value)}


def test_no_parameter_takes_a_list_or_a_section():
    assert not taken(([], {}, ["kd"], [1], {"a": 1}))


def test_no_parameter_takes_what_is_no_number():
    assert not taken((math.nan, math.inf, -math.inf))


def test_no_number_is_negative_and_no_count_beyond_what_a_library_can_count():
    numbers = {key for key, value in LEAVES.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    assert not taken((-1, -0.5), numbers)
    assert not taken((10**30,), {key for key in numbers if isinstance(LEAVES[key], int)})
    assert not taken((2.5,), {key for key in numbers if isinstance(LEAVES[key], int)} - {"kd.lm_weight"})


def test_nothing_is_left_empty_that_must_be_there():
    assert not taken(("",))
    assert {key for key in taken((None,)) if not NULLABLE.match(key)} == set()


def test_a_switch_is_no_number_and_a_number_no_switch():
    switches = {key for key, value in LEAVES.items() if isinstance(value, bool)}
    assert switches == {"optimizer.checkpointing"}
    assert taken((True, False)) == switches
    assert not taken((0, 1, "true", "yes"), switches)


def test_no_knob_of_a_defence_takes_what_it_must_not():
    for name, options in DEFENCES.items():
        for knob in options.model_fields:
            for value in ([], {}, "", "kd", True, -1, -0.5, 10**30, math.nan, math.inf, *FOR_A_SHELL):
                content = changed("defence.name", name, changed(f"defence.{knob}", value))
                with pytest.raises(KdleakError, match=r"params\.yaml: defence") as caught:
                    check_defence(parse_params(content))
                assert str(caught.value).isprintable()


def test_what_a_shell_would_read_is_text_in_a_few_names_and_refused_everywhere_else():
    # Attacks are looked up by `check_environment`; methods of shadow models and of the audit of ε too, which no command
    # holds.
    names = {key for key in LEAVES if key.startswith(("audit.attacks.", "shadow.methods.", "epsilon.methods."))}
    assert taken(FOR_A_SHELL) <= FREE_TEXT | names
    for key in (
        "study.methods.0",
        *(f"study.{name}.0" for name in LISTS),
        "study.divergences.0",
        "kd.method",
        "kd.recipes.kd.lr",
        "seed",
    ):
        assert not any(accepted(key, value) for value in FOR_A_SHELL)


@pytest.mark.parametrize(
    "key", ["model.family", "model.student", "audit.attacks.0", "shadow.methods.0", "epsilon.methods.0", "data.path"]
)
def test_a_name_of_nothing_is_refused_in_one_line_before_any_stage_runs(key):
    for value in FOR_A_SHELL:
        content = changed(key, value, WITH_RATES)
        content["data"]["source"] = "file"
        content["data"]["path"] = value if key == "data.path" else "families.yaml"
        with pytest.raises(KdleakError) as caught:
            check_environment(parse_params(content), Project(ROOT))
        assert key.removesuffix(".0") in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("section", ["", "kd", "kd.recipes", "kd.recipes.kd", "study", "data.hub", "audit.mope"])
def test_an_unknown_key_of_any_kind_is_refused(section):
    for key in ("x; touch x", "", 1, None, 2.5, True, "a\nb"):
        content = copy.deepcopy(DEFAULT)
        place = content
        for part in filter(None, section.split(".")):
            place = place[part]
        place[key] = {"lr": 0.1, "epochs": 1, "batch_size": 1}
        with pytest.raises(KdleakError) as caught:
            check_methods(parse_params(content))
        assert str(caught.value).startswith("params.yaml: ") and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "kd", "7", "seed: 0", "kd: [", "a: &a [*a]", "!!python/object:os.x {}"]
)
def test_a_file_that_holds_no_parameters_is_one_line(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(KdleakError, match=r"params\.yaml: ") as caught:
        load_params(tmp_path / "params.yaml")
    assert str(caught.value).isprintable()


def test_only_checked_names_and_numbers_reach_a_command_line():
    """What stands in a `cmd:` is a technique's name or an entry of a list; both are validated by the first stage."""
    lists = {f"${{study.{name}}}" for name in ("methods", "divergences", *LISTS)}
    reached = set()
    for file in ("dvc.yaml", "study/dvc.yaml"):
        for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items():
            stage = stage.get("do", stage)
            for inserted in re.findall(r"\$\{([^}]*)\}", stage["cmd"]):
                kind, _, what = inserted.partition(".")
                assert kind == "item", f"{file}: {name}: '{inserted}' is not validated"
                source = stage["matrix"][what]
                assert source in lists or all(re.fullmatch(r"[a-z_]+", str(entry)) for entry in source)
                reached.add(inserted)
    assert reached
    assert all(re.fullmatch(r"[a-z]+", name) for name in METHODS)
    for rate in (1e-7, 0.1, 3, 999.5):
        assert re.fullmatch(r"[0-9.e-]+", str(rate))


def test_every_stage_waits_for_the_parameters_to_be_checked():
    stages = {}
    for file in ("dvc.yaml", "study/dvc.yaml"):
        for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items():
            outs = [
                o if isinstance(o, str) else next(iter(o)) for kind in ("outs", "metrics") for o in stage.get(kind, [])
            ]
            stages[name] = (stage.get("deps", []), outs)
    checked = {"params"}
    made = set(stages["params"][1])
    while new := {n for n, (deps, _) in stages.items() if n not in checked and any(within(d, made) for d in deps)}:
        checked |= new
        made |= {out for name in new for out in stages[name][1]}
    assert checked == set(stages)


def within(path: str, made: set[str]) -> bool:
    return any(path == out or out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in made)
