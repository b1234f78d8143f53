"""Membership attacks on token statistics: `ATTACKS` is the registry, one function an attack.

Adding an attack is one decorated function in one of these modules (or a new one, imported here) and its test.
"""

from kdleak.audit.attacks import paper, published, stronger, teacher_aware  # noqa: F401 - they register attacks
from kdleak.audit.attacks.registry import ATTACKS, Attack, AttackInput, Needs, attack_scores

__all__ = ["ATTACKS", "Attack", "AttackInput", "Needs", "attack_scores"]
