"""RealEstate10K from chunks: samples of 8 views, 360 x 640 JPEG -> 256 px. Reported, not a gate: the disk cache is warm.

Run by ``make bench-micro``. What a GPU asks for stands in ``docs/real-data.md``.
"""

import time

import numpy as np
import pytest

from bench.data.re10k import open_re10k
from tests.data.re10k_data import clip, write_split
from tests.micro.paired import interleaved_ratio

SAMPLES, VIEWS, ROUNDS = 4, 8, 9


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("re10k")
    write_split(root / "train", [clip("a", 40, (360, 640)), clip("b", 40, (360, 640), scene=5)])
    return root


def open_train(root, workers):
    options = {"image_size": 256, "validation_scenes": 0, "cache_dir": root / "cache"}
    return open_re10k(root, "train", workers=workers, **options)


@pytest.mark.benchmark(group="re10k")
def test_index_of_a_chunk(benchmark, root):
    caches = iter(range(1000))
    options = {"image_size": 256, "validation_scenes": 0, "workers": 1}
    benchmark.pedantic(
        lambda: open_re10k(root, "train", cache_dir=root / f"cache{next(caches)}", **options), rounds=5, warmup_rounds=1
    )


@pytest.mark.benchmark(group="re10k")
def test_loading(benchmark, record, root):
    one, two = open_train(root, 1), open_train(root, 2)
    scenes = np.arange(SAMPLES) % 2
    views = np.concatenate(one.choose(scenes, np.arange(SAMPLES, dtype=np.uint64), 2, VIEWS - 2), axis=1)
    ratio = interleaved_ratio(lambda: two.load(scenes, views), lambda: one.load(scenes, views), rounds=ROUNDS)
    record(f"RealEstate10K, processor time of two threads / one: {ratio}")
    # Time of this process alone: what else the machine does is not counted.
    begin = time.process_time()
    for _ in range(ROUNDS):
        one.load(scenes, views)
    rate = ROUNDS * views.size / (time.process_time() - begin)
    record(f"RealEstate10K, 256 px: {rate:.0f} images/s a core, {rate / VIEWS:.1f} samples/s of {VIEWS} views")
    benchmark.extra_info["images_per_core_second"] = rate
    benchmark.pedantic(lambda: two.load(scenes, views), rounds=5, warmup_rounds=1)
