"""Membership attacks: pure functions of what models gave. A higher score means member.

A file of this folder is a family of attacks; importing it registers them, and every file is imported here, so that
adding an attack is adding a file. None may import torch at its head: the files that make forward passes (`PASSES`) are
imported by whoever makes them.
"""

from importlib import import_module
from pkgutil import iter_modules

from kdleak.attacks.registry import ATTACKS, Attack, AttackInput, Needs, attack_scores, is_auditors

#: The order in which tables show the families; others follow by name.
FAMILIES = ("likelihood", "reference", "mope", "as_published", "rmia", "recent", "teacher_aware")
#: Files without an attack.
PASSES = ("block_perturbation", "perturbation", "variants")

for _name in (*FAMILIES, *sorted({module.name for module in iter_modules(__path__)} - {*PASSES})):
    import_module(f"{__name__}.{_name}")

__all__ = ["ATTACKS", "Attack", "AttackInput", "Needs", "attack_scores", "is_auditors"]
