"""Order of the test files: the longest first, so that two workers end together (`make test` keeps this order); and what
one test's libraries do to logging does not reach the next."""

import logging

import pytest

LONGEST_FIRST = ("test_pipeline", "test_bad_input", "test_launch", "test_processes", "test_howto", "test_shared_cache")


def pytest_collection_modifyitems(items):
    def place(item) -> int:
        name = item.path.stem
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)  # stable: the others stay as they are


@pytest.fixture(autouse=True)
def loggers_stay_enabled():
    """MLflow, where it makes a store in this process, configures logging anew and disables every logger there is."""
    yield
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("kdleak") and isinstance(logger, logging.Logger):
            logger.disabled = False
