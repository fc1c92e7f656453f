"""Which engines take listed pairs."""

from __future__ import annotations

import pytest
from engines import Engine, engines_of

from tcm_kernels import dispatch


@pytest.fixture(params=engines_of(dispatch.PAIR_LIST_BACKENDS))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each backend that takes pairs, on each device it runs on here."""
    return request.param
