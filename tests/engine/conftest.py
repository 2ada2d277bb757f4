from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="module")
def small_heap() -> None:
    """Keep what is loaded out of the collections between slices: they would take most of the time of a tiny run.

    The first step is taken here because torch loads half of itself for it.
    """
    from tests.engine.fakes import make_trainer

    make_trainer().set_up()
    gc.collect()
    gc.freeze()
