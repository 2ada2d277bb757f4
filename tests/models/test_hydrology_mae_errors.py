"""Wrong options and fields of the hydrology model are named."""

import re

import pytest
import torch

from models.hydrology_mae import HydrologyMAEConfig
from tests.models.hydrology_batches import WEIGHTED, build, ragged_batch, random_batch


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"decoder": "self", "decoder_self_attention": True}, "decoder_self_attention needs decoder 'cross', got 'self'"),
        ({"decoder": "self", **WEIGHTED}, "weighted_feature_maps needs decoder 'cross'"),
        ({"decoder": "self", "prediction_ratio": 0.25}, "prediction_ratio needs decoder 'cross', got 'self': set decoder: cross, or prediction_ratio: null"),
        ({"use_input": True}, "use_input needs weighted_feature_maps: set"),
        ({"feature_layers": (1,)}, "feature_layers needs weighted_feature_maps: set"),
        ({**WEIGHTED, "feature_layers": (4,)}, "feature_layers must lie in -4..3, for the shallowest encoder has 4 blocks"),
        ({**WEIGHTED, "feature_layers": ()}, "feature_layers must be a list of block numbers"),
        ({**WEIGHTED, "feature_layers": (0, -4)}, "feature_layers must name each block once"),
        ({"prediction_ratio": 0}, "prediction_ratio must be above 0 and at most 1"),
        ({"prediction_ratio": 1.5}, "prediction_ratio must be above 0 and at most 1"),
        ({"width": 100}, "width must be a multiple of 4 and of its 8 heads, got 100: try"),
        ({"decoder_width": 130}, "decoder_width must be a multiple of 4 and of its 8 heads, got 130: try 128"),
        ({"image_modalities": 0, "series_modalities": 0}, "image_modalities and series_modalities are both 0"),
        ({"encoder": "both"}, "encoder must be one of separate, shared"),
        ({"decoder": "pooled"}, "decoder must be one of cross, self"),
        ({"ragged": "nested"}, "ragged must be one of auto, padded, packed, varlen"),
        ({"layers": 0}, "layers must be an integer >= 1"),
        ({"calendar": "yes"}, "calendar must be true or false"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(options, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        HydrologyMAEConfig(**options)


def test_a_list_from_a_file_will_do():
    assert HydrologyMAEConfig(**WEIGHTED, feature_layers=[0, -1]).feature_layers == (0, -1)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"statics": None}, "statics must be given, [B, 3], for a model with 2 image and 2 series modalities"),
        ({"image_values": torch.zeros(3, 2, 11, 5)}, "image_values must be [B, 2, V, 6], got [3, 2, 11, 5]"),
        ({"image_visible": torch.zeros(3, 2, 9)}, "image_visible must be [B, 2, V], got [3, 2, 9]"),
        ({"series_predicted": torch.zeros(3, 1, 3)}, "series_predicted must be [B, 2, Ms], got [3, 1, 3]"),
        ({"series_visible_mask": torch.zeros(1, 2, 2)}, "series_visible_mask must be [B, 2, Vs], got [1, 2, 2]"),
        ({"image_targets": torch.zeros(3)}, "image_targets is no field that this model reads"),
    ],
)
def test_a_wrong_field_is_named(change, line):
    model = build()
    batch = {**random_batch(model.config), **change}
    with pytest.raises(ValueError, match=re.escape(line)):
        model(**{name: value for name, value in batch.items() if value is not None})


def test_packed_attention_that_cannot_be_had_is_refused():
    model = build(ragged="varlen")
    with pytest.raises(
        ValueError, match=re.escape("ragged 'varlen' cannot be had here, it needs a CUDA device, got cpu")
    ):
        model(**ragged_batch(model.config))
    model(**random_batch(model.config))  # without padding there is nothing to pack
