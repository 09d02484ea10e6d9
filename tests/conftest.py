"""What all tests share: no display, few threads, and a watch over global random state."""

import os
import socket
from pathlib import Path

# Before NumPy, PyTorch or matplotlib are imported, in this process and in every kernel it starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import numpy as np
import pytest
from required import missing

hypothesis.settings.register_profile("evlib", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("evlib")

REPOSITORY = Path(__file__).resolve().parents[1]
# The fixtures of tests in a real browser.
pytest_plugins = ["browser"]


@pytest.fixture(scope="session")
def repository():
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture
def rng():
    """A fresh generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data_home():
    """The folder of real recordings; without one the test is skipped."""
    from evlib.workbook import data_home

    folder = data_home()
    return folder or missing("data", "set EVLIB_DATA_HOME to a folder of real recordings to run this test")


@pytest.fixture(autouse=True)
def _global_random_state_is_untouched():
    """evlib draws only from generators that it was given or has seeded itself."""
    before = np.random.get_state()  # noqa: NPY002
    yield
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(before[1], after[1]) and before[2] == after[2], "a draw came from NumPy's global generator"


@pytest.fixture
def offline(monkeypatch):
    """Whoever asks the network fails."""

    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
