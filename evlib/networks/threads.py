"""Threads: PyTorch works in one thread inside of evlib, unless the caller chose a number.

The networks here are small, and the threads of a small operation wait for each other longer than they work; on a busy
machine they wait longer still. A caller chooses another number beforehand:

- by the environment variable ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS``, with any value;
- by ``torch.set_num_threads`` with a number that is not PyTorch's default. The default is the number of cores, or half
  of it where a core counts as two; to ask for just that number, set the environment variable.

Afterwards PyTorch has as many threads as before.
"""

import contextlib
import os

import torch

# Either of these in the environment is a choice of the caller.
CHOICES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def few_threads():
    """PyTorch works in one thread, or in as many as the caller chose; as a ``with`` block or a decorator."""
    before = torch.get_num_threads()
    cores = {os.cpu_count() or 1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1}
    chosen = any(os.environ.get(name) for name in CHOICES) or not cores & {before, 2 * before}
    torch.set_num_threads(before if chosen else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
