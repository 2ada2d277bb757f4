"""The checks. Each takes a case, returns what it saw in one line, and raises `Failure` with the mend otherwise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from bench.conformance.case import Case, asks_for_target, difference, fail
from bench.contracts import Causality

FINITE_BATCHES = 16
"""Random batches on which loss and gradients must be finite, beside the task's edge cases."""
TOLERANCE = 1e-4
"""Largest difference of outputs that must be equal up to rounding, relative to their largest magnitude (at least 1)."""
AFFINE_TOLERANCE = 0.1
"""Largest relative difference between what a sample adds to the memory of a small batch and of a larger one."""
MEMORY_BATCHES = (2, 4, 8)


def _signature(case: Case) -> str:
    """Forward takes the input fields by keyword and asks for nothing else."""
    model = case.model()
    parameters = inspect.signature(model.forward).parameters.values()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for name, parameter in named.items():
        if name in case.task.target_fields:
            fail(asks_for_target(name))
        if name not in case.task.input_fields and parameter.default is parameter.empty:
            fail(f"forward needs '{name}', which task {case.task.name} does not give: its inputs are "
                  f"{', '.join(case.task.input_fields)}")  # fmt: skip
    missing = [name for name in case.task.input_fields if name not in named]
    if missing and not open_ended:
        fail(f"forward does not take {', '.join(missing)}: add the argument or **inputs")
    return f"takes {', '.join(case.task.input_fields)}"


def _forward(case: Case) -> str:
    """Outputs are a dict of tensors that the task's loss accepts."""
    model, batch = case.model().train(), case.batch()
    outputs = model(**case.inputs(batch))
    if not isinstance(outputs, Mapping) or not all(isinstance(value, Tensor) for value in outputs.values()):
        fail(f"forward must return a dict of tensors, got {type(outputs).__name__}")
    loss = case.losses(model, batch, outputs)
    if loss.ndim or loss.dtype != torch.float32:
        fail(f"the loss must be an fp32 scalar, got {loss.dtype} {list(loss.shape)}: let auxiliary_loss return one")
    return ", ".join(f"{name} {list(value.shape)}" for name, value in outputs.items()) + f", loss {loss.item():.4g}"


def _inputs_unchanged(case: Case) -> str:
    """Forward leaves its inputs alone."""
    for training in (True, False):
        model, batch = case.model().train(training), case.batch()
        inputs = case.inputs(batch)
        with torch.no_grad():
            model(**inputs)
        changed = [name for name, value in inputs.items() if not torch.equal(value, batch[name])]
        if changed:
            fail(f"forward changes {', '.join(changed)} in place: work on a copy")
    return "forward leaves them alone"


def _gradients(case: Case) -> str:
    """Every trainable weight gets a gradient, but those that are declared unused, which get none."""
    model = case.model().train()
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    declared = set(getattr(model, "unused_parameters", lambda: ())())
    unknown = declared - set(dict(model.named_parameters()))
    if unknown:
        fail(f"unused_parameters() names {_some(unknown)}, which the model does not have")
    case.loss(model, case.batch()).backward()
    unreached = {name for name, weight in trainable.items() if weight.grad is None}
    # A zero-initialised layer hides what lies behind it from the first gradient: look again a little away from there.
    with torch.no_grad():
        for weight in trainable.values():
            weight.add_(0.02 * torch.randn_like(weight)).grad = None
    case.loss(model, case.batch(1)).backward()
    unreached |= {name for name, weight in trainable.items() if weight.grad is None or not weight.grad.any()}
    if idle := unreached - declared:
        fail(f"no gradient reaches {_some(idle)}: use the weight, or name it in unused_parameters()")
    if reached := (declared & set(trainable)) - unreached:
        fail(f"unused_parameters() names {_some(reached)}, which does get a gradient: take it off the list")
    return f"reach {len(trainable) - len(unreached)} of {len(trainable)} weights, {len(declared)} declared unused"


def _bfloat16(case: Case) -> str:
    """Loss and gradients are finite under bf16 autocast."""
    model, batch = case.model().train(), case.batch()
    with torch.autocast(case.device.type, torch.bfloat16):
        outputs = model(**case.inputs(batch))
        loss = case.losses(model, batch, outputs)
    _require_finite(model, outputs, loss, "under bf16 autocast")
    return f"loss {loss.item():.4g}"


def _always_finite(case: Case) -> str:
    """Loss and gradients are finite on every legal batch, degenerate ones included."""
    model = case.model().train()
    batches = {f"random batch {seed}": case.host_batch(seed) for seed in range(FINITE_BATCHES)}
    batches |= getattr(case.task, "edge_cases", lambda size: {})(case.batch_size)
    for name, batch in batches.items():
        model.zero_grad(set_to_none=True)
        moved = case.task.transfer(batch, case.device)
        outputs = model(**case.inputs(moved))
        _require_finite(model, outputs, case.losses(model, moved, outputs), f"on {name}")
    return f"on {len(batches)} batches: {FINITE_BATCHES} random ones, {', '.join(list(batches)[FINITE_BATCHES:])}"


