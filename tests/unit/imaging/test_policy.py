"""What a caller may ask for."""

from typing import Any

import pytest

from crosseai.contract import InputError
from crosseai.imaging import ReadPolicy


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"views": ("pa",)}, "views: expected capital letters .*, found 'pa'"),
        ({"views": ("",)}, "views: expected capital letters"),
        ({"window": 0}, "window: expected a number from 1, found 0"),
        ({"max_pixels": 0}, "max_pixels: expected at least 1, found 0"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReadPolicy(**values)


def test_the_largest_accepted_image_fits_into_the_largest_file() -> None:
    policy = ReadPolicy()
    assert policy.max_file_bytes > 2 * policy.max_pixels
