import pytest

from bench.store.read import Comparison, open_comparison
from tests.report.fake_store import FakeStore


@pytest.fixture(scope="session")
def full(tmp_path_factory) -> Comparison:
    """Two arms, two policies, three seeds, everything finished."""
    return open_comparison(FakeStore().write(tmp_path_factory.mktemp("full") / "store"))


@pytest.fixture(scope="session")
def trouble(tmp_path_factory) -> Comparison:
    """One diverged run, one out of memory, one flagged."""
    store = FakeStore(
        statuses={("efficient-lvsm.fill", 1): "diverged", ("lvsm-decoder-only.fill", 2): "out-of-memory"},
        flags={("efficient-lvsm.knee", 2): ["sentinel drift 7.1 %"]},
    )
    return open_comparison(store.write(tmp_path_factory.mktemp("trouble") / "store"))


@pytest.fixture(scope="session")
def single(tmp_path_factory) -> Comparison:
    """One seed."""
    return open_comparison(FakeStore(seeds=(4,)).write(tmp_path_factory.mktemp("single") / "store"))


@pytest.fixture
def make_store(tmp_path):
    """Write a store of one's own and open it."""

    def make(**options) -> Comparison:
        return open_comparison(FakeStore(**options).write(tmp_path / "store"))

    return make
