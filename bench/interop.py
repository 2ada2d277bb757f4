"""Published weights in, and proof that an architecture computes what the published code computes.

A parity fixture is one safetensors file: ``state/<key>`` weights in the published layout, ``in/<name>`` inputs,
``out/<name>`` outputs and ``out/loss``, ``grad_norm/<key>`` the L2 norm of each weight's gradient; its metadata names the
``architecture``, its ``config`` (JSON) and the kind of ``loss``. One of a metric has no weights: its metadata names the
``metric``, its ``config`` and the ``expected`` figures (JSON), in percent.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

OUTPUT_TOLERANCE = 1e-5
"""Allowed difference of an output, as a share of max(1, its largest magnitude)."""
LOSS_TOLERANCE = 1e-6
"""Allowed difference of the loss, as a share of the loss."""
GRADIENT_TOLERANCE = 1e-4
"""Allowed difference of a gradient's norm, as a share of max(norm, `GRADIENT_FLOOR`)."""
GRADIENT_FLOOR = 1e-6
LOSSES = ("mse", "mean-square", "model")
"""Kinds of loss that a fixture may name, see `ParityFixture.loss`; one that names any of them must hold its value."""
METRIC_TOLERANCE = 1e-6
"""Allowed difference of a metric, in percent points."""
ROUND_OFF = 2.0**-23
"""Share of a fixture's largest gradient norm up to which a norm is the rounding error of a gradient that is zero by theory, such as
that of a bias that a softmax does not see: there it must be as small here, not equal."""


@dataclass(frozen=True)
class ParityFixture:
    """One file of ground truth from the published implementation."""

    path: Path
    architecture: str
    config: dict[str, Any]
    loss: str | None
    """None of what has none, such as inference; ``mse``: mean squared error of ``images`` against the input ``target_images``; ``mean-square``: sum over the outputs
    of their mean square; ``model``: what the architecture's ``reference_loss(batch, outputs)`` gives."""
    state: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    """Without the loss."""
    expected_loss: float | None
    gradient_norms: dict[str, float]


@dataclass(frozen=True)
class Deviation:
    """How far one quantity lies from the published one."""

    kind: str
    """``output``, ``loss``, ``gradient`` or ``metric``."""
    name: str
    difference: float
    """Absolute difference, the largest of the tensor."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is a number and within the tolerance."""
        return self.difference <= self.tolerance

    @property
    def share(self) -> float:
        """Difference as a share of the tolerance; infinite for a difference that is no number."""
        return self.difference / self.tolerance if self.difference == self.difference else float("inf")


@dataclass(frozen=True)
class ParityReport:
    """All deviations of one fixture."""

    path: Path
    architecture: str
    """Name of the architecture, or ``metric miou``."""
    deviations: tuple[Deviation, ...]

    @property
    def passed(self) -> bool:
        """Whether every quantity is within its tolerance."""
        return all(deviation.passed for deviation in self.deviations)

    def worst(self) -> list[Deviation]:
        """The largest deviation of each kind, measured by its tolerance: output, loss, gradient."""
        kinds = dict.fromkeys(deviation.kind for deviation in self.deviations)
        return [max((d for d in self.deviations if d.kind == kind), key=lambda d: d.share) for kind in kinds]

    def lines(self) -> list[str]:
        """The report for people: a verdict, then the largest difference of each kind."""
        misses = sum(not deviation.passed for deviation in self.deviations)
        verdict = "pass" if not misses else f"MISS ({misses} of {len(self.deviations)} quantities)"
        rows = [
            f"  {d.kind:<8} {d.difference:.2e} (allowed {d.tolerance:.2e}) {d.name}{'' if d.passed else '  <- miss'}"
            for d in self.worst()
        ]
        return [f"{self.path}: {self.architecture}: {verdict}", *rows]


def load_parity_fixture(path: str | Path) -> ParityFixture:
    """Read a fixture.

    Raises:
        UserError: no such file, a file that is cut off or not in the format, or one without the needed metadata.
    """
    path = Path(path)
    return _fixture(path, *_read_safetensors(path))


