"""FLOPs of an architecture, counted three ways that must agree.

Every counter that people use is silently wrong somewhere: fvcore has no formula for scaled-dot-product attention and
counts it as 0, ``FlopCounterMode`` counts operators without a formula as 0, and a closed form is only as good as its
author. So two counters and the closed form are compared, and an operator that nobody knows is an error, never a 0.

Counting traces the model, which slows a compiled copy of it for good (pytorch #140909): never count in a process that is
timed. `bench.engine.launch.run_isolated` runs `triangulate` in a process of its own.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONVENTION = "2 FLOPs per multiply-add; matrix products, convolutions, attention"
TOLERANCE = 0.01
"""Largest relative distance between the counters."""
PROGRESS_SHARES = 10
"""Shares of a run that training FLOPs are averaged over where they depend on the progress."""

COMPARED = frozenset(
    [
        "addmm",
        "baddbmm",
        "bmm",
        "conv",
        "dot",
        "einsum",
        "linear",
        "matmul",
        "mm",
        "mv",
        "scaled_dot_product_attention",
    ]  # fvcore's names
)
"""Operators that the counters are compared on; what fvcore counts beside them (norms, resampling) is kept apart."""

_NEGLIGIBLE_NAMES = """
    abs acos add add_ addcdiv addcmul adaptive_avg_pool2d alias alias_copy all amax amin aminmax any argmax argmin argsort
    asin atan atan2 avg_pool2d bernoulli bernoulli_ bitwise_and bitwise_not bitwise_or bool broadcast_tensors broadcast_to
    as_strided bucketize ceil clip clamp_max clamp_max_ clamp_min clamp_min_ clone complex concat concatenate conj cos
    count_nonzero cross cumprod cumsum deg2rad detach_ diag diagonal diff div div_ dropout_ elu embedding embedding_bag
    empty_like
    empty_permuted empty_strided equal erf exp exp_ expand_as expm1 eye feature_dropout fill fill_ flip floor_ fmod frac
    frobenius_norm gelu gelu_ glu greater hardsigmoid hardswish hardtanh hstack index_add index_copy index_fill index_put
    index_select isclose isfinite isinf isnan is_floating_point is_nonzero item kthvalue le leaky_relu leaky_relu_ less
    lerp lift_fresh linalg_cross linalg_norm linalg_vector_norm linspace log log10 log1p log2 log_sigmoid log_softmax
    logaddexp logical_and logical_not logical_or logical_xor logit logspace logsumexp lt masked_fill_ masked_scatter
    masked_select max_pool1d max_pool2d maximum mean meshgrid min minimum mish moveaxis movedim mul mul_ multinomial
    nan_to_num ne neg neg_ negative new_ones new_tensor norm normal normal_ normalize not_equal numel numpy_T one_hot
    ones_like outer pad pixel_shuffle pixel_unshuffle polar pow pow_ prelu prod rad2deg rand rand_like randint
    randint_like randn randn_like randperm ravel real reciprocal reflection_pad2d repeat repeat_interleave
    replication_pad2d replication_pad3d resolve_conj resolve_neg rms_norm round rsqrt rsqrt_ rsub scalar_tensor scatter
    scatter_ scatter_add scatter_add_ scatter_reduce searchsorted selu sgn sigmoid sigmoid_ sign silu silu_ sin sinc sinh
    smooth_l1_loss softmax softplus sort sqrt square squeeze_ std std_mean sub sub_ subtract sum sum_to_size swapaxes
    swapdims take take_along_dim tan tanh tanh_ tensor tensor_split threshold tile topk tril tril_indices triu
    triu_indices true_divide trunc unflatten unfold uniform uniform_ unsafe_chunk unsafe_split unsqueeze_copy
    upsample_bicubic2d upsample_linear1d upsample_nearest1d upsample_nearest3d upsample_trilinear3d var var_mean
    view_as view_as_complex view_as_real vstack where xlogy zero_ zeros_like _cast_Float _cast_Half _shape_as_tensor
    _softmax _log_softmax _unsafe_view _weight_norm __or__ __xor__ __lshift__ __rshift__ FloatImplicit IntImplicit Bool
    Float im2col col2im grid_sampler_2d _upsample_bicubic2d_aa _upsample_bilinear2d_aa