def _require_finite(model: nn.Module, outputs: Mapping[str, Tensor], loss: Tensor, where: str) -> None:
    wrong = [f"output '{name}'" for name, value in outputs.items() if not value.isfinite().all()]
    if wrong or not loss.isfinite():
        fail(f"{(wrong or ['the loss'])[0]} is not finite {where}: guard divisions, logarithms and roots against 0 and "
              "overflow")  # fmt: skip
    loss.backward()
    broken = [n for n, w in model.named_parameters() if w.grad is not None and not w.grad.isfinite().all()]
    if broken:
        fail(f"the gradient of {_some(broken)} is not finite {where}: guard roots and norms against 0")


def _targets_unseen(case: Case) -> str:
    """Outputs do not depend on targets, not even on those that the auxiliary loss saw in an earlier step."""
    batch, other = case.batch(0), case.batch(1)
    traces = []
    for targets in (batch, other):
        seen = {name: (targets if name in case.task.target_fields else batch)[name].clone() for name in batch}
        model, trace = case.model().train(), []
        for _ in range(2):
            torch.manual_seed(1)
            outputs = model(**case.inputs(seen))
            trace.append({name: value.detach().clone() for name, value in outputs.items()})
            loss = case.losses(model, seen, outputs)
            if difference(trace[-1], {name: value.detach() for name, value in outputs.items()}) > 0:
                fail("auxiliary_loss changes the outputs in place: leave to the task's loss what forward returned")
            if difference(seen, batch | {name: targets[name] for name in case.task.target_fields}) > 0:
                fail("auxiliary_loss changes the batch in place: work on a copy")
            loss.backward()
        traces.append([*trace, case.outputs(model, seen)])
    gap = max(difference(first, second) for first, second in zip(*traces, strict=True))
    if gap > 0:
        fail(f"outputs change by {gap:.2g} with the targets of an earlier training step: keep nothing that "
              "auxiliary_loss saw")  # fmt: skip
    return "outputs do not change with the targets, before or after a training step"


def _symmetries(case: Case) -> str:
    """Declared symmetries of the task hold."""
    model, batch = case.model(), case.batch()
    plain = case.outputs(model, batch)
    for symmetry in case.task.symmetries:
        for seed in range(3):
            outputs = case.outputs(model, symmetry.apply(batch, torch.Generator().manual_seed(seed)))
            if symmetry.restore is not None:
                outputs = symmetry.restore(outputs, torch.Generator().manual_seed(seed))
            gap = difference(plain, outputs)
            if gap > TOLERANCE:
                fail(f"{symmetry.name} must not matter, but outputs change by {gap:.2g}")
    return ", ".join(s.name for s in case.task.symmetries) or f"task {case.task.name} declares none"


def _samples_apart(case: Case) -> str:
    """A sample's outputs do not depend on the other samples of its batch."""
    model, batch, other = case.model(), case.batch(0), case.batch(1)
    mixed = {name: torch.cat([value[:1], other[name][1:]]) for name, value in batch.items()}
    first, second = case.outputs(model, batch), case.outputs(model, mixed)
    gap = difference({n: v[:1] for n, v in first.items()}, {n: v[:1] for n, v in second.items()})
    if gap > TOLERANCE:
        fail(f"outputs of a sample change by {gap:.2g} with the rest of its batch: keep samples apart in eval mode")
    return "outputs of a sample do not change with the rest of its batch"


def _causal(case: Case) -> str:
    """Outputs of a frame do not depend on later frames, where the task says so."""
    causal: tuple[Causality, ...] = getattr(case.task, "causal", ())
    model, batch, other = case.model(), case.batch(0), case.batch(1)
    plain = case.outputs(model, batch)
    for output, change_from in causal:
        for frame in range(1, plain[output].shape[1]):
            seen = case.outputs(model, change_from(batch, other, frame))
            gap = difference({output: plain[output][:, :frame]}, {output: seen[output][:, :frame]})
            if gap > TOLERANCE:
                fail(
                    f"{output} before frame {frame} change by {gap:.2g} with what comes from there on: read no later frame"
                )
    line = ", ".join(f"{output} of a frame do not change with later frames" for output, _ in causal)
    return line or f"task {case.task.name} has no order of frames"


def _deterministic(case: Case) -> str:
    """Two forwards in eval mode are equal to the bit."""
    model, batch = case.model(), case.batch()
    gap = difference(case.outputs(model, batch), case.outputs(model, batch))
    if gap > 0:
        fail(f"two forwards in eval mode differ by {gap:.2g}: switch dropout and sampling off in eval mode")
    return "two forwards in eval mode are equal"


