"""One split of RealEstate10K, in either layout, as novel view synthesis reads it (`bench.data.multiview.MultiViewSplit`)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import Salt, below, of_name, stream
from bench.data.images import ImagePool, fit_square
from bench.data.multiview import Views
from bench.data.re10k.chunks import Chunks
from bench.data.re10k.evaluation import EvaluationIndex, equal_to_inputs, read_evaluation_index, spread_inputs
from bench.data.re10k.index import Scene
from bench.data.re10k.tree import Tree
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.scenes.cache import Progress

SPLITS = {"train": "train", "validation": "train", "test": "test"}
"""Folder of each split. The data set has no validation split: some of its training scenes are held out."""

MIN_GAP, MAX_GAP = 25, 192
"""Fewest and most frames from the first input to the last: LVSM's."""

TRIES = 8
"""Pairs of ends that are drawn at most for a sample, see `RE10KSplit.choose`."""


@dataclass(frozen=True)
class SceneRules:
    """Which clips training leaves out, as pixelSplat does; None switches a rule off.

    LVSM has none of the three. An evaluation index is scored as it stands, whatever they say.
    """

    max_fov: float | None = 100.0
    """Widest field of view in degrees."""
    shape: tuple[int, int] | None = (360, 640)
    """Height and width of its images."""
    min_baseline: float | None = 1e-3
    """A clip whose cameras all lie closer together, in the units of the data, has no pair of views to learn from; and a pair of
    ends that do is drawn again. (pixelSplat skips it; a stream that is a function of its position cannot.)"""

    def breach(self, scene: Scene) -> str | None:
        """Why `scene` is left out, or None."""
        if self.shape is not None and scene.shape != tuple(self.shape):
            return f"not of {self.shape[0]} x {self.shape[1]} pixels"
        if self.max_fov is not None and scene.max_fov > self.max_fov:
            return f"field of view above {self.max_fov:g} degrees"
        if self.min_baseline is not None and scene.extent < self.min_baseline:
            return f"camera stands still (baseline below {self.min_baseline:g})"
        return None


