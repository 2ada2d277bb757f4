"""What is in a clip and how it moves: drawn until a clip keeps the rules of its factors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import Salt, stream
from bench.data.video.layers import HARMONICS, Bar, Body, Ground, Layer
from bench.data.video.motion import Track, Uniforms, bounce, cosine, sine
from bench.data.video.spec import VideoSpec
from bench.data.video.textures import Palette, Texture, lookup, palette
from bench.errors import UserError

TARGET_AREA = 0.08
"""Least share of the picture that a target shows in the frame in which its mask is given, for up to two targets."""
HIDDEN, SHOWN = 0.1, 0.5
"""Shares of a target that are seen when it is hidden, and when it has come back."""
SEEN = 0.4
"""Least share of a target that is seen in any frame of a clip without the bar."""
ATTEMPTS = 1000
SPEED = (0.075, 0.095)
"""Sides of the picture that a target moves in a frame."""
PAN = (0.015, 0.04)
"""Sides of the picture that the background moves in a frame."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The layers of a clip."""

    ground: Ground
    bodies: tuple[Body, ...]
    """Targets first, in the order of their numbers, then distractors."""
    order: tuple[int, ...]
    """Positions in `bodies`, from the farthest to the nearest."""
    bar: Bar | None
    """In front of all bodies."""
    start: tuple[int, ...]
    """Frame in which each target's mask is given."""
    factors: tuple[str, ...]

    def layers(self) -> list[Layer]:
        """All things that lie on the ground, the farthest first."""
        return [*(self.bodies[number] for number in self.order), *([self.bar] if self.bar else [])]


