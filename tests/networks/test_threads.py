"""Threads: one inside of evlib, or as many as the caller chose, and afterwards as many as before."""

import os

import numpy as np
import pytest
import torch

from evlib.networks import threads
from evlib.networks.classifier import evaluating
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


@pytest.mark.parametrize("own", [CORES, CORES // 2])
def test_one_thread_where_nobody_chose(machine, own):
    torch.set_num_threads(own)
    with few_threads():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == own


@pytest.mark.parametrize("chosen", [1, 2, 4, 5])
def test_a_number_that_the_caller_set_holds(machine, chosen):
    torch.set_num_threads(chosen)
    with few_threads():
        assert torch.get_num_threads() == chosen
    assert torch.get_num_threads() == chosen


@pytest.mark.parametrize("name", threads.CHOICES)
def test_the_environment_holds_whatever_it_says(machine, name):
    machine.setenv(name, str(CORES))
    with few_threads():
        assert torch.get_num_threads() == CORES
    assert torch.get_num_threads() == CORES


def test_blocks_inside_of_blocks(machine):
    with few_threads():
        with few_threads():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == CORES


def test_an_error_gives_the_threads_back(machine):
    with pytest.raises(ZeroDivisionError), few_threads():
        raise ZeroDivisionError
    assert torch.get_num_threads() == CORES


def test_as_a_decorator_each_call_has_its_own_block(machine):
    @few_threads()
    def count(depth):
        return [torch.get_num_threads()] + (count(depth - 1) if depth else [])

    for _ in range(2):
        assert count(2) == [1, 1, 1] and torch.get_num_threads() == CORES


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


def test_a_model_that_is_asked_works_in_one_thread(machine):
    with evaluating(torch.nn.Linear(1, 1)) as model:
        model(torch.from_numpy(np.ones((1, 1), np.float32)))
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == CORES
