"""Draws: whoever holds the generator draws as if alone, and fits in threads are those of fits one after another."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import evlib
from evlib.networks.seeds import seeded


def test_the_global_generator_goes_on_where_it_was():
    torch.manual_seed(7)
    wanted = torch.rand(5)
    torch.manual_seed(7)
    with seeded(1), seeded(2, gpu=False):
        torch.rand(100)
    with pytest.raises(RuntimeError), seeded(3):
        torch.rand(1)
        raise RuntimeError
    assert torch.equal(torch.rand(5), wanted)


def test_threads_draw_as_if_alone():
    def draw(seed):
        with seeded(seed):
            parts = []
            for _ in range(20):
                parts.append(torch.rand(3))
                time.sleep(0.0005)
        return torch.cat(parts)

    alone = [draw(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, alone, pool.map(draw, range(4))))


slow = [pytest.param(method, marks=pytest.mark.slow) for method in ("lstm", "frames")]


@pytest.mark.parametrize("method", ["matched_filter", *slow])
def test_fits_in_threads_are_those_of_one_after_another(method):
    made = [evlib.make_recording(duration_s=8.0, seed=seed) for seed in (1, 2)]
    options = {"method": method, "progress": False}
    if method != "matched_filter":
        options["max_epochs"] = 1

    def fit(simulation):
        return evlib.fit([(simulation.recording, simulation.events)], **options)

    alone = [fit(simulation) for simulation in made]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(fit, made))
    assert torch.equal(before, torch.get_rng_state()) and threading.active_count() < 20
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.bank.templates, other.bank.templates)
        assert np.array_equal(one.thresholds, other.thresholds) and one.weights == other.weights
        for name in ("network", "frames"):
            if (network := getattr(one, name)) is not None:
                state = getattr(other, name).state_dict()
                assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
