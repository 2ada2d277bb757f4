from __future__ import annotations

import multiprocessing

import pytest
import torch

from bench.engine.launch import PRELOAD
from bench.engine.world import World
from tests.engine.fakes import CPU, run_rank, same, train_together


def test_alone() -> None:
    world = World()
    assert (world.rank, world.size) == (0, 1)
    assert world.agree([True, 0.1, 2], CPU) == [1.0, 0.1, 2.0]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """What two processes make of a run under a budget in steps and of one in seconds, the second's clock ten times as fast."""
    folder = tmp_path_factory.mktemp("two")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    processes = [
        context.Process(target=run_rank, args=(rank, 2, str(folder / "meet"), str(folder))) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0, 0], "the ranks wait for each other where they disagree"
    ranks = [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
    return {kind: [rank[kind] for rank in ranks] for kind in ranks[0]}


@pytest.mark.slow
def test_all_ranks_stop_where_the_clock_of_rank_0_says(together) -> None:
    first, second = together["seconds"]
    assert first["steps"] == second["steps"]
    assert first["p"] == second["p"]
    assert first["steps"][0] == 4, "the user's stop reached rank 0 after its fourth step"
    alone = train_together(0, 3.0, "seconds", 4)
    assert alone["steps"] == first["steps"]
    assert alone["p"] == first["p"]


@pytest.mark.parametrize("kind", ["seconds", "steps"])
def test_weights_are_equal_on_all_ranks(together, kind: str) -> None:
    first, second = together[kind]
    assert first["weights"].keys() == second["weights"].keys()
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name


def test_two_processes_train_like_one_with_twice_the_batch(together) -> None:
    first, second = together["steps"]
    alone = train_together(0, 20, "steps", 8)
    assert first["samples"] == second["samples"] == alone["samples"] == 160
    assert first["digest"] == alone["digest"]
    assert first["steps"] == alone["steps"]
    for name, weight in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], weight)
    for step in range(20):
        share = [rank["served"][4 * step : 4 * step + 4] for rank in (first, second)]
        assert share[0] + share[1] == alone["served"][8 * step : 8 * step + 8]


def test_dropout_differs_between_ranks_but_the_weights_do_not(together) -> None:
    first, second = together["dropout"]
    assert torch.equal(first["weight"], second["weight"])
    assert not torch.equal(first["random"], second["random"])


def test_weights_that_are_declared_unused_are_not_waited_for(together) -> None:
    first, second = together["idle"]
    assert first["steps"] == 5
    assert all(first["needs"].values()), "they count as trained all the same"
    assert same(first["weights"], second["weights"])
