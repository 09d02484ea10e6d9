"""Threads: one inside of evlib, or as many as the caller chose, and afterwards as many as before."""

import os

import pytest
import torch

from evlib.networks import threads
from evlib.networks.threads import few_threads

CORES = 6


@pytest.fixture
def machine(monkeypatch):
    """A machine with six cores where nobody chose anything."""
    before = torch.get_num_threads()
    for name in threads.CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: CORES)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(CORES)), raising=False)
    torch.set_num_threads(CORES)
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.mark.parametrize(("set_to", "inside"), [(CORES, 1), (CORES // 2, 1), (1, 1), (2, 2), (4, 4), (5, 5)])
def test_one_thread_unless_the_caller_set_a_number(machine, set_to, inside):
    torch.set_num_threads(set_to)
    with pytest.raises(ZeroDivisionError), few_threads():
        with few_threads():
            assert torch.get_num_threads() == inside
        assert torch.get_num_threads() == inside
        raise ZeroDivisionError
    assert torch.get_num_threads() == set_to


@pytest.mark.parametrize(("name", "inside"), [(None, 1), *((name, CORES) for name in threads.CHOICES)])
def test_a_number_in_the_environment_holds_in_every_call_of_a_decorated_function(machine, name, inside):
    @few_threads()
    def count(depth):
        return [torch.get_num_threads()] + (count(depth - 1) if depth else [])

    if name:
        machine.setenv(name, str(CORES))
    for _ in range(2):
        assert count(2) == [inside] * 3 and torch.get_num_threads() == CORES


def test_a_detector_is_trained_and_used_in_one_thread(machine):
    """Seen from inside of the network, in training and in detection."""
    import evlib
    from evlib.networks.context import ContextLSTM

    seen, forward = [], ContextLSTM.forward

    def watched(self, *inputs):
        seen.append(torch.get_num_threads())
        return forward(self, *inputs)

    machine.setattr(ContextLSTM, "forward", watched)
    simulation = evlib.make_recording(duration_s=6.0, seed=1)
    detector = evlib.fit(
        [(simulation.recording, simulation.events)], "lstm", max_epochs=1, hidden_size=8, progress=False
    )
    n_training = len(seen)
    evlib.detect(detector, simulation.recording)
    assert len(seen) > n_training > 10 and set(seen) == {1}
    assert torch.get_num_threads() == CORES
