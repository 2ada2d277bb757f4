"""Prints the ratios that interleaved measurements found, after the table of times."""

import pytest

RATIOS = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[RATIOS] = []


@pytest.fixture
def record(request):
    """Function that keeps one line for the summary."""
    return request.config.stash[RATIOS].append


def pytest_terminal_summary(terminalreporter, config):
    if lines := config.stash[RATIOS]:
        terminalreporter.section("ratios of interleaved times: median [95 % interval]")
        for line in lines:
            terminalreporter.write_line(line)
