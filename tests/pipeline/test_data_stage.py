"""The data stage refuses settings that leave nothing."""

import pytest

from kdleak.core.errors import KdleakError
from kdleak.pipeline.data import prepare
from tests.support.distillation import params


def test_filters_that_no_row_passes_are_named():
    settings = params(**{"data.min_response_chars": 10**6})
    with pytest.raises(KdleakError, match="data: none of the 4200 rows passes the length filters; widen data"):
        prepare(settings.data, 0)