def _fixture(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> ParityFixture:
    """What the tensors and the metadata of a file hold."""
    parts: dict[str, dict[str, Tensor]] = {"state": {}, "in": {}, "out": {}, "grad_norm": {}}
    for name, tensor in tensors.items():
        group, _, key = name.partition("/")
        if group not in parts:
            raise UserError(f"{path}: tensor {name!r} is in none of state/, in/, out/, grad_norm/: no parity fixture")
        parts[group][key] = tensor
    for field in ("architecture", "config", *(["loss"] if "loss" in parts["out"] else [])):
        if field not in metadata:
            raise UserError(f"{path}: metadata field {field!r} is missing: no parity fixture of an architecture")
    config = _json_object(path, metadata, "config")
    trained = parts["grad_norm"] or not parts["out"] or metadata.get("loss") in LOSSES
    if "loss" not in parts["out"] and trained:
        raise UserError(f"{path}: tensor 'out/loss' is missing: the fixture is incomplete")
    return ParityFixture(
        path=path,
        architecture=metadata["architecture"],
        config=config,
        loss=metadata.get("loss"),
        state=parts["state"],
        inputs=parts["in"],
        expected_loss=parts["out"].pop("loss").double().item() if "loss" in parts["out"] else None,
        outputs=parts["out"],
        gradient_norms={key: norm.double().item() for key, norm in parts["grad_norm"].items()},
    )


def _json_object(path: Path, metadata: Mapping[str, str], field: str) -> dict[str, Any]:
    """A metadata field that holds a JSON object."""
    try:
        value = json.loads(metadata[field])
    except ValueError as error:
        raise UserError(f"{path}: metadata field {field!r} must be JSON, got {metadata[field]!r}: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: metadata field {field!r} must be a JSON object, got {metadata[field]!r}")
    return value


def check_parity(path: str | Path, resolve: Callable[[str], Any] | None = None) -> ParityReport:
    """Run an architecture on a fixture's inputs with its weights, or a metric, and compare everything that the fixture holds.

    Args:
        path: the fixture.
        resolve: name of an architecture -> its class, which offers ``from_reference(state, **config)`` and whose parameters
            bear the published names. Raises UserError or LookupError for a name that it does not know. Default: the
            registry.

    Raises:
        UserError: an unreadable fixture, an architecture or an option that does not exist here, weights that do not fit.
    """
    import torch

    path = Path(path)
    tensors, metadata = _read_safetensors(path)
    if "metric" in metadata:
        return _check_metric(path, tensors, metadata)
    fixture = _fixture(path, tensors, metadata)
    model = _build(fixture, resolve or _registered)
    # Dropout and the like off, gradients on: the published implementations ran like this.
    model.eval()
    with torch.enable_grad():
        outputs = _run(fixture, model)
        deviations = [_compare_output(name, outputs.get(name), fixture.outputs[name]) for name in fixture.outputs]
        if fixture.loss is not None and fixture.expected_loss is not None:
            loss = _loss(fixture, model, outputs)
            loss.backward()
            difference = abs(loss.item() - fixture.expected_loss)
            deviations.append(Deviation("loss", fixture.loss, difference, LOSS_TOLERANCE * abs(fixture.expected_loss)))

    parameters = dict(model.named_parameters())
    noise = ROUND_OFF * max(fixture.gradient_norms.values(), default=0.0)
    for key, expected in fixture.gradient_norms.items():
        if key not in parameters:
            raise UserError(f"{fixture.path}: grad_norm/{key}: {fixture.architecture} has no such weight")
        gradient = parameters[key].grad
        norm = 0.0 if gradient is None else gradient.double().norm().item()
        tolerance = GRADIENT_TOLERANCE * max(expected, GRADIENT_FLOOR)
        if max(norm, expected) <= noise:
            tolerance = max(tolerance, noise)
        deviations.append(Deviation("gradient", key, abs(norm - expected), tolerance))
    return ParityReport(fixture.path, fixture.architecture, tuple(deviations))


def _check_metric(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> ParityReport:
    """Compute each of a metric fixture's expected figures from its predictions and labels."""
    from bench.class_counts import DEFINITIONS
    from bench.metrics.segmentation import counts, named_counts

    if metadata["metric"] != "miou":
        raise UserError(f"{path}: metric {metadata['metric']!r} is unknown here: only miou can be compared")
    given = {**metadata, **tensors}
    if missing := [name for name in ("config", "expected", "in/predictions", "in/labels") if name not in given]:
        raise UserError(f"{path}: {missing[0]!r} is missing: the fixture is incomplete")
    config, expected = (_json_object(path, metadata, field) for field in ("config", "expected"))
    if set(config) != {"classes", "ignore_index"} or not all(isinstance(value, int) for value in config.values()):
        raise UserError(f"{path}: metadata field 'config' must hold the numbers classes and ignore_index, got {config}")
    if not expected or not all(isinstance(figure, float | int) for figure in expected.values()):
        raise UserError(f"{path}: metadata field 'expected' must hold figures, got {expected}")
    try:
        table = counts(tensors["in/predictions"], tensors["in/labels"], **config)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    found = named_counts(table, [str(index) for index in range(len(table))])
    deviations = []
    for name, figure in expected.items():
        if (definition := DEFINITIONS.get(name.replace("_", "-"))) is None:
            raise UserError(f"{path}: figure {name!r} is unknown here: nothing to compare")
        deviations.append(Deviation("metric", name, abs(definition(found) - figure), METRIC_TOLERANCE))
    return ParityReport(path, "metric miou", tuple(deviations))


def load_reference_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a published checkpoint for an architecture's ``from_reference``.

    Args:
        path: ``.safetensors``, or ``.pt``, ``.pth``, ``.ckpt``; of the latter only tensors, plain containers and
            ``argparse.Namespace`` are read, no code is run.

    Returns:
        The file's dict as it is: a state dict, or one that holds it under ``model``.

    Raises:
        UserError: no such file, another suffix, a damaged file, or one that holds more than tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return dict(_read_safetensors(path)[0])
    if path.suffix not in {".pt", ".pth", ".ckpt"}:
        raise UserError(f"{path}: a checkpoint must end in .safetensors, .pt, .pth or .ckpt, got {path.suffix!r}")
    if not path.is_file():
        raise UserError(f"{path}: no such file: check the path")
    import argparse
    import pickle

    import torch

    try:
        # Trainer checkpoints of MAE and CrossMAE also hold their command line: plain values, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not a file of tensors alone ({_reason(error)}): save the state dict by itself, best as .safetensors"
        ) from None
    except Exception as error:  # a broken file may stumble anywhere
        raise UserError(f"{path}: damaged or cut off ({_reason(error)}): fetch it again") from None
    if not isinstance(state, dict):
        raise UserError(f"{path}: must hold a dict of tensors, got {type(state).__name__}: save model.state_dict()")
    return state


def _reason(error: Exception) -> str:
    """What torch says of a file, in a line without its advice, colours and whatever else a terminal would obey."""
    message = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    named = re.search(r"GLOBAL (\S+)", message)
    line = f"it needs {named[1]}" if named else message.partition("\n")[0]
    return re.sub(r"\x1b\[[0-9;]*m|[^ -~]", "", line)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path}: no such file: check the path")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged, cut off or not safetensors ({error}): fetch it again") from None


