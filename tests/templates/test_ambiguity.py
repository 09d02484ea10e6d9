"""Kinds that look alike: the stated chance is what noise really does."""

import numpy as np
import pytest

from evlib.signals.errors import OptionError
from evlib.templates.bank import TemplateBank
from evlib.templates.waveforms import similar_templates


def test_the_stated_chance_is_what_noise_does(rng):
    shape = np.r_[np.zeros(4), [3.0, -2.0, 4.0, 1.0], np.zeros(4)]
    other = shape + np.r_[np.zeros(4), [0.9, 1.1, 0.0, -0.8], np.zeros(4)]
    bank = TemplateBank(np.stack([shape, other])[:, :, None], 0, ("a", "b"))
    first = next(pair for pair in similar_templates(bank) if pair.name == "a")
    noisy = shape + rng.standard_normal((40_000, len(shape)))
    evidence = bank.log_likelihood_ratio((noisy @ bank.shapes[:, :, 0].T).astype(np.float32))
    assert 0.1 < first.chance < 0.4
    assert np.mean(evidence[:, 1] > evidence[:, 0]) == pytest.approx(first.chance, abs=0.02)


def test_the_worst_pair_comes_first_and_strangers_are_left_out():
    shapes = np.zeros((4, 9, 1))
    shapes[0, [2, 5], 0], shapes[1, [2, 5], 0] = [3, 2], [3, 2.1]
    shapes[2, [2, 4], 0] = [3, 2]
    shapes[3, [1, 7, 8], 0] = [40, -40, 40]
    pairs = similar_templates(TemplateBank(shapes, 0, tuple("abcd")), least_chance=0.02)
    assert {pairs[0].name, pairs[0].other} == {"a", "b"}
    assert all("d" not in (pair.name, pair.other) for pair in pairs)
    assert [pair.chance for pair in pairs] == sorted((pair.chance for pair in pairs), reverse=True)
    assert all(pair.chance >= 0.02 for pair in pairs)


@pytest.mark.parametrize("chance", [0, 5, 0.5, "much"])
def test_a_chance_that_is_none_is_refused(chance):
    with pytest.raises(OptionError, match="between 0 and 0.5"):
        similar_templates(TemplateBank(np.ones((1, 3, 1)), 0, ("a",)), chance)
