"""Random scenes for the view-synthesis architectures."""

import torch

from baselines.lvsm import LVSMDecoderOnly
from baselines.lvsm_encoder_decoder import LVSMEncoderDecoder
from models.efficient_lvsm import EfficientLVSM

SMALL = {"width": 64, "head_dim": 32, "patch_size": 8}

VARIANTS = {
    "lvsm-decoder-only": (LVSMDecoderOnly, {"layers": 2}),
    "lvsm-encoder-decoder": (LVSMEncoderDecoder, {"encoder_layers": 2, "decoder_layers": 2, "latents": 24}),
    "efficient-lvsm": (EfficientLVSM, {"layers": 2}),
    **{
        f"efficient-lvsm {name}": (EfficientLVSM, {"layers": 2, **options})
        for name, options in {
            "encode-first": {"input_update": "encode-first"},
            "ffn": {"input_update": "ffn", "log_scale": "fixed"},
            "static": {"input_update": "none", "input_rgb": False},
            "cross": {"target_block": "cross", "registers": 3, "log_scale": "learned"},
            "static cross": {"target_block": "cross", "input_update": "none", "extra_encoder_layers": 1},
            "extra encoder": {"extra_encoder_layers": 2, "registers": 2},
            "global": {"input_scope": "global", "log_scale": "learned", "registers": 1},
            "global encode-first": {"input_scope": "global", "input_update": "encode-first"},
            "global ffn": {"input_scope": "global", "input_update": "ffn", "extra_encoder_layers": 1},
            "shared": {"shared_weights": True, "log_scale": "fixed", "train_input_views": 5},
            "shared global": {"shared_weights": True, "input_scope": "global"},
        }.items()
    },
}
"""Name -> class and the options that its tests use beside `SMALL`: every option of every family, and how they meet."""


def build(variant, **options):
    """A small model of a variant, with weights that all matter."""
    cls, own = VARIANTS[variant]
    return randomise(cls(cls.config_class(**{**SMALL, **own, **options})))


def select(batch, kind, index):
    """The batch with only some of its ``input`` or ``target`` views."""
    return {key: value[:, index] if key.startswith(kind) else value for key, value in batch.items()}


def random_cameras(generator, scenes, views, size):
    """Random rotations and positions, and slightly different intrinsics for each view."""
    rotation, _ = torch.linalg.qr(torch.randn(scenes, views, 3, 3, generator=generator))
    c2w = torch.eye(4).repeat(scenes, views, 1, 1)
    c2w[..., :3, :3] = rotation * torch.linalg.det(rotation)[..., None, None]
    c2w[..., :3, 3] = torch.rand(scenes, views, 3, generator=generator) * 2 - 1
    height, width = size
    intrinsics = torch.tensor([width * 1.1, height * 1.2, width / 2, height / 2]).repeat(scenes, views, 1)
    return c2w, intrinsics + torch.rand(scenes, views, 4, generator=generator)


def random_batch(scenes=2, input_views=2, target_views=2, size=(16, 16), seed=0):
    """The five input fields of `nvs`."""
    generator = torch.Generator().manual_seed(seed)
    input_c2w, input_intrinsics = random_cameras(generator, scenes, input_views, size)
    target_c2w, target_intrinsics = random_cameras(generator, scenes, target_views, size)
    return {
        "input_images": torch.rand(scenes, input_views, 3, *size, generator=generator),
        "input_c2w": input_c2w,
        "input_intrinsics": input_intrinsics,
        "target_c2w": target_c2w,
        "target_intrinsics": target_intrinsics,
    }


def meta_batch(scenes, input_views, target_views, size):
    """The same fields without data, for counting."""
    with torch.device("meta"):
        return {
            "input_images": torch.empty(scenes, input_views, 3, *size),
            "input_c2w": torch.empty(scenes, input_views, 4, 4),
            "input_intrinsics": torch.empty(scenes, input_views, 4),
            "target_c2w": torch.empty(scenes, target_views, 4, 4),
            "target_intrinsics": torch.empty(scenes, target_views, 4),
        }


def randomise(model, seed=0):
    """Give every weight, norms included, a value that matters, so that no test passes on a weight that does nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim == 1 else parameter.shape[1] ** -0.5
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(1 + noise if parameter.ndim == 1 else noise)
    return model
