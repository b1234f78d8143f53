"""Order of the test files: the longest first, so that two workers end together (`make test` keeps this order); and what
one test's libraries do to logging, or its `--debug` to the environment, does not reach the next."""

import faulthandler
import gc
import logging
import os

import pytest

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
