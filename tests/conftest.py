"""Fixtures shared by all suites."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("crosseai", deadline=None)  # a busy machine is no failure
settings.load_profile("crosseai")

# What started the tests may ignore these (a background job, nohup), and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real radiographs and weights beside the checkout."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real radiographs are not at hand: {folder} does not exist")
    return folder
