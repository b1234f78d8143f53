"""Order of the test files: the longest first, so that two workers end together (`make test` keeps this order)."""

LONGEST_FIRST = ("test_pipeline", "test_bad_input", "test_launch", "test_processes", "test_howto", "test_shared_cache")


def pytest_collection_modifyitems(items):
    def place(item) -> int:
        name = item.path.stem
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)  # stable: the others stay as they are
