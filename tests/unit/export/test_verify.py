"""Verification: what it accepts and what it refuses."""

import numpy as np
import pytest

from crosseai.contract import ContractError
from crosseai.export.verify import Parity, require, sample_images


def test_an_error_within_tolerance_or_near_that_of_pytorch_holds():
    assert Parity("logits", error=1e-6, eager_error=1e-7, tolerance=2e-5).holds
    assert Parity("input_gradients", error=1e-3, eager_error=9e-4, tolerance=5e-4).holds
    assert not Parity("input_gradients", error=3e-3, eager_error=9e-4, tolerance=5e-4).holds
    assert not Parity("logits", error=float("nan"), eager_error=0.0, tolerance=2e-5).holds


def test_every_failed_output_is_listed():
    failed = [Parity(name, error=0.5, eager_error=0.0, tolerance=0.1) for name in ("logits", "heatmaps")]
    with pytest.raises(ContractError, match=r"logits: expected <= 0\.1, found 0\.5; heatmaps"):
        require([*failed, Parity("activations", 0.0, 0.0, 0.1)])
    require([])


def test_sample_images_fill_the_gray_range_and_are_nowhere_constant():
    images = sample_images(64, 3)
    assert images.shape == (3, 1, 64, 64)
    assert images.dtype == np.uint8
    assert len(np.unique(images)) > 150
    windows = np.lib.stride_tricks.sliding_window_view(images, (4, 4), axis=(2, 3))
    assert (windows.max((-1, -2)) > windows.min((-1, -2))).all()
    assert np.array_equal(images, sample_images(64, 3))
