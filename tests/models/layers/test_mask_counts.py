from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.layers.mask_counts import mask_counts


@pytest.mark.parametrize(
    ("tokens", "mask_ratio", "prediction_ratio", "expected"),
    [
        (196, 0.75, None, (49, 0, 147)),
        (196, 0.75, 0.25, (49, 98, 49)),
        (100, 0.9, None, (10, 0, 90)),  # int(100 * (1 - 0.9)) is 9
        (1000, 0.9, None, (100, 0, 900)),  # int(1000 * (1 - 0.9)) is 99
        (100, 0.7, 0.6, (30, 10, 60)),  # int(100 * (0.7 - 0.6)) is 9
        (10, 0.9, 0.6, (1, 3, 6)),
        (94, 0.75, None, (23, 0, 71)),
        (7, 0.5, 0.3, (3, 1, 3)),
    ],
)
def test_counts(tokens, mask_ratio, prediction_ratio, expected):
    assert mask_counts(tokens, mask_ratio, prediction_ratio) == expected


@given(tokens=st.integers(1, 5000), masked=st.integers(1, 999), share=st.integers(1, 999))
def test_counts_are_the_floors_of_the_decimal_numbers(tokens, masked, share):
    share = min(share, masked)
    kept, ignored = tokens * (1000 - masked) // 1000, tokens * (masked - share) // 1000
    if kept == 0 or kept + ignored == tokens:
        with pytest.raises(ValueError, match="none of"):
            mask_counts(tokens, masked / 1000, share / 1000)
    else:
        assert mask_counts(tokens, masked / 1000, share / 1000) == (kept, ignored, tokens - kept - ignored)


@given(tokens=st.integers(1, 10**6), mask_ratio=st.floats(1e-6, 0.999999))
def test_floats_count_as_the_number_that_they_print(tokens, mask_ratio):
    exact = tokens * (1 - Decimal(str(mask_ratio)))
    if exact >= 1:
        assert mask_counts(tokens, mask_ratio).kept == int(exact)


@pytest.mark.parametrize(
    ("tokens", "mask_ratio", "prediction_ratio", "message"),
    [
        (16, 0, None, "mask_ratio must be a number between 0 and 1, got 0"),
        (16, 1.0, None, "mask_ratio must be a number between 0 and 1, got 1.0"),
        (16, True, None, "got True"),
        (16, "0.75", None, "got '0.75'"),
        (16, float("nan"), None, "got nan"),
        (16, 0.75, 0.8, "prediction_ratio must be a number above 0 and at most mask_ratio 0.75, got 0.8"),
        (16, 0.75, 0, "at most mask_ratio 0.75, got 0"),
        (16, 0.99, None, "mask_ratio 0.99 keeps none of 16 tokens: lower it"),
        (100, 0.75, 1e-9, None),
    ],
)
def test_what_cannot_be_is_refused(tokens, mask_ratio, prediction_ratio, message):
    if message is None:
        assert mask_counts(tokens, mask_ratio, prediction_ratio).predicted == 1
        return
    with pytest.raises(ValueError, match=message):
        mask_counts(tokens, mask_ratio, prediction_ratio)