"""
NEGLIGIBLE = frozenset(f"aten::{name}" for name in _NEGLIGIBLE_NAMES.split())
"""Operators whose work is linear in the numbers they read, not a product of matrices: counted as 0 on purpose."""

Handle = Callable[[list[Any], list[Any]], float | Counter[str]]
"""fvcore's handle: (inputs, outputs) of a traced operator to its multiply-adds (1 each, not 2)."""


@dataclass(frozen=True)
class FlopReport:
    """FLOPs per sample of one architecture on one shape of batch."""

    forward_per_sample: int
    """One forward pass in evaluation mode, as `FlopCounterMode` counts it."""
    training_per_sample: int
    """Forward and backward in training mode as executed: frozen parts make it less than three forwards, gradient
    checkpointing more; the recomputed scores of a fused attention kernel are not in it. The model's auxiliary loss is;
    where its work changes with the progress (a distillation that stops), this is the mean over the run by time, from the
    middles of ten equal shares of it. The task's loss is not: a network that it runs on the outputs (a perceptual loss)
    costs every arm the same and is left out."""
    counters: dict[str, int | None]
    """Forward FLOPs per sample by ``torch``, ``fvcore`` and ``closed_form`` (None: the model offers no ``flops``)."""
    other_operators: dict[str, int] = field(default_factory=dict)
    """Per sample, what fvcore counts beside the compared operators (norms, resampling), in its own units."""
    device: str = "meta"
    """Where it was counted: ``meta`` (nothing is executed), or ``cpu`` for a model that needs real values."""
    convention: str = CONVENTION

    def to_record(self) -> dict[str, Any]:
        """The entry ``flops`` of ``arms/ARM.json``."""
        return {
            "forward_per_sample": self.forward_per_sample,
            "training_per_sample": self.training_per_sample,
            "counters": dict(self.counters),
            "other_operators": dict(self.other_operators),
            "convention": self.convention,
        }


def triangulate(
    build: Callable[[], nn.Module],
    batch: Mapping[str, Tensor],
    input_fields: Sequence[str],
    *,
    arm: str = "model",
    require_closed_form: bool = False,
    handles: Mapping[str, Handle] | None = None,
    negligible: Collection[str] = (),
) -> FlopReport:
    """Count the FLOPs of ``build()`` on `batch` three ways and compare them.

    The model is built and run on the ``meta`` device. One that needs real values there (a mask used as an index, say) is
    run on the CPU instead, on the first sample only and with the plain attention kernel, which every counter can read.

    Args:
        build: makes the model; called under ``torch.device("meta")`` first.
        batch: tensors whose first axis is the sample; targets may be absent unless the model's auxiliary loss reads them.
        input_fields: keys of `batch` that ``forward`` receives by keyword.
        arm: name for error messages.
        require_closed_form: whether a model without ``flops(batch)`` is an error.
        handles: fvcore handles for the model's own operators, by traced name (``my_lib::my_op``).
        negligible: traced names of own operators whose work may be counted as 0.

    Raises:
        UserError: the counters are more than 1 % apart, an operator is neither handled nor negligible, or the closed
            form is missing though required.
    """
    samples = next(iter(batch.values())).shape[0]
    try:
        with torch.device("meta"):
            model = build()
        model = model.to("meta")
        report = _count(model, {name: value.to("meta") for name, value in batch.items()}, samples, input_fields, arm,
                        require_closed_form, handles or {}, negligible)  # fmt: skip
    except UserError:
        raise
    except Exception as on_meta:  # whatever a model does that needs values: the CPU run decides whether it is a bug
        model = build()
        one = {name: value[:1].to("cpu") for name, value in batch.items()}
        try:
            with sdpa_kernel(SDPBackend.MATH):
                report = _count(
                    model, one, 1, input_fields, arm, require_closed_form, handles or {}, negligible, device="cpu"
                )
        except UserError:
            raise
        except Exception as on_cpu:
            raise on_cpu from on_meta
    return report


