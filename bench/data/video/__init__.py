"""Video: clips with masks or boxes, generated or read from the published layouts.

`clips` says what every source gives; `prepare` generates the embedded clips, `open_masked` and `open_boxed` read them;
`VideoSpec` says what. `docs/video-data.md` describes them.
"""

from bench.data.video.clips import VOID, BoxedVideos, Boxes, ClipInfo, MaskedVideos
from bench.data.video.generate import GeneratedVideos, open_boxed, open_masked, prepare, split_folder
from bench.data.video.spec import FACTORS, SPLITS, VideoSpec

__all__ = [
    "FACTORS",
    "SPLITS",
    "VOID",
    "BoxedVideos",
    "Boxes",
    "ClipInfo",
    "GeneratedVideos",
    "MaskedVideos",
    "VideoSpec",
    "open_boxed",
    "open_masked",
    "prepare",
    "split_folder",
]
