"""Threads: PyTorch works in one thread inside of evlib, unless the caller chose a number.

The networks here are small, and the threads of a small operation wait for each other longer than they work; on a
machine that has other things to do as well, they wait longer still. Whoever wants another number says so beforehand:

- the environment variable ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS`` holds, whatever it says;
- so does ``torch.set_num_threads`` with a number that is not PyTorch's own. PyTorch's own is that of the cores, or half
of
  it where a core shows as two; as nothing tells such a number from a choice, it takes the environment variable to ask
  for it.

Afterwards PyTorch has as many threads as before.
"""

import contextlib
import os

import torch

# Any of these in the environment is a choice of the caller's.
CHOICES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def is_chosen():
    """Whether the caller chose how many threads PyTorch uses."""
    own = {os.cpu_count() or 1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1}
    return any(os.environ.get(name) for name in CHOICES) or not own & {
        torch.get_num_threads(),
        2 * torch.get_num_threads(),
    }


@contextlib.contextmanager
def few_threads():
    """PyTorch works in one thread, or in as many as the caller chose; as a ``with`` block or a decorator."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if is_chosen() else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
