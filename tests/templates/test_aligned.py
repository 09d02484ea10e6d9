"""Single events, cut out of a recording."""

import numpy as np
from planted import BEFORE, LENGTH, RATE, make_bank, make_templates, plant

from evlib.signals.recording import Recording
from evlib.templates.bank import cut_snippets
from evlib.templates.waveforms import read_snippets, subtract_template


def identity(recording, start, stop):
    return recording.read(start, stop)


def test_snippets_read_piecewise_equal_those_of_the_whole(rng):
    signal = rng.standard_normal((200_000, 2)).astype(np.float32)
    time = np.sort(np.r_[rng.uniform(0, 200_000, 40), 3.2, 199_990.7, rng.uniform(0, 9000, 20)])
    found = read_snippets(identity, Recording(signal, RATE), time, 20, 90)
    assert found.shape == (62, 90, 2)
    assert np.allclose(found, cut_snippets(signal, time, 20, 90), atol=1e-5)
    assert read_snippets(identity, Recording(signal, RATE), [], 20, 90).shape == (0, 90, 2)


def test_little_is_read_for_few_events():
    read = []

    def whitener(recording, start, stop):
        read.append(stop - start)
        return np.zeros((stop - start, 1), np.float32)

    read_snippets(whitener, Recording(np.zeros((2_000_000, 1)), RATE), [1000.0, 900_000.0, 901_000.0], 20, 100)
    assert len(read) == 2 and sum(read) < 2000


def test_an_event_without_its_template_is_noise(rng):
    templates = make_templates(1, 3, RATE, seed=3)
    bank = make_bank(templates)
    signal = plant(templates, [500.0, 1500.0], [0, 0], [15.0, 30.0], 2500)
    pieces = cut_snippets(signal, np.array([500.0, 1500.0]), BEFORE, LENGTH)
    assert np.abs(pieces).max() > 1
    assert np.abs(subtract_template(pieces, bank.templates[0])).max() < 1e-3
