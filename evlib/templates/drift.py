"""Templates that drift: metal warms, a sensor slips, and events slowly look otherwise than in training.

What is surely an event says what its type looks like by now. The averages of the last minutes, in which older events
count less and less, show how far each template has moved; what chance explains of that is left out, so that templates
stay as they are where nothing drifts. Types that are rare follow slowly. Templates change their shape, not their
norm: detections are the stronger ones among the events, and other things that look alike, and their mean strength would
pull the norm wherever the threshold lies.
"""

from dataclasses import replace

import numpy as np
from scipy.special import expit

from .bank import TemplateBank, average_snippets, shrink_templates
from .learn import PRIOR_LOGIT
from .overlaps import cut_apart
from .pursue import Candidates

# Seconds of signal after which templates may move, and after which what was seen counts 1 / e.
STRETCH_S, MEMORY_S = 60.0, 120.0
# Templates move when the moves have this share of their energy: less changes no event.
LEAST_MOVE = 0.002
# A detection counts by the probability that it is an event, but not with less than this.
LEAST_WEIGHT = 0.05
# A detection is no example where more energy is left around it than noise has, by so many standard deviations, and more
# than this share of its own: something else happened there.
MISFIT, UNEXPLAINED = 3.0, 0.3
# Averages are brought to the strength of the templates; weaker ones than this share of it are not amplified further.
LEAST_STRENGTH = 0.3
# What is known of each type: weighted sums of its events, of their weights, of squared weights, and of energies.
SUMS = ("total", "weight", "square", "energy")


class DriftingTemplates:
    """A template bank that follows slow changes of what events look like.

    Parameters
    ----------
    bank : TemplateBank, of the first stretch
    rate : samples per second
    grid : templates move at multiples of ``stretch`` samples, which is a multiple of ``grid``

    Attributes
    ----------
    bank : TemplateBank, as events look by now
    first : TemplateBank, of the first stretch
    """

    def __init__(self, bank: TemplateBank, rate: float, grid: int = 1):
        self.first, self.bank, self.stretch = bank, bank, -int(-STRETCH_S * rate // grid) * grid
        self.total, self.weight = np.zeros(bank.templates.shape), np.zeros(len(bank.names))
        self.square, self.energy = self.weight.copy(), self.weight.copy()

    def next_move(self, start: int) -> int:
        """The sample behind ``start`` at which templates may move."""
        return (start // self.stretch + 1) * self.stretch

    def note(self, whitened: np.ndarray, low: int, found: Candidates, start: int, stop: int) -> None:
        """Learn from the events in samples [start, stop), no move between them; at the next move templates follow.

        Parameters
        ----------
        whitened : (n, C) signal from sample ``low`` on, with the neighbours of those events
        found : all Candidates in it
        start, stop : samples; the next call goes on at ``stop``
        """
        explained = found[found.is_explained].shift(-low)
        weight = expit(explained.llr - PRIOR_LOGIT) * (explained.margin > 0)
        weight *= self.bank.unexplained(explained.misfit, explained.amplitude, explained.type, MISFIT) < UNEXPLAINED
        # Where a channel is hidden, or the signal ends, an event is no example of its type.
        first = np.floor(explained.time).astype(int) - self.bank.before
        hidden = np.r_[0, np.cumsum((whitened == 0).any(axis=1))]
        edges = np.clip([first, first + self.bank.length + 1], 0, len(whitened))
        whole = (edges[1] - edges[0] == self.bank.length + 1) & (hidden[edges[1]] == hidden[edges[0]])
        here = (explained.time >= start - low - 0.5) & (explained.time < stop - low - 0.5)
        rows = np.flatnonzero(here & whole & (weight > LEAST_WEIGHT))
        if len(rows):
            columns = explained.time, explained.type, explained.amplitude
            pieces, type, weight = cut_apart(self.bank, whitened, *columns)[rows], explained.type[rows], weight[rows]
            n_types = len(self.bank.names)
            mean, _ = average_snippets(pieces, type, weight, n_types)
            count = np.bincount(type, weight, n_types)
            self.total += mean * count[:, None, None]
            self.weight += count
            self.square += np.bincount(type, weight**2, n_types)
            self.energy += np.bincount(type, weight * np.square(pieces, dtype=np.float64).sum((1, 2)), n_types)
        if stop % self.stretch == 0:
            self._move()

    def moves(self) -> np.ndarray:
        """How far the templates are from what was seen, as far as chance does not explain it, (E, L, C)."""
        known, templates = self.weight > 1, self.bank.templates
        if not known.any():
            return np.zeros(templates.shape)
        weight = np.maximum(self.weight, 1.0)
        mean = np.where(known[:, None, None], self.total / weight[:, None, None], templates)
        # Events that vary in shape scatter more than noise does: their average is worth less.
        scatter = (self.energy / weight - (mean**2).sum((1, 2))) / templates[0].size
        worth = np.where(known, weight**2 / np.maximum(self.square, 1e-12) / np.maximum(scatter, 1.0), 0.0)
        strength = np.maximum((mean * templates).sum((1, 2)) / self.bank.norm**2, LEAST_STRENGTH)
        return shrink_templates(mean / strength[:, None, None] - templates, worth * strength**2)

    def share(self) -> float:
        """How far events are from the first templates, as a share of the energy of these: 0 where they are alike."""
        far = self.bank.templates + self.moves() - self.first.templates
        return float((far**2).sum() / max((self.first.templates**2).sum(), 1e-12))

    def _move(self):
        """Put the templates where the averages are; forget a little."""
        moves = self.moves()
        if (moves**2).sum() > LEAST_MOVE * (self.bank.templates**2).sum():
            shapes = replace(self.bank, templates=self.bank.templates + moves).shapes
            self.bank = replace(self.bank, templates=shapes * self.first.norm[:, None, None])
        for name in SUMS:
            setattr(self, name, np.exp(-STRETCH_S / MEMORY_S) * getattr(self, name))

    def state(self) -> dict:
        """What `restore` needs to go on: arrays."""
        return {name: getattr(self, name).copy() for name in SUMS} | {"templates": self.bank.templates}

    def restore(self, state) -> None:
        """Go on where `state` was taken."""
        self.bank = replace(self.bank, templates=np.asarray(state["templates"]))
        vars(self).update({name: np.array(state[name]) for name in SUMS})
