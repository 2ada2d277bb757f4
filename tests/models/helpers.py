"""Random scenes for the view-synthesis architectures."""

import torch


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
