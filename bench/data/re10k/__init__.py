"""RealEstate10K, as chunks or as a converted tree: `open_re10k` reads, `convert` turns one into the other."""

from bench.data.re10k.convert import Conversion, convert
from bench.data.re10k.evaluation import read_evaluation_index
from bench.data.re10k.split import RE10KSplit, SceneRules, open_re10k

__all__ = [
    "Conversion",
    "RE10KSplit",
    "SceneRules",
    "convert",
    "open_re10k",
    "read_evaluation_index",
]
