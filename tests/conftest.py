"""Order of the test files: the longest first, so that the workers end together (`make test` keeps this order); and what
one test's libraries do to logging, or its `--debug` to the environment, does not reach the next. Where hostile models
and records are not the matter, a test's own process does at once what is elsewhere done in a bounded child."""

import faulthandler
import gc
import logging
import os
from collections.abc import Callable
from typing import Any

import pytest

from kdleak.core import limits
from kdleak.data import encoding
from kdleak.models import adapter_check, checkpoints

# A child that runs out of its memory, as tests mean it to, is aborted: pytest would print where, as of a crash.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=faulthandler.disable)

gc.set_threshold(100_000, 20, 20)

LONGEST_FIRST = (
    "test_pipeline", "test_howto", "test_bad_input", "test_tracking", "test_engine", "test_audit_stage",
    "test_processes", "test_private_trace", "test_launch", "test_shared_cache",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    def place(item) -> int:
        name = item.path.stem
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)  # stable: the others stay as they are


#: Rooms whose tests meet tokenizers and templates of ours alone; of their files, those that do not.
TRUSTED_ROOMS = (
    "attacks", "auditing", "certify", "data", "defend", "distill", "inference", "memorization", "pipeline", "report",
    "shadow", "tracking", "training",
)  # fmt: skip
HOSTILE_FILES = ("test_hostile_records", "test_standalone_inputs", "test_chat_records")
trusted = False


def within_limits(work: Callable[[], Any], what: str, characters: int = 0) -> Any:
    """Forks of a process that holds torch, and what tests have made, were a third of the time of all tests."""
    return work() if trusted else limits.within_limits(work, what, characters)


for module in (adapter_check, checkpoints, encoding):
    assert module.within_limits is limits.within_limits
    module.within_limits = within_limits


def pytest_runtest_setup(item):
    global trusted
    trusted = item.path.parent.name in TRUSTED_ROOMS and item.path.stem not in HOSTILE_FILES


#: Of the root logger, before any test has run.
LEVEL, THRESHOLD = logging.root.level, logging.root.manager.disable


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """Libraries of the pipeline configure logging anew, where they run in this process, and silence what there is."""
    logging.root.setLevel(LEVEL)
    logging.disable(THRESHOLD)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("kdleak") and isinstance(logger, logging.Logger):
            logger.disabled, logger.propagate = False, True
            logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def debug_ends_with_its_test():
    """A command that runs in this process leaves `--debug` to the processes that it starts, in the environment."""
    yield
    for name in ("KDLEAK_DEBUG", "KDLEAK_SHOW_TEXT"):
        os.environ.pop(name, None)
