from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from bench.engine.loader import Loader, host_copy
from bench.engine.stream import SampleStream
from tests.engine.fakes import FakeTask, same


def make_loader(task: FakeTask | None = None, **options: int) -> Loader:
    return Loader(task or FakeTask(size=11), SampleStream(0, 11), **({"batch": 4} | options))


def served(loader: Loader, count: int) -> Tensor:
    """The x of the next `count` batches, one after the other."""
    return torch.cat([loader.take()["x"] for _ in range(count)])


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_batches_made_ahead_are_the_same(ahead: int) -> None:
    plain, threaded = make_loader(), make_loader(ahead=ahead)
    assert torch.equal(served(plain, 9), served(threaded, 9))
    for position in (0, 80, 40):
        plain.seek(position)
        threaded.seek(position)
        assert torch.equal(served(plain, 5), served(threaded, 5))
    threaded.close()


def test_batches_are_made_ahead_in_the_background() -> None:
    threads = set()

    class Watched(FakeTask):
        def collate(self, indices, draws):
            threads.add(threading.current_thread().name)
            return super().collate(indices, draws)

    task = Watched(size=11)
    loader = make_loader(task, ahead=2)
    loader.take()
    loader.close()
    assert all(name.startswith("loader") for name in threads)
    assert 4 <= len(task.served) <= 12


def test_an_error_in_the_background_reaches_the_trainer() -> None:
    class Broken(FakeTask):
        def collate(self, indices, draws):
            raise OSError("shard-3 is damaged")

    loader = make_loader(Broken(size=11), ahead=2)
    with pytest.raises(OSError, match="shard-3"):
        loader.take()
    loader.close()


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("ahead", [0, 2])
def test_processes_together_see_what_one_would(world: int, ahead: int) -> None:
    whole = served(make_loader(batch=4 * world), 6)
    shares = [make_loader(rank=rank, world=world, ahead=ahead) for rank in range(world)]
    together = torch.cat([torch.cat([loader.take()["x"] for loader in shares]) for _ in range(6)])
    assert torch.equal(together, whole)
    for loader in shares:
        loader.close()


def digest(seed: int = 0, size: int = 11, *, steps: int = 20, seek: int = 0, **options: int) -> str | None:
    """The digest of what a loader has served after so many batches, the first of them at `seek`."""
    loader = Loader(FakeTask(size=size), SampleStream(seed, size), **({"batch": 4} | options))
    loader.seek(seek)
    for _ in range(steps):
        loader.take()
    loader.close()
    return loader.digest


def test_the_digest_names_the_samples_that_were_served() -> None:
    expected = digest()
    assert expected is not None
    assert expected == digest(batch=7), "whatever the batch,"
    assert expected == digest(rank=1, world=2), "the process,"
    assert expected == digest(ahead=2), "the thread"
    assert expected == digest(seek=40) == digest(seek=16), "or the state that the run went on from"
    assert len({expected, digest(seed=1), digest(size=12)}) == 3
    assert digest(steps=2) is None, "too short to tell"


def test_a_batch_that_nobody_asked_for_fails_for_nobody() -> None:
    class Breaking(FakeTask):
        def collate(self, indices, draws):
            if len(self.served) >= 8:
                raise OSError("shard-3 is damaged")
            return super().collate(indices, draws)

    loader = make_loader(Breaking(size=11), ahead=4)
    loader.take()
    loader.seek(0)
    loader.close()


def test_seek_is_a_position_in_the_stream() -> None:
    one, other = make_loader(batch=4), make_loader(batch=2)
    served(one, 5)
    other.seek(20)
    assert torch.equal(served(one, 1), served(other, 2))


def test_host_copies_are_apart_from_the_original_and_contiguous() -> None:
    tensors = {
        "a": torch.nn.Parameter(torch.rand(3, 4).t()),
        "b": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    copies = host_copy(tensors)
    assert same(copies, {name: tensor.detach() for name, tensor in tensors.items()})
    assert all(copy.is_contiguous() and not copy.requires_grad for copy in copies.values())
    copies["a"].zero_()
    assert tensors["a"].detach().abs().sum() > 0
