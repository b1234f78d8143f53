"""What an experiment may set (hostile/experiments.yaml) reaches no shell: parameters stand in DVC's commands."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from copy import deepcopy

import yaml

from kdleak.config.load import load_params
from kdleak.distill.recipes import check_methods
from tests.support.hostile_inputs import TABLES, Tried, chosen
from tests.support.pipeline_project import ROOT
from tests.support.small_project import change

PLAIN = re.compile(r"kdleak [a-z]+( [A-Za-z0-9][A-Za-z0-9._+-]*)*")


def test_experiments(tried: Tried, tmp_path):
    from dvc.repo import Repo

    (tmp_path / "study").mkdir()
    (tmp_path / ".dvc").mkdir()
    for name in ("dvc.yaml", "study/dvc.yaml", "params.yaml", "families.yaml", ".dvc/config"):
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    sound = yaml.safe_load((tmp_path / "params.yaml").read_text())

    def commands() -> None:
        check_methods(load_params(tmp_path / "params.yaml"))
        with Repo(str(tmp_path)) as repo:
            made = [stage.cmd for stage in repo.index.stages if stage.cmd]
        assert len(made) > 20
        strange = [command for command in made if not PLAIN.fullmatch(command)]
        if strange:
            raise AssertionError(f"a shell would read {strange}")

    table = TABLES["experiments"]
    inputs = [("sound", None), *itertools.product(table["keys"], table["values"])]
    for key, value in chosen(inputs):
        content = deepcopy(sound)
        if key != "sound":
            change(content, key.removesuffix(".LIST"), [value] if key.endswith(".LIST") else value)
        (tmp_path / "params.yaml").write_text(yaml.dump(content, Dumper=yaml.CSafeDumper))
        tried((key, value), commands)
    tried.done()