def _count(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    samples: int,
    input_fields: Sequence[str],
    arm: str,
    require_closed_form: bool,
    handles: Mapping[str, Handle],
    negligible: Collection[str],
    device: str = "meta",
) -> FlopReport:
    inputs = {name: batch[name] for name in input_fields}
    model.eval()
    by_fvcore, other, unknown = _fvcore(model, inputs, handles)
    unknown -= NEGLIGIBLE | frozenset(negligible)
    if unknown:
        raise UserError(
            f"arm {arm}: FLOPs of {', '.join(sorted(unknown))} are unknown and would count as 0: give `handles` a formula "
            "for the operator, or list it as `negligible`"
        )
    by_torch = _torch(lambda: model(**inputs))
    training = _training(model, batch, inputs)
    closed_form = getattr(model, "flops", None)
    if closed_form is None and require_closed_form:
        raise UserError(
            f"arm {arm}: {type(model).__name__} offers no flops(batch): write its closed form, {CONVENTION}"
        )
    by_closed_form = None if closed_form is None else int(closed_form(batch))
    counters = {"torch": by_torch, "fvcore": by_fvcore, "closed_form": by_closed_form}
    _compare(counters, arm)
    return FlopReport(
        forward_per_sample=round(by_torch / samples),
        training_per_sample=round(training / samples),
        counters={name: None if value is None else round(value / samples) for name, value in counters.items()},
        other_operators={name: round(value / samples) for name, value in sorted(other.items())},
        device=device,
    )


def _compare(counters: Mapping[str, int | None], arm: str) -> None:
    known = {name: value for name, value in counters.items() if value is not None}
    low, high = min(known.values()), max(known.values())
    if high - low <= TOLERANCE * high:
        return
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in known.items())
    agree = abs(known["torch"] - known["fvcore"]) <= TOLERANCE * max(known["torch"], known["fvcore"])
    mend = (
        "both counters agree, so mend the model's flops(batch)"
        if agree
        else "one counter misses an operator: give `handles` an fvcore formula for it, or register one with "
        "torch.utils.flop_counter.register_flop_formula"
    )
    raise UserError(f"arm {arm}: forward FLOPs of the batch are {high / max(low, 1) - 1:.1%} apart ({numbers}): {mend}")


def _convolution_backward(
    gradient: Any, inputs: Any, weight: Any, *more: Any, out_shape: Any = None, **options: Any
) -> int:
    """The gradient of the inputs, and that of the weight, cost what the convolution does; `gradient`, `inputs` and `weight` are shapes.

    Torch's own formula takes a grouped convolution's weight for a dense one's.
    """
    transposed, wanted = bool(more[4]), more[7]
    return sum(wanted[:2]) * int(conv_flop_count(inputs, weight, gradient, transposed=transposed))


def _torch(run: Callable[[], object]) -> int:
    """FLOPs of `run` by PyTorch's dispatcher, 2 per multiply-add."""
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    return int(counter.get_total_flops())