def _registered(name: str) -> Any:
    """The class of a registered architecture or part."""
    from bench import registry

    return registry.load_object(registry.architecture(name, parts=True).target, "architecture")


def _build(fixture: ParityFixture, resolve: Callable[[str], Any]) -> nn.Module:
    """The fixture's architecture with the fixture's weights."""
    try:
        architecture = resolve(fixture.architecture)
    except UserError as error:
        raise UserError(f"{fixture.path}: {error}") from None
    except LookupError:
        raise UserError(f"{fixture.path}: architecture {fixture.architecture!r} is unknown here") from None
    if not hasattr(architecture, "from_reference"):
        raise UserError(
            f"{fixture.path}: architecture {fixture.architecture!r} has no from_reference: nothing to compare"
        )
    try:
        return architecture.from_reference(fixture.state, **fixture.config)
    except ValueError as error:
        raise UserError(f"{fixture.path}: {fixture.architecture}: {error}") from None


def _run(fixture: ParityFixture, model: nn.Module) -> dict[str, Tensor]:
    """The model's outputs for those of the fixture's inputs that its ``forward`` takes; the rest are targets."""
    accepted = inspect.signature(model.forward).parameters
    for name, parameter in accepted.items():
        if name not in fixture.inputs and parameter.default is parameter.empty:
            raise UserError(f"{fixture.path}: tensor 'in/{name}' is missing: the fixture is incomplete")
    try:
        return model(**{name: tensor for name, tensor in fixture.inputs.items() if name in accepted})
    except ValueError as error:
        raise UserError(f"{fixture.path}: {fixture.architecture}: {error}") from None


def _loss(fixture: ParityFixture, model: Any, outputs: Mapping[str, Tensor]) -> Tensor:
    """The fixture's kind of loss on our outputs."""
    import torch.nn.functional as F

    if fixture.loss == "mse":
        if "target_images" not in fixture.inputs:
            raise UserError(
                f"{fixture.path}: loss 'mse' needs the tensor 'in/target_images': the fixture is incomplete"
            )
        return F.mse_loss(outputs["images"].float(), fixture.inputs["target_images"])
    if fixture.loss == "mean-square":
        missing = [name for name in fixture.outputs if name not in outputs]
        if missing:
            raise UserError(
                f"{fixture.path}: {fixture.architecture} gives no output {missing[0]!r}: nothing to compare"
            )
        return sum((outputs[name].float().square().mean() for name in fixture.outputs), start=0.0)  # type: ignore[return-value]
    if fixture.loss == "model":
        if not hasattr(model, "reference_loss"):
            raise UserError(f"{fixture.path}: loss 'model' needs {fixture.architecture} to offer reference_loss")
        return model.reference_loss(fixture.inputs, outputs)
    raise UserError(f"{fixture.path}: loss must be mse, mean-square or model, got {fixture.loss!r}")


def _compare_output(name: str, ours: Tensor | None, expected: Tensor) -> Deviation:
    """Largest absolute difference of one output tensor."""
    tolerance = OUTPUT_TOLERANCE * max(1.0, expected.abs().max().item())
    if ours is None or ours.shape != expected.shape:
        shape = "is missing" if ours is None else f"has shape {list(ours.shape)} instead of {list(expected.shape)}"
        return Deviation("output", f"{name} ({shape})", float("inf"), tolerance)
    difference = (ours.detach().double() - expected.double()).abs().max().item()
    return Deviation("output", name, difference, tolerance)