def _seeds(case: Case) -> str:
    """Initial weights follow from the global seed, and from nothing else."""
    first, again, other = (dict(case.model(seed).named_parameters()) for seed in (0, 0, 1))
    differing = [name for name, weight in first.items() if not torch.equal(weight, again[name])]
    if differing:
        fail(f"two models of one seed differ in {_some(differing)}: draw only from torch's global generator")
    trained = [name for name, weight in first.items() if weight.requires_grad]
    if trained and all(torch.equal(first[name], other[name]) for name in trained):
        fail("models of two seeds are equal: do not seed or fork the random state in the constructor")
    return "equal seeds give equal weights, other seeds others"


def _tie(case: Case) -> str:
    """A/A: two copies trained alike end alike."""
    ends = []
    for _ in range(2):
        model = case.model().train()
        optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-3)
        for step in range(2):
            torch.manual_seed(step)
            optimizer.zero_grad()
            case.loss(model, case.batch(step)).backward()
            optimizer.step()
        ends.append({name: value.detach() for name, value in model.state_dict().items()})
    gap = difference(*ends)
    if gap > (0 if case.device.type == "cpu" else TOLERANCE):
        fail(f"two copies trained alike differ by {gap:.2g} after two steps: draw only from torch's global generator")
    return "two copies trained alike are equal after two steps"


def _state_dict(case: Case) -> str:
    """Weights survive a safetensors file."""
    from safetensors.torch import load, save

    model, batch = case.model(0), case.batch()
    try:
        data = save({name: value.contiguous() for name, value in model.state_dict().items()})
    except RuntimeError as error:
        fail(
            f"the state dict cannot be stored ({next(iter(str(error).splitlines()))[:160]}): register a shared weight once"
        )
    fresh = case.model(1)
    fresh.load_state_dict(load(data), strict=True)
    gap = difference(case.outputs(model, batch), case.outputs(fresh, batch))
    if gap > 0:
        fail(f"outputs differ by {gap:.2g} after saving and loading: keep everything that matters in the state dict")
    return f"{len(data) / 2**20:.1f} MiB; outputs are equal after saving and loading"


def _memory(case: Case) -> str:
    """Memory is affine in the batch."""
    from bench.engine.live_bytes import peak_live_bytes

    def peak(batch_size: int) -> int:
        model, batch = case.model().train(), case.batch(0, batch_size)
        # Gradients are there from now on: made anew, they would hide the samples of a small batch.
        case.loss(model, batch).backward()
        return peak_live_bytes(lambda: case.loss(model, batch).backward())

    peaks = [(case.memory or peak)(size) for size in MEMORY_BATCHES]
    slopes = [
        (more - less) / (large - small)
        for (less, more), (small, large) in zip(pairwise(peaks), pairwise(MEMORY_BATCHES), strict=True)
    ]
    first, second = slopes
    line = ", ".join(f"{n}: {peak / 2**20:.1f} MiB" for n, peak in zip(MEMORY_BATCHES, peaks, strict=True))
    if abs(second - first) > AFFINE_TOLERANCE * max(abs(second), abs(first)):
        fail(f"memory is not affine in the batch ({line}): nothing may grow with the square of the batch")
    return f"a sample takes {second / 2**20:.2f} MiB ({line})"


def _flops(case: Case) -> str:
    """Both counters and the closed form agree."""
    from bench.engine.flops import triangulate

    if not callable(getattr(case.model(), "flops", None)):
        fail("flops() is missing: write flops(self, batch) -> int, the forward's matrix products and attention in closed "
              "form, 2 FLOPs per multiply-add (a Linear of weight W on n rows: 2 * n * W.numel())")  # fmt: skip
    torch.manual_seed(0)
    report = triangulate(case.build, case.task.transfer(case.host_batch(), torch.device("cpu")), case.task.input_fields)
    return f"{report.forward_per_sample:.4g} forward FLOPs per sample, three ways"


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


CHECKS: tuple[tuple[str, Callable[[Case], str], bool], ...] = (
    ("signature", _signature, False),
    ("forward and loss", _forward, True),
    ("inputs unchanged", _inputs_unchanged, False),
    ("gradients", _gradients, False),
    ("bf16", _bfloat16, False),
    ("always finite", _always_finite, False),
    ("targets unseen", _targets_unseen, False),
    ("symmetries", _symmetries, False),
    ("samples apart", _samples_apart, False),
    ("later frames unseen", _causal, False),
    ("deterministic", _deterministic, False),
    ("seeds", _seeds, False),
    ("A/A tie", _tie, False),
    ("state dict", _state_dict, False),
    ("affine memory", _memory, False),
    ("FLOPs", _flops, False),
)
"""Name, function and whether nothing else can be judged where it fails."""
