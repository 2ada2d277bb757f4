"""Embedded pictures for open-vocabulary segmentation: things whose names are composed of a texture, a colour and a shape.

`prepare` renders, `open_named` reads; `NamedSceneSpec` says what. `docs/segmentation-data.md` describes them.
"""

from bench.data.named.cache import NamedScenes, open_named, prepare, split_folder
from bench.data.named.spec import SPLITS, NamedSceneSpec

__all__ = ["SPLITS", "NamedSceneSpec", "NamedScenes", "open_named", "prepare", "split_folder"]
