"""Options of the task ``nvs`` and its presets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

from bench.data import scenes
from bench.errors import UserError
from bench.metrics import fidelity, perceptual
from bench.tasks.options import is_count, is_number

DATA = ("scenes", "re10k", "objects", "transforms")
FRAMES = ("auto", "none", "inputs", "sample")
SCENE_RULES = ("published", "any-shape", "none")
PERCEPTUAL_LOSSES = ("none", "gs-lrm", "st-lpips", "lpips-vgg", "lpips-alex")

OWN_FRAME = {"scenes": "none", "objects": "none", "re10k": "inputs", "transforms": "inputs"}
"""What ``frame: auto`` comes to: rendered scenes and objects stand in one bounded frame, recordings do not."""

OF_ONE_DATA = {
    "re10k": ("evaluation_index", "scene_rules", "min_gap", "max_gap"),
    "objects": ("object_views", "field_of_view"),
    "transforms": ("neighbours",),
}
"""Options that only one kind of data has."""

LOSS_WEIGHTS = {"scenes": 0.5, "re10k": 0.5, "transforms": 0.5, "objects": 1.0}
"""Weight of the perceptual loss where none is given: LVSM's for scenes and for objects."""

TRAIN_VIEWS = 6
"""Views rendered for a training scene, unless a sample needs more."""

TEST_VIEWS = 16
"""Views rendered for a test scene, unless a sample needs more."""

ENDLESS = {"train": 20_000, "validation": 64, "test": 100, "ood": 100}
"""What "all" means for scenes that are rendered, of which there is no end, or held out."""


