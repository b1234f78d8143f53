"""Membership attacks: pure functions of what models gave. A higher score means member."""

from kdleak.attacks import as_published, likelihood, mope, recent, teacher_aware  # noqa: F401 - importing one registers its attacks
from kdleak.attacks.registry import ATTACKS, Attack, AttackInput, Needs, attack_scores

__all__ = ["ATTACKS", "Attack", "AttackInput", "Needs", "attack_scores"]
