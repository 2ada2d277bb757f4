"""Index masks: what is refused, what a palette is, and that files keep numbers and colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data.index_masks import ids_of, palette_of, pascal_palette, read_mask, write_mask, write_masks
from bench.errors import UserError
from tests.data.video_files import mask, save_mask


def test_the_palette_is_that_of_pascal() -> None:
    colours = np.reshape(pascal_palette(), (256, 3)).tolist()
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[8] == [64, 0, 0]
    assert colours[15] == [192, 128, 128], "the 15th class, persons"
    assert colours[255] == [224, 224, 192], "void"
    assert len({tuple(colour) for colour in colours}) == 256


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=12, max_size=12))
def test_numbers_and_palette_survive_a_file(tmp_path_factory: pytest.TempPathFactory, values: list[int]) -> None:
    path = tmp_path_factory.mktemp("masks") / "a.png"
    numbers = np.array(values, np.uint8).reshape(3, 4)
    own = np.random.default_rng(0).integers(0, 256, 768).tolist()
    write_mask(numbers, path, own)
    assert np.array_equal(read_mask(path), numbers)
    assert palette_of(path) == own
    assert ids_of(numbers) == sorted({value for value in values if value not in (0, 255)})


def test_a_short_palette_is_kept_and_filled_up(tmp_path: Path) -> None:
    save_mask(tmp_path / "four.png", mask(1, 3), [9, 8, 7, 1, 2, 3, 4, 5, 6, 250, 0, 0])
    short = palette_of(tmp_path / "four.png")
    assert short is not None
    write_mask(mask(1, 3), tmp_path / "again.png", short)
    again = palette_of(tmp_path / "again.png")
    assert again is not None
    assert again[:12] == [9, 8, 7, 1, 2, 3, 4, 5, 6, 250, 0, 0]
    assert len(again) == 768


def test_masks_in_colours_are_refused(tmp_path: Path) -> None:
    save_mask(tmp_path / "index.png", mask(1, 2))
    for mode in ("RGB", "RGBA", "LA"):
        path = tmp_path / f"{mode}.png"
        Image.open(tmp_path / "index.png").convert("RGBA").convert(mode).save(path)
        with pytest.raises(
            UserError, match=rf"{mode}.png has colours \(mode {mode}\) .*: save it as a PNG with a palette"
        ):
            read_mask(path)


def test_soft_edges_are_refused_and_can_be_thresholded(tmp_path: Path) -> None:
    path = tmp_path / "soft.png"
    hard = Image.fromarray(mask(255))
    hard.resize((20, 15), Image.Resampling.BILINEAR).save(path)
    with pytest.raises(UserError, match=r"soft.png has soft edges \(greys such as \d+\), .*: threshold it"):
        read_mask(path)
    assert ids_of(read_mask(path, threshold=128)) == [1]
    assert set(np.unique(read_mask(path, threshold=128))) == {0, 1}


def test_black_and_white_is_an_object_only_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "bw.png"
    Image.fromarray(mask(255)).save(path)
    with pytest.raises(UserError, match=r"bw.png is black and white, which leaves open what object it is"):
        read_mask(path)
    assert np.array_equal(read_mask(path, black_and_white=True), mask(1))
    Image.fromarray(mask()).save(path)
    assert not read_mask(path).any(), "an empty mask is one without objects"


def test_grey_files_of_object_numbers_are_read(tmp_path: Path) -> None:
    numbers = mask(1, 2)
    numbers[-1] = 255
    Image.fromarray(numbers).save(tmp_path / "grey.png")
    assert np.array_equal(read_mask(tmp_path / "grey.png"), numbers)


def test_numbers_beyond_254_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.png"
    Image.fromarray(np.full((3, 4), 300, np.uint16)).save(path)
    with pytest.raises(UserError, match=r"many.png numbers an object 300, but 254 is the highest"):
        read_mask(path)
    Image.fromarray(np.full((3, 4), 7, np.uint16)).save(path)
    assert ids_of(read_mask(path)) == [7]
    with pytest.raises(UserError, match="object number 255 cannot stand in an index mask"):
        write_masks(tmp_path / "out", mask(1)[None], ["00000"], (255,))


def test_missing_and_truncated_masks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    for read in (read_mask, palette_of):
        with pytest.raises(UserError, match=r"the mask .*cut.png is missing"):
            read(path)
    save_mask(path, np.random.default_rng(0).integers(0, 4, (60, 80)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(UserError, match=r"the mask .*cut.png cannot be decoded \(.*\); fetch it again"):
        read_mask(path)
    path.write_bytes(path.read_bytes()[:40])
    for read in (read_mask, palette_of):
        with pytest.raises(UserError, match=r"the mask .*cut.png cannot be decoded \(.*\); fetch it again"):
            read(path)


def test_predictions_are_written_whole_under_the_numbers_of_the_data_set(tmp_path: Path) -> None:
    masks = np.stack([mask(1, 2), mask(2)])
    write_masks(tmp_path / "a" / "clip", masks, ["00005", "00010"], (3, 9))
    assert ids_of(read_mask(tmp_path / "a" / "clip" / "00005.png")) == [3, 9]
    assert np.array_equal(read_mask(tmp_path / "a" / "clip" / "00010.png"), np.where(masks[1] == 2, 9, 0))
    with pytest.raises(UserError, match=r"clip is there already and is not overwritten"):
        write_masks(tmp_path / "a" / "clip", masks, ["00005", "00010"], (3, 9))
    with pytest.raises(ValueError, match="frame 00005 has object 2 of 1"):
        write_masks(tmp_path / "a" / "other", masks, ["00005", "00010"], (3,))
    with pytest.raises(ValueError, match="2 masks for 1 frames"):
        write_masks(tmp_path / "a" / "other", masks, ["00005"], (3, 9))
    assert [folder.name for folder in (tmp_path / "a").iterdir()] == ["clip"], "nothing half-written is left behind"