def _training(model: nn.Module, batch: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> float:
    """FLOPs of a training step, averaged over the run where they depend on the progress."""
    parameters = inspect.signature(getattr(model, "auxiliary_loss", lambda: None)).parameters
    if "progress" not in parameters:
        return _torch(lambda: _train_once(model, batch, inputs))

    def count(progress: float) -> int:
        return _torch(lambda: _train_once(model, batch, inputs, progress=progress))

    first, *between, last = ((share + 0.5) / PROGRESS_SHARES for share in range(PROGRESS_SHARES))
    ends = count(first), count(last)
    return ends[0] if ends[0] == ends[1] else (sum(ends) + sum(map(count, between))) / PROGRESS_SHARES


def _train_once(model: nn.Module, batch: Mapping[str, Tensor], inputs: Mapping[str, Tensor], **position: float) -> None:
    """Forward and backward in training mode; any scalar that every output flows into stands for the task's loss."""
    model.train()
    try:
        outputs = model(**inputs)
        terms = [output.float().sum() for output in _tensors(outputs) if output.requires_grad]
        auxiliary_loss = getattr(model, "auxiliary_loss", None)
        if auxiliary_loss is not None:
            terms.append(auxiliary_loss(batch, outputs, **position))
        if terms:
            torch.stack([term.reshape(()) for term in terms]).sum().backward()
    finally:
        model.zero_grad(set_to_none=True)
        model.eval()


class _Positional(nn.Module):
    """The model with positional inputs and a flat tuple of outputs, which is all that tracing understands."""

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(_tensors(self.model(**dict(zip(self.names, values, strict=True)))))


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        outputs = outputs.values()
    return [tensor for part in outputs for tensor in _tensors(part)] if isinstance(outputs, Iterable) else []


def _fvcore(
    model: nn.Module, inputs: Mapping[str, Tensor], handles: Mapping[str, Handle]
) -> tuple[int, dict[str, int], set[str]]:
    """FLOPs by fvcore (2 per multiply-add), its other operators in its own units, and the operators it does not know."""
    with _quiet(), _traceable_convolutions():
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(_Positional(model, inputs), tuple(inputs.values()))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        analysis.set_op_handle(**{**_HANDLES, **handles})
        by_operator = analysis.by_operator()
        unknown = set(analysis.unsupported_ops())
    own = {name.split("::")[-1] for name in handles}
    compared = sum(count for name, count in by_operator.items() if name in COMPARED | own)
    other = {name: int(count) for name, count in by_operator.items() if name not in COMPARED | own}
    return int(2 * compared), other, unknown


@contextmanager
def _traceable_convolutions() -> Iterator[None]:
    """Let 2-D convolutions be traced on the meta device, whose kernel is Python that cannot be (torch 2.15).

    They go straight to the operator that a trace on any other device holds, and that fvcore counts.
    """
    ordinary, transposed = nn.functional.conv2d, nn.functional.conv_transpose2d

    def conv2d(
        x: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        if isinstance(padding, str):
            return ordinary(x, weight, bias, stride, padding, dilation, groups)
        step, pad, spread = map(_pair, (stride, padding, dilation))
        return torch._convolution(x, weight, bias, step, pad, spread, False, [0, 0], groups, False, False, True, True)

    def conv_transpose2d(
        x: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor:
        step, pad, more, spread = map(_pair, (stride, padding, output_padding, dilation))
        return torch._convolution(x, weight, bias, step, pad, spread, True, more, groups, False, False, True, True)

    nn.functional.conv2d = conv2d  # type: ignore[assignment]
    nn.functional.conv_transpose2d = conv_transpose2d  # type: ignore[assignment]
    try:
        yield
    finally:
        nn.functional.conv2d, nn.functional.conv_transpose2d = ordinary, transposed


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _shape(value: Any) -> list[int]:
    return list(value.type().sizes())


def _product_macs(inputs: list[Any], outputs: list[Any]) -> float:
    """Multiply-adds of a product: every output number sums over the shared axis.

    fvcore's own handle reads the first factor's shape instead, which is wrong where that factor is broadcast.
    """
    return prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> float:
    """Multiply-adds of scores and read-out, [..., L, D] x [..., S, D] x [..., S, E]; masks save nothing (counted dense)."""
    query, key, value = (_shape(tensor) for tensor in inputs[:3])
    return prod(query[:-2]) * query[-2] * key[-2] * (query[-1] + value[-1])


def _einsum_macs(inputs: list[Any], outputs: list[Any]) -> float:
    """Multiply-adds of a contraction of two tensors; fvcore's own handle reads numpy's rounded printout."""
    operands = [_shape(value) for value in inputs[1].node().inputs()]
    if len(operands) != 2:
        from fvcore.nn.jit_handles import einsum_flop_jit

        return float(einsum_flop_jit(inputs, outputs))
    left, arrow, right = inputs[0].toIValue().replace(" ", "").partition("->")
    letters = Counter(filter(str.isalpha, left))
    kept = set(right) if arrow else {letter for letter, count in letters.items() if count == 1}
    sizes = [_einsum_sizes(term, shape) for term, shape in zip(left.split(","), operands, strict=True)]
    summed = (sizes[0].keys() & sizes[1].keys()) - kept
    return prod(_shape(outputs[0])) * prod(sizes[0][letter] for letter in summed) if summed else 0


def _einsum_sizes(term: str, shape: list[int]) -> dict[str, int]:
    before, _, after = term.partition("...")
    return dict(zip(before, shape, strict=False)) | dict(zip(reversed(after), reversed(shape), strict=False))


def _inverse(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Camera matrices are inverted: cubic in the matrix, so it is shown, but apart from the compared products."""
    shape = _shape(inputs[0])
    return Counter({"inverse": prod(shape) * shape[-1]})


_HANDLES: dict[str, Handle] = {
    "aten::einsum": _einsum_macs,
    "aten::inverse": _inverse,
    "aten::linalg_inv": _inverse,
    "aten::scaled_dot_product_attention": _attention_macs,
    "aten::matmul": _product_macs,
    "aten::mv": _product_macs,
    "aten::dot": _product_macs,
    "aten::baddbmm": lambda inputs, outputs: _product_macs(inputs[1:], outputs),
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence fvcore's logging and PyTorch's tracer warnings: what they would say is an error here."""
    loggers = [logging.getLogger(name) for name in ("fvcore", "fvcore.nn.jit_analysis")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
