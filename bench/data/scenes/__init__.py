"""Embedded multi-view data: scenes of solids on a floor, rendered with Embree into a cache on first use.

`prepare` renders, `open_split` reads; `SceneSpec` says what. `docs/data.md` describes the scenes.
"""

from bench.data.scenes.cache import SceneSplit, open_split, prepare, split_folder
from bench.data.scenes.spec import SPLITS, SceneSpec
from bench.data.shards import ShardedArray

__all__ = [
    "SPLITS",
    "SceneSpec",
    "SceneSplit",
    "ShardedArray",
    "open_split",
    "prepare",
    "split_folder",
]
