"""kdleak: what a distilled student gives away of its teacher's private training data.

`kdleak.audit(student, members, nonmembers, ...)` audits a model; the parts it is made of are in the subpackages.
"""

from kdleak.api import audit
from kdleak.core.version import __version__

__all__ = ["__version__", "audit"]
