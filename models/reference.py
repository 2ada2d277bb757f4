"""Weights from published checkpoints: strict, so that a wrong file is an error and never random weights in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

WRAPPERS = frozenset({"module", "_orig_mod"})
"""Path components that DistributedDataParallel and ``torch.compile`` put into keys."""


def lvsm_subtrees(*, repa: bool) -> tuple[str, ...]:
    """What the LVSM family's checkpoints carry beside the model: the perceptual loss's VGG, REPA's teacher and projector.

    With ``repa`` the projector belongs to the model.
    """
    return ("loss_computer.", "repa_encoder.") if repa else ("loss_computer.", "repa_encoder.", "repa_projector.")


def unwrap_keys(state: Mapping[str, Any], dropped: Sequence[str] = ()) -> dict[str, Tensor]:
    """Reduce a checkpoint to the model's own weights.

    Args:
        state: a state dict, or a published file's dict that holds one under ``model``.
        dropped: prefixes of the subtrees that do not belong to the model.

    Returns:
        The weights without wrapper prefixes and without the dropped subtrees.

    Raises:
        ValueError: a value is no tensor, or two keys differ only in their wrappers.
    """
    if isinstance(state.get("model"), Mapping):
        state = state["model"]
    weights: dict[str, Tensor] = {}
    for wrapped, value in state.items():
        key = ".".join(part for part in wrapped.split(".") if part not in WRAPPERS)
        if key.startswith(tuple(dropped)):
            continue
        if not isinstance(value, Tensor):
            raise ValueError(
                f"state[{wrapped!r}] must be a tensor, got {type(value).__name__}: give the state dict of the model, or a "
                f"file's dict that holds it under 'model'"
            )
        if key in weights:
            raise ValueError(
                f"state[{wrapped!r}] is there twice, with and without a wrapper prefix: keep one of the two"
            )
        weights[key] = value
    return weights


def load_strictly(model: nn.Module, state: Mapping[str, Any], dropped: Sequence[str] = ()) -> None:
    """Copy a published checkpoint into ``model``, whose parameters bear the published names.

    Args:
        model: the model to fill, in place.
        state: as in `unwrap_keys`.
        dropped: as in `unwrap_keys`.

    Raises:
        ValueError: a key is missing, superfluous, or of another shape; the message names it.
    """
    weights = unwrap_keys(state, dropped)
    expected = model.state_dict()
    name = type(model).__name__
    problems = [f"missing key {key!r}" for key in expected if key not in weights]
    problems += [f"unexpected key {key!r}" for key in weights if key not in expected]
    problems += [
        f"key {key!r} must be {list(expected[key].shape)}, got {list(weights[key].shape)}"
        for key in expected
        if key in weights and expected[key].shape != weights[key].shape
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise ValueError(f"state does not fit {name}: {'; '.join(problems[:5])}{more}: check the file and the options")
    model.load_state_dict(weights, strict=True)