@dataclass(frozen=True)
class NVSConfig:
    """Options of the task; every field is one key under ``task:`` in a comparison."""

    data: str = "scenes"
    """``scenes`` (embedded, rendered on first use), ``re10k``, ``objects`` or ``transforms`` (files under `data_path`)."""
    data_path: str | None = None
    """Folder of the data, unless it is rendered; see ``docs/bring-your-data.md``."""
    evaluation_index: str | None = None
    """``re10k`` only: JSON file that fixes inputs and targets of the test scenes."""
    clean_evaluation: bool = False
    """With an evaluation index: leave out the scenes that have a target among their inputs, at any scored number of them."""
    scene_rules: str = "published"
    """``re10k`` only: which training clips are left out. By pixelSplat's rules (``published``), by those but for the size of the
    images (``any-shape``), or none but the shortest (``none``: as LVSM does)."""
    min_gap: int = 25
    """``re10k`` only: fewest frames from the first input of a training sample to the last; shorter clips are left out."""
    max_gap: int = 192
    """``re10k`` only: most frames from the first input to the last."""
    object_views: int = 32
    """``objects`` only: renders of every object."""
    field_of_view: float = 49.1
    """``objects`` only: of the renders, vertically, in degrees."""
    neighbours: int | None = None
    """``transforms`` only: draw a sample's views among so many cameras nearest to its first target; null: from all."""
    frame: str = "auto"
    """Frame in which poses reach the architectures: as in the data (``none``), centred and scaled by the input cameras
    (``inputs``), or by inputs and targets together (``sample``: as LVSM does, and target poses move the inputs)."""
    image_size: int = 64
    """Height and width in pixels; at least 16."""
    input_views: int = 2
    min_input_views: int | None = None
    """Fewest input views of a training sample; the number is then uniform up to `input_views`, and architectures are given
    ``input_mask``. Null: always `input_views`."""
    extra_input_views: tuple[int, ...] = ()
    """Other numbers of input views from which the final evaluation paints the same targets."""
    target_views: int = 2
    """Target views of a training sample."""
    train_scenes: int | None = 2000
    """Scenes of the split: so many are rendered; of data on disk at most so many, the first ones. 0 or null: all (of the
    rendered ones, which have no end: 20,000, 64, 100 and 100)."""
    validation_scenes: int | None = 64
    """The same; but ``re10k`` has no such split, so many of its training scenes are held out (0 or null: 64)."""
    test_scenes: int | None = 100
    ood: bool = False
    """Also render the out-of-distribution split, so that it can be evaluated."""
    ood_scenes: int | None = 100
    eval_targets: int = 2
    """Target views scored in each scene of an evaluated split (at most: an evaluation index may fix fewer)."""
    eval_batch: int = 8
    """Scenes in one evaluation batch: fixed, so that an arm's score does not depend on its memory."""
    perceptual: str = "auto"
    """``auto``, ``lpips-vgg``, ``lpips-alex``, ``st-lpips`` or ``none``; scored at the final evaluation only."""
    fidelity: str = "none"
    """``inception-2048`` (FID and KID; 64, 192, 768: of an earlier layer), ``alexnet`` (the like, FD and KD, under weights that are
    installed) or ``none``; scored at the final evaluation only, whose records hold the features."""
    fidelity_weights: str | None = None
    """``inception-..`` only: file of the weights."""
    perceptual_loss: str = "none"
    """``none``, ``gs-lrm`` (the VGG-19 loss of GS-LRM and LVSM), ``st-lpips``, ``lpips-vgg`` or ``lpips-alex``: added to the
    mean squared error in training."""
    perceptual_loss_weight: float | None = None
    """Null: 0.5, and 1.0 on ``objects``, as LVSM has it."""
    perceptual_loss_weights: str | None = None
    """``gs-lrm`` only: file of the VGG-19's weights."""
    target_has_input: bool = False
    """Draw training targets from all views of the sample, inputs included, as LVSM is trained. Never in evaluation."""

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_scenes"):
                if value is not None and not is_count(value, 0):
                    raise UserError(f"task.{field.name} must be a whole number, or null for all, got {value!r}")
            elif "int" in field.type and not field.type.startswith("tuple"):
                if not (is_count(value, 1) or (value is None and "None" in field.type)):
                    raise UserError(f"task.{field.name} must be a whole number of at least 1, got {value!r}")
            elif field.type == "str | None" and value == "":
                raise UserError(f"task.{field.name} is empty: give a path, or null for none")
            elif field.type == "bool" and not isinstance(value, bool):
                raise UserError(f"task.{field.name} must be true or false, got {value!r}")
        if self.image_size < 16:
            raise UserError(f"task.image_size must be at least 16, got {self.image_size}")
        _one_of("data", self.data, DATA)
        _one_of("frame", self.frame, FRAMES)
        _one_of("scene_rules", self.scene_rules, SCENE_RULES)
        _one_of("perceptual", self.perceptual, perceptual.CHOICES)
        self._check_data()
        self._check_views()
        self._check_fidelity()
        self._check_loss()

    def _check_data(self) -> None:
        if self.data == "scenes" and self.data_path is not None:
            raise UserError(
                f"task.data_path is {self.data_path!r}, but task.data: scenes are rendered; set task.data to "
                f"{', '.join(DATA[1:-1])} or {DATA[-1]}"
            )
        for data, names in OF_ONE_DATA.items():
            for name in names if data != self.data else ():
                if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                    raise UserError(f"task.{name}: only {data} has it, task.data is {self.data}; leave it out")
        if self.min_gap > self.max_gap:
            raise UserError(f"task.min_gap must be at most task.max_gap, {self.max_gap}, got {self.min_gap}")
        if not (is_number(self.field_of_view) and 0 < self.field_of_view < 180):
            raise UserError(f"task.field_of_view must be between 0 and 180 degrees, got {self.field_of_view!r}")
        if self.clean_evaluation and self.evaluation_index is None:
            raise UserError(
                "task.clean_evaluation needs task.evaluation_index: without one no target is among the inputs"
            )
        if self.data != "scenes" and self.ood:
            raise UserError(f"task.ood must be false: only scenes have that split, task.data is {self.data}")

    def _check_views(self) -> None:
        fewest, extra = self.min_input_views, self.extra_input_views
        if fewest is not None and fewest > self.input_views:
            raise UserError(f"task.min_input_views must be at most task.input_views, {self.input_views}, got {fewest}")
        if not all(is_count(count, 1) for count in extra) or len({self.input_views, *extra}) <= len(extra):
            raise UserError(
                f"task.extra_input_views must be different whole numbers of at least 1, other than task.input_views, "
                f"{self.input_views}, got {list(extra)}"
            )

    def _check_fidelity(self) -> None:
        kind, weights = self.fidelity, self.fidelity_weights
        _one_of("fidelity", kind, fidelity.CHOICES)
        if fidelity.needs_file(kind) and weights is None:
            raise UserError(
                f"task.fidelity_weights is not set: {kind} needs {fidelity.INCEPTION_FILE} of {fidelity.RELEASE}; give its "
                "path, or set task.fidelity: alexnet, whose weights are installed"
            )
        if not fidelity.needs_file(kind) and weights is not None:
            raise UserError(f"task.fidelity_weights: only inception-.. reads a file, task.fidelity is {kind}")
        if kind == "alexnet" and self.image_size < fidelity.SMALLEST_SIDE:
            raise UserError(
                f"task.fidelity: alexnet needs images of {fidelity.SMALLEST_SIDE} px or more, got {self.image_size}"
            )

    def _check_loss(self) -> None:
        kind, weight = self.perceptual_loss, self.perceptual_loss_weight
        _one_of("perceptual_loss", kind, PERCEPTUAL_LOSSES)
        if weight is not None and not (is_number(weight) and 0 <= weight < float("inf")):
            raise UserError(f"task.perceptual_loss_weight must be 0 or more, got {weight!r}")
        if kind == "none" and weight:
            raise UserError(
                f"task.perceptual_loss must name a network when task.perceptual_loss_weight is {weight}: one of "
                f"{', '.join(PERCEPTUAL_LOSSES[1:])}; got none"
            )
        if kind != "none" and weight == 0:
            raise UserError(f"task.perceptual_loss_weight must be more than 0 for {kind}, got {weight}")
        if kind not in ("none", "gs-lrm") and self.image_size < perceptual.SMALLEST_SIDE:
            raise UserError(
                f"task.perceptual_loss: {kind} needs images of {perceptual.SMALLEST_SIDE} px or more, got {self.image_size}"
            )
        if kind != "gs-lrm" and self.perceptual_loss_weights is not None:
            raise UserError(f"task.perceptual_loss_weights: only gs-lrm reads a file, task.perceptual_loss is {kind}")

    @property
    def fewest_input_views(self) -> int:
        """Input views of the shortest training sample."""
        return self.input_views if self.min_input_views is None else self.min_input_views

    @property
    def varies_inputs(self) -> bool:
        """Whether the number of input views varies in training, so that a batch holds ``input_mask``."""
        return self.fewest_input_views < self.input_views

    def scene_limit(self, split: str) -> int | None:
        """Most scenes of a split, None for all of them."""
        count: int | None = getattr(self, f"{split}_scenes")
        return count or None

    @property
    def scene_spec(self) -> scenes.SceneSpec:
        """The rendered scenes that these options need."""
        counts = {split: self.scene_limit(split) or ENDLESS[split] for split in scenes.SPLITS}
        return scenes.SceneSpec(
            image_size=self.image_size,
            train_scenes=counts["train"],
            validation_scenes=counts["validation"],
            test_scenes=counts["test"],
            ood_scenes=counts["ood"],
            train_views=max(TRAIN_VIEWS, self.input_views + max(self.target_views, self.eval_targets)),
            test_views=max(TEST_VIEWS, max((self.input_views, *self.extra_input_views)) + self.eval_targets),
        )


def _one_of(field: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise UserError(f"task.{field} must be one of {', '.join(known)}, got {value!r}")


PRESETS: dict[str, NVSConfig] = {
    "tiny": NVSConfig(),
    "small": NVSConfig(image_size=128, target_views=4, train_scenes=4000),
    "paper": NVSConfig(
        data="re10k", image_size=256, target_views=6, eval_targets=3, train_scenes=None, test_scenes=None
    ),
}
"""``tiny``: two cores, minutes. ``small``: one GPU, minutes (24,000 training images). ``paper``: LVSM's image size and
view counts on all of RealEstate10K, whose folder must be given (`data_path`); with ``data: scenes`` on 20,000 embedded scenes
instead (160,000 training images, 31 GB)."""