@dataclass(frozen=True, eq=False)
class Cover:
    """Which pixel centres of a picture of P pixels are whose."""

    visible: NDArray[np.uint8]
    """[F, P]: 0 background or no target, 1.. the target that is nearest there."""
    amodal: NDArray[np.bool_]
    """[O, F, P]: all of each target, hidden or not."""

    def areas(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pixels of each target, seen and all, each [O, F]."""
        seen = np.stack([(self.visible == number + 1).sum(axis=1) for number in range(len(self.amodal))])
        return seen, self.amodal.sum(axis=2)


def pixel_centres(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates x and y of the centres of all pixels, row after row, in sides of the picture, each [size * size]."""
    place = ((np.arange(size) + 0.5) / size).astype(np.float32)
    y, x = np.meshgrid(place, place, indexing="ij")
    return x.ravel(), y.ravel()


def measure(scene: Scene, targets: int, size: int) -> Cover:
    """Who owns the pixels' centres."""
    x, y = pixel_centres(size)
    frames = len(scene.ground.x)
    visible = np.zeros((frames, len(x)), np.uint8)
    amodal = np.zeros((targets, frames, len(x)), bool)
    for number in scene.order:
        inside = scene.bodies[number].cover(x, y).where
        visible.ravel()[inside] = number + 1 if number < targets else 0
        if number < targets:
            amodal[number].ravel()[inside] = True
    if scene.bar:
        visible.ravel()[scene.bar.cover(x, y).where] = 0
    return Cover(visible, amodal)


def sample_scene(spec: VideoSpec, split: str, clip: int) -> tuple[Scene, Cover]:
    """The scene of a clip and what its pixels' centres show.

    Raises:
        UserError: no try of many kept the rules; `spec` asks for too much in one picture.
    """
    factors = spec.clip_factors(split, clip)
    for draw in stream(np.array([spec.draw(split, clip)]), Salt.VIDEO_ATTEMPTS, ATTEMPTS)[0]:
        scene = _draw_scene(spec, factors, draw, shifted=split == "shifted")
        cover = measure(scene, spec.objects, spec.image_size)
        if "occlusion" in factors:
            scene = replace(scene, bar=_bar(spec, scene, cover, draw, shifted=split == "shifted"))
            cover = measure(scene, spec.objects, spec.image_size)
        start = _starts(spec, cover)
        if start is not None and _keeps_rules(spec, factors, cover, start):
            return replace(scene, start=start), cover
    raise UserError(
        f"video: no clip with {spec.objects} objects, {spec.distractors} distractors and {'+'.join(factors)} kept the rules "
        f"in {ATTEMPTS} tries; ask for fewer objects, distractors or frames"
    )


def least_area(spec: VideoSpec) -> int:
    """Pixels that a target must show when its mask is given."""
    return math.ceil(TARGET_AREA * min(1.0, 2 / spec.objects) * spec.image_size**2)


def _starts(spec: VideoSpec, cover: Cover) -> tuple[int, ...] | None:
    """The first frame in which each target shows enough; None if that is the last one or never, or if it was there before."""
    enough = cover.areas()[0] >= least_area(spec)
    if not enough[:, :-1].any(axis=1).all():
        return None
    start = enough.argmax(axis=1)
    absent = ~cover.amodal[:, 0].any(axis=1)  # at first: it enters later
    return tuple(start.tolist()) if ((start == 0) | absent).all() else None


def largest(areas: NDArray[np.integer]) -> int:
    """Position of the target that is tracked and that the bar hides, by all pixels [O, F] of each: the largest at first."""
    return int(areas[:, 0].argmax())


def _keeps_rules(spec: VideoSpec, factors: tuple[str, ...], cover: Cover, start: tuple[int, ...]) -> bool:
    seen, whole = cover.areas()
    given = np.arange(spec.frames) >= np.array(start)[:, None]
    if (whole[given] == 0).any():
        return False
    share = seen / np.maximum(whole, 1)
    if "occlusion" in factors:
        hidden = np.flatnonzero(share[largest(whole)] < HIDDEN)
        return len(hidden) >= spec.occlusion_frames and bool((share[largest(whole), hidden[-1] :] > SHOWN).any())
    return bool((share[given] >= (1.0 if "static" in factors else SEEN)).all())


def _draw_scene(spec: VideoSpec, factors: tuple[str, ...], draw: np.uint64, *, shifted: bool) -> Scene:
    distractors = spec.distractors if "distractors" in factors else 0
    count = spec.objects + distractors
    layers = stream(np.array([draw]), Salt.VIDEO_LAYERS, 1 + count)[0]
    layout = Uniforms(draw, Salt.VIDEO_LAYOUT, 8 + count)
    hue, late, lanes = layout(), layout() < spec.late_objects, layout() < 0.5
    # Hues apart: the ground's, then one a target; a distractor takes its target's.
    palettes = [
        palette(layers[1 + n], hue + (n + 1) / (spec.objects + 1) + layout(-0.05, 0.05), 0.9)
        for n in range(spec.objects)
    ]
    bodies = []
    for number in range(count):
        target = number < spec.objects
        lane = (lanes, number) if "static" in factors else None
        enters = spec.frames // 2 if late and number == spec.objects - 1 else 0
        colours = palettes[number % spec.objects]
        bodies.append(
            _body(spec, layers[1 + number], colours, lane, enters, drift=target and "drift" in factors, shifted=shifted)
        )
    order = np.argsort(layout.array(count), kind="stable")
    ground = _ground(spec, layers[0], hue, still="static" in factors, shifted=shifted)
    return Scene(ground, tuple(bodies), tuple(order.tolist()), None, (0,) * spec.objects, factors)


def _body(
    spec: VideoSpec,
    draw: np.uint64,
    colours: Palette,
    lane: tuple[bool, int] | None,
    enters: int,
    *,
    drift: bool,
    shifted: bool,
) -> Body:
    uniforms = Uniforms(draw, Salt.VIDEO_SHAPE, 64)
    time = np.arange(spec.frames, dtype=np.float64)
    gone = time / (spec.frames - 1) * spec.drift_rate if drift else 0 * time  # 0 at first, the rate at last
    size = uniforms(0.175, 0.205) * min(1.0, 2 / spec.objects) ** 0.5
    radius = size * (1 + 0.06 * sine(uniforms(0.02, 0.08) * time + uniforms()))
    radius = radius * (1 + uniforms(-0.2, 0.2) * gone)
    angle = uniforms() + uniforms(-0.035, 0.035) * time
    height = np.array([0.12, 0.09, 0.05])[:, None] * uniforms.array(len(HARMONICS), 2)
    phase = uniforms.array(len(HARMONICS), 2) + uniforms.array(len(HARMONICS), 2) * 0.08 * time[:, None, None]
    change = (uniforms.array(len(HARMONICS), 2) - 0.5) * 0.3
    waves = height * sine(phase) + change * gone[:, None, None]
    x, y = _path(spec, uniforms, size, lane)
    if enters:
        side, step = int(uniforms() * 4), max(0.12, 1.4 / enters)
        away = np.maximum(enters - time, 0) * step * (1 if side % 2 else -1)
        x, y = (x + away, y) if side < 2 else (x, y + away)
    mixed = np.minimum(0.7 * gone, 1)[:, None, None]
    gain = (1 + (0.3 if uniforms() < 0.5 else -0.3) * gone)[:, None, None]
    turned = np.roll(colours, 1 if uniforms() < 0.5 else -1, axis=-1)
    drifted = lookup(np.clip((colours * (1 - mixed) + turned * mixed) * gain, 0, 1))
    return Body(x, y, cosine(angle), sine(angle), radius, waves, Texture(draw, 5, shifted), drifted)


def _path(spec: VideoSpec, uniforms: Uniforms, size: float, lane: tuple[bool, int] | None) -> tuple[Track, Track]:
    """Steady, between the borders, with a slow sway; in a lane of its own if need be."""
    time = np.arange(spec.frames, dtype=np.float64)
    speed = uniforms(*SPEED)
    heading = np.array([uniforms()])
    low, high = 0.7 * size, 1 - 0.7 * size
    sway = 0.02 * sine(uniforms(0.05, 0.1) * time + uniforms())
    start_x, start_y = uniforms(low, high), uniforms(low, high)
    if lane is None:
        x = bounce(start_x + speed * cosine(heading) * time, low, high)
        y = bounce(start_y + speed * sine(heading) * time, low, high)
        return x + sway, y - sway
    upright, number = lane
    along = bounce(start_x + (speed if heading[0] < 0.5 else -speed) * time, low, high)
    across = np.full(spec.frames, (number + 0.5) / spec.objects)
    return (across, along) if upright else (along, across)


def _ground(spec: VideoSpec, draw: np.uint64, hue: float, *, still: bool, shifted: bool) -> Ground:
    uniforms = Uniforms(draw, Salt.VIDEO_SHAPE, 4)
    time = np.arange(spec.frames, dtype=np.float64) * (0.0 if still else uniforms(*PAN))
    heading = np.array([uniforms()])
    colours = lookup(palette(draw, hue, 0.6))
    return Ground(
        uniforms() + cosine(heading) * time,
        uniforms() + sine(heading) * time,
        Texture(draw, 6, shifted),
        np.repeat(colours[None], spec.frames, axis=0),
    )


def _bar(spec: VideoSpec, scene: Scene, cover: Cover, draw: np.uint64, *, shifted: bool) -> Bar:
    """A bar that comes over the largest target, keeps up with it while it hides it, and goes on to the other side."""
    # Draws are hashed, so those beside the clip's have no relation to it.
    uniforms, draw = Uniforms(draw ^ np.uint64(1), Salt.VIDEO_SHAPE, 4), draw ^ np.uint64(2)
    body = scene.bodies[largest(cover.areas()[1])]
    upright, sign = uniforms() < 0.5, (1 if uniforms() < 0.5 else -1)
    length = spec.occlusion_frames
    first = 3 + int(uniforms() * (spec.frames - 6 - length + 1))
    time = np.arange(spec.frames, dtype=np.float64)
    away = np.where(time < first, time - first, np.maximum(time - (first + length - 1), 0))
    width = 2 * 0.92 * float(body.reach().max())
    middle = (body.x if upright else body.y) + sign * away * 0.6 * width
    colours = lookup(palette(draw, uniforms(), 0.15))
    return Bar(middle, width, upright, Texture(draw, 6, shifted), np.repeat(colours[None], spec.frames, axis=0))