class RE10KSplit:
    """A split of posed clips; see `open_re10k`. May be pickled: images and threads stay behind."""

    def __init__(
        self,
        name: str,
        source: Chunks | Tree,
        image_size: int,
        *,
        evaluation: EvaluationIndex | None = None,
        rules: SceneRules | None = None,
        validation_scenes: int = 64,
        min_gap: int = MIN_GAP,
        max_gap: int = MAX_GAP,
        clean_for: Sequence[int] = (),
        workers: int | None = None,
    ) -> None:
        """Choose the clips of `source` that belong to the split; arguments as of `open_re10k`."""
        if image_size < 1:
            raise UserError(f"image_size must be >= 1, got {image_size}")
        if not 1 <= min_gap <= max_gap:
            raise UserError(f"min_gap must be from 1 to max_gap ({max_gap}), got {min_gap}")
        self.excluded: Counter[str] = Counter()
        """Clips left out, by reason."""
        self._source, self._size, self._pool = source, image_size, ImagePool(workers)
        self._min_gap, self._max_gap = min_gap, max_gap
        self._evaluation, rules = evaluation, rules or SceneRules(None, None, None)
        self._min_baseline, self._too_short = rules.min_baseline, f"no more than {min_gap + 1} frames"
        if evaluation is not None:
            self._chosen, self._rows = self._evaluated(evaluation, clean_for)
        else:
            self._chosen = self._suitable(rules)
            if SPLITS[name] == "train" and self._chosen:
                self._chosen = self._held_out(name == "validation", validation_scenes)
        if not self._chosen:
            left_out = f"all left out, {self._counts()}" if self.excluded else "it has none at all"
            if evaluation is None and self.excluded:
                short = set(self.excluded) == {self._too_short}
                left_out += "; set task.min_gap lower" if short else "; set task.scene_rules: none"
            raise UserError(f"{source.folder} has no scene for the split {name}: {left_out}")
        self.notices: tuple[str, ...] = self._notices(name)
        """Lines that must stand under the table."""

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self._chosen)

    def sample_name(self, scene: int, view: int) -> str:
        """Key of the clip and number of the frame, e.g. ``00e8df74b6805da7/00042``, whatever the layout."""
        number = self._chosen[scene]
        frame = self._source.index.frames[self._source.index.starts[number] + view]
        return f"{self._source.index.scenes[number].key}/{frame['number']:05d}"

    @property
    def scene_keys(self) -> list[str]:
        """The clips' own names, which are those of the videos' passages: none may be trained on and scored."""
        return [self._source.index.scenes[number].key for number in self._chosen]

    @property
    def fingerprint(self) -> str:
        """Digest of the files' index, of the clips that were chosen, and of what the evaluation index says of them."""
        rows = [] if self._evaluation is None else self._rows.tolist()
        chosen = json.dumps([self._source.index.digest, self.scene_keys, rows])
        return hashlib.sha256(chosen.encode()).hexdigest()

    def choose(
        self, scenes: NDArray[np.int64], draws: NDArray[np.uint64], input_views: int, target_views: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """LVSM's choice: a gap of min_gap .. min(frames - 1, max_gap), a start, and what lies between.

        The ends are the first two inputs, left then right. All other views are drawn without replacement strictly between
        them: further inputs too, as LVSM's list of views continues, so that two inputs stay what they are when more join.
        Targets are taken from the other end of the same shuffle and do not depend on the number of inputs. One input is the
        left end.

        Ends whose cameras are nearer to each other than the rules' `min_baseline` would be the unit of length of the frame
        that poses are given in. They are drawn again from further hashes of the draw; after `TRIES` in all the pair that is
        farthest apart is taken.

        Returns:
            [B, Vi] and [B, Vt] int64, all different within a sample.

        Raises:
            UserError: the smallest gap has no room for so many views.
        """
        inner = max(0, input_views - 2)
        if inner + target_views > self._min_gap - 1:
            raise UserError(
                f"task.target_views: {target_views} targets and {inner} further inputs do not fit the "
                f"{self._min_gap - 1} frames between two inputs {self._min_gap} apart; ask for fewer or raise task.min_gap"
            )
        start, gap = self._ends(scenes, draws)
        # Frames strictly between are 1 .. gap - 1 from the start: one hash each, the others sort behind them.
        order = stream(draws, salt=Salt.CLIP_BETWEEN, length=self._max_gap - 1) >> np.uint64(1)
        order[np.arange(self._max_gap - 1) >= gap[:, None] - 1] = np.iinfo(np.uint64).max
        between = start[:, None] + 1 + np.argsort(order, axis=1, kind="stable")
        inputs = np.concatenate([start[:, None], (start + gap)[:, None], between[:, :inner]], axis=1)[:, :input_views]
        last = gap[:, None] - 2 - np.arange(target_views)
        return inputs, np.take_along_axis(between, last, axis=1)

    def choose_evaluation(
        self, scenes: NDArray[np.int64], input_views: int, target_views: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Contexts and targets of the evaluation index; without one, a choice as in training that belongs to the clip.

        Inputs are spread evenly from context to context, and targets may be among them (see `clean_for`).

        Returns:
            [B, Vi] and [B, T] int64; T is `target_views`, or less where the index has fewer.
        """
        if self._evaluation is None:
            draws = np.array([of_name(self._scene(number).key) for number in scenes], np.uint64)
            return self.choose(scenes, draws, input_views, target_views)
        # An index asks for clips whose frames from context to context are all there: numbers and views differ by an offset.
        context, targets, shift = np.split(self._rows[scenes], [2, -1], axis=1)
        return spread_inputs(context, input_views) - shift, targets[:, :target_views] - shift

    def load(self, scenes: NDArray[np.int64], views: NDArray[np.int64]) -> Views:
        """Views [B, V] of scenes [B]: decoded in threads, resized and cropped (`bench.data.images.fit_square`).

        Raises:
            UserError: an image that is missing or damaged; names it.
            IndexError: no such view.
        """
        index, size = self._source.index, self._size
        views = np.asarray(views)
        counts = np.array([self._scene(number).frames for number in scenes])
        if not ((views >= 0) & (views < counts[:, None])).all():
            raise IndexError(f"views must be from 0 to {counts.min() - 1}, got {views.min()} to {views.max()}")
        numbers = np.array([self._chosen[scene] for scene in scenes])
        frames = index.frames[index.starts[numbers][:, None] + views]
        rgb = np.empty((*views.shape, size, size, 3), np.uint8)
        intrinsics = np.empty((*views.shape, 4), np.float32)

        def read(place: tuple[int, int]) -> None:
            frame = frames[place]
            image = self._source.image(index.scenes[numbers[place[0]]], frame)
            height, width = image.shape[:2]
            scale = np.array([width, height, width, height]) if self._source.normalised else 1
            rgb[place], intrinsics[place] = fit_square(image, frame["intrinsics"].astype(np.float64) * scale, size)

        self._pool.map(read, list(np.ndindex(views.shape)))
        w2c = np.zeros((*views.shape, 4, 4))
        w2c[..., :3, :], w2c[..., 3, 3] = frames["w2c"], 1
        return Views(rgb, np.linalg.inv(w2c).astype(np.float32), intrinsics)

    def _ends(
        self, scenes: NDArray[np.int64], draws: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First frame and gap of each sample, both [B]."""
        counts = np.array([self._scene(number).frames for number in scenes], np.int64)[:, None]
        hashes = stream(draws, Salt.CLIP_ENDS, length=2 * TRIES)
        gap = self._min_gap + below(hashes[:, ::2], np.minimum(counts - 1, self._max_gap) - self._min_gap + 1)
        start = below(hashes[:, 1::2], counts - gap)
        tried = np.zeros(len(counts), np.int64)
        if self._min_baseline is not None:
            near = np.flatnonzero(self._baselines(scenes, start[:, :1], gap[:, :1])[:, 0] < self._min_baseline)
            wide = self._baselines(scenes[near], start[near], gap[near])
            enough = wide >= self._min_baseline
            tried[near] = np.where(enough.any(axis=1), enough.argmax(axis=1), wide.argmax(axis=1))
        sample = np.arange(len(counts))
        return start[sample, tried], gap[sample, tried]

    def _baselines(
        self, scenes: NDArray[np.int64], start: NDArray[np.int64], gap: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """How far apart, in the units of the data, the cameras of frames `start` and `start + gap` [B, K] are."""
        index = self._source.index
        first = index.starts[[self._chosen[scene] for scene in scenes]][:, None] + start
        w2c = index.frames["w2c"][np.stack([first, first + gap])].astype(np.float64)
        centres = np.einsum("...ji,...j->...i", w2c[..., :3], w2c[..., 3])
        return np.linalg.norm(centres[0] - centres[1], axis=-1)

    def _scene(self, number: int) -> Scene:
        return self._source.index.scenes[self._chosen[number]]

    def _suitable(self, rules: SceneRules) -> list[int]:
        """Clips that are long enough and break no rule."""
        chosen = []
        for number, scene in enumerate(self._source.index.scenes):
            # LVSM draws another clip for one of min_gap + 1 frames too, which has room for just one choice.
            short = self._too_short if scene.frames - 1 <= self._min_gap else None
            if reason := rules.breach(scene) or short:
                self.excluded[reason] += 1
            else:
                chosen.append(number)
        return chosen

    def _held_out(self, held_out: bool, validation_scenes: int) -> list[int]:
        """Of the chosen clips, those that are held out for validation, or the others."""
        if not 0 <= validation_scenes < len(self._chosen):
            raise UserError(
                f"validation_scenes must leave some of the {len(self._chosen)} training scenes, got {validation_scenes}"
                + (f" (left out: {self._counts()})" if self.excluded else "")
            )
        # Those whose names hash lowest: that does not depend on which other scenes there are, nor on their order.
        scenes = self._source.index.scenes
        by_hash = sorted(self._chosen, key=lambda number: int(of_name(scenes[number].key)))
        chosen = set(by_hash[:validation_scenes])
        return [number for number in self._chosen if (number in chosen) == held_out]

    def _evaluated(self, evaluation: EvaluationIndex, clean_for: Sequence[int]) -> tuple[list[int], NDArray[np.int64]]:
        """Clips that `evaluation` scores, in its order, and for each its contexts, targets, and frame number - view."""
        index = self._source.index
        places = {scene.key: number for number, scene in enumerate(index.scenes)}
        chosen, rows = [], []
        for key, context in evaluation.context.items():
            if (place := places.get(key)) is None:
                self.excluded["not in the data"] += 1
                continue
            wanted = (*context, *evaluation.target[key])
            numbers = index.frames["number"][index.starts[place] : index.starts[place + 1]]
            first, last = np.searchsorted(numbers, (min(wanted), max(wanted)))
            if last == len(numbers) or last - first != max(wanted) - min(wanted) or numbers[last] != max(wanted):
                self.excluded["frames missing in the data"] += 1
                continue
            chosen.append(place)
            rows.append([*wanted, int(numbers[first]) - int(first)])
        kept, table = np.arange(len(rows)), np.array(rows, np.int64)
        for count in clean_for if rows else ():
            clean = np.flatnonzero(~equal_to_inputs(spread_inputs(table[:, :2], count), table[:, 2:-1]).any(axis=1))
            before, kept = len(kept), np.intersect1d(kept, clean)
            if lost := before - len(kept):
                self.excluded[f"with a target among {count} inputs"] += lost
        return [chosen[row] for row in kept], table[kept]

    def _counts(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self.excluded.items())

    def _notices(self, name: str) -> tuple[str, ...]:
        left_out = [self._counts()] if self.excluded else []
        hurt = [scene.damaged for number in self._chosen if (scene := self._source.index.scenes[number]).damaged]
        if hurt:
            left_out.append(f"{sum(hurt)} damaged image{'s' * (sum(hurt) > 1)} of {len(hurt)} of these scenes")
        scenes = f"{len(self)} scenes"
        if self._evaluation is not None:
            scenes += f" of {self._evaluation.path.name} ({self._evaluation.copy} copy)"
            left_out.insert(0, f"{self._evaluation.nulls} null")
        return (f"RealEstate10K {name}: {scenes}; left out: {', '.join(left_out)}",) if left_out else ()


def open_re10k(
    root: Path,
    split: str,
    *,
    image_size: int,
    cache_dir: Path,
    evaluation_index: Path | None = None,
    rules: SceneRules | None = None,
    validation_scenes: int = 64,
    min_gap: int = MIN_GAP,
    max_gap: int = MAX_GAP,
    clean_for: Sequence[int] = (),
    workers: int | None = None,
    report: Progress | None = None,
) -> RE10KSplit:
    """Open a split; an index of its files is made in the cache on the first call.

    Args:
        root: holds the folders ``train`` and ``test``, each with chunks (``index.json``; taken if both are there) or with a
            converted tree (``full_list.txt``).
        split: ``train``, ``validation`` (training scenes that are held out) or ``test``.
        image_size: of the views, in pixels.
        cache_dir: where the index is kept.
        evaluation_index: ``evaluation_index_re10k.json``; for ``test`` only.
        rules: which clips are left out; by default those that pixelSplat leaves out. Unused with an evaluation index.
        validation_scenes: how many training scenes are held out.
        min_gap: fewest frames from the first input to the last; no clip of min_gap + 1 frames or fewer is used.
        max_gap: most frames from the first input to the last.
        clean_for: numbers of input views; scenes of the evaluation index where a target is an input frame at one of them
            are left out. By default none are, as in the protocol.
        workers: threads; by default one for each usable core.
        report: told how far the index is.

    Raises:
        UserError: data that are missing, incomplete or damaged, or no scene to use; says which.
    """
    if split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if evaluation_index is not None and split != "test":
        raise UserError(f"evaluation_index belongs to the split test, got split {split}")
    evaluation = None if evaluation_index is None else read_evaluation_index(Path(evaluation_index))
    folder = Path(root) / SPLITS[split]
    layouts: Sequence[tuple[str, type[Chunks] | type[Tree]]] = (("index.json", Chunks), ("full_list.txt", Tree))
    layout = next((kind for file, kind in layouts if (folder / file).is_file()), None)
    if layout is None and (folder / "metadata").is_dir():
        raise UserError(
            f"{folder}: the conversion is unfinished (no full_list.txt), run `isochron convert-re10k` again"
        )
    if layout is None:
        raise UserError(
            f"{folder} holds neither index.json (chunks) nor full_list.txt (converted): name the folder above"
        )
    return RE10KSplit(
        split,
        layout(folder, Path(cache_dir), workers=workers, report=report),
        image_size,
        evaluation=evaluation,
        rules=rules or SceneRules(),
        validation_scenes=validation_scenes,
        min_gap=min_gap,
        max_gap=max_gap,
        clean_for=clean_for,
        workers=workers,
    )
