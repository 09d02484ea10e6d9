"""Which kinds of events look alike: pairs of templates that noise can mistake for each other."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from .errors import OptionError


@dataclass(frozen=True)
class LookAlike:
    """Two kinds: their similarity (1: the same), and the chance that noise makes one of the first look like the second."""

    name: str
    other: str
    similarity: float
    chance: float

    def __str__(self):
        share = f"{100 * self.chance:.2g} %" if self.chance < 0.1 else f"{100 * self.chance:.0f} %"
        return f"{self.name} looks like {self.other}: similarity {self.similarity:.2f}, noise alone mistakes {share} of them"


def look_alikes(bank, least_chance=0.01):
    """Pairs of kinds that are mistaken for each other, the worst first.

    Both kinds are put where they are most alike, and an event of mean size is judged as the bank judges it, size
    included: the difference in evidence is on average D and scatters, through noise alone, with a standard deviation S;
    the event is mistaken with a chance of Phi(-D / S).

    Parameters
    ----------
    bank : TemplateBank
    least_chance : 0 < p < 0.5; pairs below are left out

    Returns
    -------
    list of LookAlike

    Examples
    --------
    >>> from evlib.templates import TemplateBank
    >>> shapes = np.array([[[3.0], [0.0], [4.0]], [[3.0], [1.0], [4.0]], [[0.0], [90.0], [0.0]]])
    >>> for pair in look_alikes(TemplateBank(shapes, 0, ("heel", "toe", "clap"))):
    ...     print(pair)
    toe looks like heel: similarity 0.98, noise alone mistakes 31 % of them
    heel looks like toe: similarity 0.98, noise alone mistakes 31 % of them
    """
    if not (isinstance(least_chance, (int, float)) and 0 < least_chance < 0.5):
        raise OptionError(f"least_chance must be a probability between 0 and 0.5, got {least_chance!r} (percent?)")
    similarity = np.clip(bank.similarity(), -1, 1).astype(np.float64)
    norm = bank.norm
    score = similarity * norm[:, None]  # of kind b (columns) in an event of kind a (rows)
    own = bank.log_likelihood_ratio(norm.astype(np.float32))
    lead = own[:, None] - bank.log_likelihood_ratio(score.astype(np.float32))
    # How evidence answers to a small change of the score, for kind b and for a itself.
    slope = score - (score - norm) / (1 + (bank.amplitude_spread * norm) ** 2)
    scatter = np.sqrt(np.maximum(slope**2 + norm[:, None] ** 2 - 2 * similarity * slope * norm[:, None], 1e-12))
    chance = ndtr(-lead / scatter)
    np.fill_diagonal(chance, 0)
    first, second = np.nonzero(chance >= least_chance)
    order = np.argsort(-chance[first, second], kind="stable")
    names = bank.names
    return [
        LookAlike(names[a], names[b], float(similarity[a, b]), float(chance[a, b]))
        for a, b in zip(first[order], second[order], strict=True)
    ]
