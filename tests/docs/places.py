"""What the paths in the pages' commands stand for, made small: data in the published layouts, results, a file of one's own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.got10k import write_got10k
from bench.report.share import bundle
from tests.data.hydrology_files import days, write_camels_us, write_netcdf
from tests.data.labelled_files import save_folder, save_set
from tests.data.re10k_data import clip, write_evaluation, write_split
from tests.data.test_image_folder import write as write_picture
from tests.data.video_files import Made, mask, picture, save_davis, save_frame, save_lasot, save_mask, save_youtube_vos
from tests.docs.pages import ROOT
from tests.metrics.test_gs_lrm import network, save

YEARS = 4 * 366
PUBLISHED = Path("results/cpu-2core")


def images(root: Path) -> None:
    for number in range(60):
        write_picture(root / f"class-{number % 3}" / f"{number}.png", (80 * (number % 3), 4 * number, 0))


def imagenet(root: Path) -> None:
    for split, count in (("train", 80), ("val", 4)):
        for number in range(3 * count):
            write_picture(root / split / f"n{number % 3}" / f"{number}.JPEG", (80 * (number % 3), 4 * number, 0))


def re10k(root: Path) -> None:
    write_split(root / "train", [clip(f"train{number}", 30, (360, 640), number) for number in range(6)])
    write_split(root / "test", [clip("first", 30, (360, 640), 7)])


def evaluation_index(path: Path) -> None:
    write_evaluation(path, first=([0, 29], [5, 10]))


def vgg(path: Path) -> None:
    save(path, network(), "weights")


def davis(root: Path) -> None:
    lists = {"train": [f"train{number}" for number in range(14)], "val": ["val0", "val1"]}
    save_davis(root, lists, frames=6)
    shutil.copytree(root / "ImageSets" / "2017", root / "ImageSets" / "2016")


def saliency(root: Path) -> None:
    for number in range(40):
        save_frame(root / "images" / f"{number}.jpg", picture(number))
        save_mask(root / "masks" / f"{number}.png", mask(2, 7))


def got10k(root: Path) -> None:
    for part in ("train", "val"):
        write_got10k(Made(count=12 if part == "train" else 2), root / part, quality=None)


def lasot(root: Path) -> None:
    save_lasot(root, [f"airplane-{number}" for number in range(1, 21)])


def camels_us(root: Path) -> None:
    write_camels_us(root, tuple(f"0102250{number}" for number in range(6)), YEARS)


def catchments(root: Path) -> None:
    for number in range(6):
        wave = np.sin(np.arange(YEARS) / 9 + number)
        series = {"flow": np.exp(wave), "rain": 2 + wave}
        write_netcdf(root / "time_series" / f"{number}.nc", days("1970-10-01", YEARS), series, "date", units="mm/d")


def labelled(root: Path) -> None:
    save_set(root, "coco-stuff", "train", 30)
    save_set(root, "ade20k-150")


def streets(root: Path) -> None:
    save_folder(root, 60)


def block(page: str, language: str) -> str:
    """The first code block of a language on a page."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{page} has no block of {language}"
    return found[1]


def own_architecture(path: Path) -> None:
    path.write_text(block("add-an-architecture.md", "python"))


def own_comparison(path: Path) -> None:
    path.write_text(block("add-an-architecture.md", "yaml"))
    own_architecture(path.with_name("pooled.py"))


def published(name: str) -> Callable[[Path], None]:
    """A copy of a published result."""
    return lambda root: shutil.copytree(ROOT / PUBLISHED / name, root) and None


def packed(path: Path) -> None:
    bundle([ROOT / PUBLISHED / "nvs-tiny"], path)


DATA: dict[str, Callable[[Path], None]] = {
    "PATH/TO/IMAGES": images,
    "PATH/TO/imagenet": imagenet,
    "PATH/TO/re10k": re10k,
    "PATH/TO/evaluation_index_re10k.json": evaluation_index,
    "PATH/TO/vgg19.mat": vgg,
    "PATH/TO/DAVIS": davis,
    "PATH/TO/GOT-10k": got10k,
    "PATH/TO/CAMELS_US": camels_us,
    "PATH": catchments,
    "DAVIS": davis,
    "YouTube-VOS": lambda root: save_youtube_vos(root) and None,
    "DUTS": saliency,
    "GOT-10k": got10k,
    "LaSOT": lasot,
    "datasets": labelled,
    "STREETS": streets,
}
"""Data: made once, and only read."""

FILES: dict[str, Callable[[Path], None]] = {
    "mine.yaml": own_comparison,
    "pooled:Pooled": lambda path: own_architecture(path.with_name("pooled.py")),
    "results": lambda root: None,
    "results/cpu-2core/nvs-tiny": published("nvs-tiny"),
    "results/cpu-2core/efficiency-nvs-tiny": published("efficiency-nvs-tiny"),
    "runs/mine": published("nvs-blocks-tiny"),
    "runs/nvs-tiny-20260801-101500": published("nvs-tiny"),
    "runs/nvs-tiny-*": lambda path: published("nvs-tiny")(path.with_name("nvs-tiny-20260801-101500")),
    "runs/...": published("efficiency-nvs-tiny"),
    "old.tar.gz": packed,
    "new.tar.gz": packed,
    "nvs.tar.gz": packed,
    "FOLDER": published("nvs-tiny"),
    "A": published("nvs-tiny"),
    "B": published("nvs-tiny"),
    "A/points/CURVE/VALUE": published("nvs-tiny"),
    "B/points/CURVE/VALUE": published("nvs-tiny"),
    "FILE": lambda path: shutil.copy(ROOT / "tests/fixtures/parity/mae.safetensors", path) and None,
}
"""Results and files of one's own: another copy for every command."""
