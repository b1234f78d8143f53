"""Token statistics, attacks and the statistics of a leak.

The package can be called: `kdleak.audit(student, members, nonmembers, ...)` is `kdleak.standalone.audit`, the audit of
a model of one's own.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Signature

    from kdleak.standalone.run import AuditResult


class _CallableModule(ModuleType):
    """A module that is its own function."""

    def __call__(self, *args: Any, **kwargs: Any) -> AuditResult:
        """Audit a model: see `kdleak.standalone.audit`."""
        from kdleak.standalone import audit

        return audit(*args, **kwargs)

    @property
    def __signature__(self) -> Signature:
        """What a notebook shows of the call."""
        from inspect import signature

        from kdleak.standalone import audit

        return signature(audit)


sys.modules[__name__].__class__ = _CallableModule
