"""Seeds: the layers of PyTorch draw their weights and their dropout from one generator for the whole process.

Whoever needs certain draws holds it alone, and leaves it as it was: what one thread trains does not depend on what
others do.
"""

import contextlib
import os
import threading

import torch

_HELD = threading.RLock()


@contextlib.contextmanager
def seeded(seed: int, gpu: bool = True):
    """Draw from PyTorch's global generator as if it began with ``seed``; as a ``with`` block or a decorator.

    Other threads of evlib wait for their turn, and the global generator goes on where it was. ``gpu=False`` leaves
    those of GPUs alone.

    >>> with seeded(0):
    ...     first = torch.rand(1)
    >>> with seeded(0):
    ...     bool(torch.rand(1) == first)
    True
    """
    devices = range(torch.cuda.device_count()) if gpu else ()
    with _HELD, torch.random.fork_rng(devices):
        # Not torch.manual_seed where the GPU is left alone: that would seed it too.
        torch.manual_seed(seed) if gpu else torch.default_generator.manual_seed(seed)
        yield


def _let_go():
    """A process that was forked while another thread held the generator has one that nobody holds."""
    global _HELD
    _HELD = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
