"""Options of the task ``nvs`` and its presets."""

from __future__ import annotations

from dataclasses import dataclass, fields

from bench.data import scenes
from bench.errors import UserError
from bench.metrics import perceptual

TRAIN_VIEWS = 6
"""Views rendered for a training scene, unless a sample needs more."""


@dataclass(frozen=True)
class NVSConfig:
    """Options of the task; every field is one key under ``task:`` in a comparison."""

    image_size: int = 64
    """Height and width in pixels; at least 16."""
    input_views: int = 2
    target_views: int = 2
    """Target views of a training sample."""
    train_scenes: int = 2000
    validation_scenes: int = 64
    test_scenes: int = 100
    ood: bool = False
    """Also render the out-of-distribution split, so that it can be evaluated."""
    ood_scenes: int = 100
    eval_targets: int = 2
    """Target views scored in each scene of an evaluated split."""
    eval_batch: int = 8
    """Scenes in one evaluation batch: fixed, so that an arm's score does not depend on its memory."""
    perceptual: str = "auto"
    """``auto``, ``lpips-vgg``, ``lpips-alex``, ``st-lpips`` or ``none``; scored at the final evaluation only."""
    perceptual_loss_weight: float = 0.0
    """Weight of the same perceptual distance in the training loss, beside the mean squared error; 0 switches it off."""
    target_has_input: bool = False
    """Draw training targets from all views of the sample, inputs included, as LVSM is trained. Never in evaluation."""

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UserError(f"task.{field.name} must be a whole number of at least 1, got {value!r}")
            if field.type == "bool" and not isinstance(value, bool):
                raise UserError(f"task.{field.name} must be true or false, got {value!r}")
        if self.image_size < 16:
            raise UserError(f"task.image_size must be at least 16, got {self.image_size}")
        if self.perceptual not in perceptual.CHOICES:
            raise UserError(f"task.perceptual must be one of {', '.join(perceptual.CHOICES)}, got {self.perceptual!r}")
        weight = self.perceptual_loss_weight
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise UserError(f"task.perceptual_loss_weight must be 0 or more, got {weight!r}")
        if weight > 0 and self.perceptual in ("auto", "none"):
            raise UserError(
                f"task.perceptual must name a network when task.perceptual_loss_weight is {weight}: what is learned must "
                f"not depend on the machine; got {self.perceptual}"
            )
        views = self.input_views + self.eval_targets
        if views > self.scene_spec.test_views:
            raise UserError(
                f"task.eval_targets must leave room for {self.input_views} inputs among the "
                f"{self.scene_spec.test_views} views of a test scene, got {self.eval_targets}"
            )

    @property
    def scene_spec(self) -> scenes.SceneSpec:
        """The rendered scenes that these options need."""
        return scenes.SceneSpec(
            image_size=self.image_size,
            train_scenes=self.train_scenes,
            validation_scenes=self.validation_scenes,
            test_scenes=self.test_scenes,
            ood_scenes=self.ood_scenes,
            train_views=max(TRAIN_VIEWS, self.input_views + max(self.target_views, self.eval_targets)),
        )


PRESETS: dict[str, NVSConfig] = {
    "tiny": NVSConfig(),
    "small": NVSConfig(image_size=128, target_views=4, train_scenes=4000),
    "paper": NVSConfig(image_size=256, target_views=6, train_scenes=20000),
}
"""``tiny``: two cores, minutes. ``small``: one GPU, minutes (24,000 training images). ``paper``: LVSM's image size and
view counts on the embedded scenes (160,000 training images, 31 GB), learned by squared error alone: LVSM adds half of a
VGG-19 loss, to which `perceptual_loss_weight` comes close."""
