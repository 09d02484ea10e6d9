"""Events that overlap, separated where it is known when they happen.

An average of snippets holds, beside its own type, whatever often happens at the same distance: of bells in rounds, the
bells before and after. Least squares over all events at once leaves to each type what no other explains.

Source: overlap-corrected averages, e.g. Smith and Kutas, Psychophysiology 52 (2015), 169-181.
"""

import numpy as np

from .bank import TemplateBank, average_snippets, cut_all, cut_snippets

# Conjugate gradients end after this many steps, or when this share of the energy is left to be explained. What is not
# settled by then is shared by types that these events cannot separate.
STEPS, SETTLED = 12, 1e-4
# Least samples of signal for each sample of all templates together: with hardly more, templates would explain noise.
LEAST_KNOWN = 2.0


def are_apart(times, length):
    """Whether all events, ``times`` (samples) of each recording, lie at least ``length`` samples from one another."""
    return all(len(time) < 2 or np.diff(np.sort(time)).min() >= length for time in times)


def can_separate(signals, times, types, length):
    """Whether events mostly overlap, and their signal is long enough to separate templates of ``length`` samples.

    ``signals``, ``times``, ``types`` as in :func:`separate_templates`. Half of the events must begin less than
    ``length`` after another.
    """
    gaps = np.concatenate([np.diff(np.sort(time)) for time in times])
    known = sum(min(len(signal), len(time) * length) for signal, time in zip(signals, times, strict=True))
    unknown = len(np.unique(np.concatenate(types))) * length
    return len(gaps) > 0 and float(np.median(gaps)) < length and known >= LEAST_KNOWN * unknown


def separate_templates(signals, times, types, amplitudes, n_types, before, length):
    """What each type adds to the signals, (E, length, C), and the number of events behind it, (E,).

    Parameters
    ----------
    signals : whitened, (n, C) each
    times, types, amplitudes : of the known events of each signal, in samples; the mean event has amplitude 1
    n_types : E
    before, length : samples of a template ahead of the event, and in all

    Where no two events overlap this is the mean snippet of each type.

    >>> wave = np.array([[1.0], [2.0], [3.0], [0.0]])
    >>> signal = np.zeros((40, 1))
    >>> for start in (5, 7, 20, 30):  # the second begins before the first has ended
    ...     signal[start : start + 4] += wave
    >>> times, same = np.array([5.0, 7.0, 20.0, 30.0]), np.zeros(4, dtype=int)
    >>> separate_templates([signal], [times], [same], [np.ones(4)], 1, 0, 4)[0][0, :, 0].round(2) + 0.0
    array([1., 2., 3., 0.])
    """
    type, weight = np.concatenate(types), np.concatenate(amplitudes)
    power = np.maximum(np.bincount(type, weight**2, n_types), 1e-12)[:, None, None]

    def project(signals):
        """The mean snippet of each type, weighted by amplitude."""
        mean, worth = average_snippets(cut_all(signals, times, before, length), type, weight, n_types)
        return mean * np.bincount(type, weight, n_types)[:, None, None] / power, worth

    def render(templates):
        bank = TemplateBank(templates, before, range(n_types))
        events = zip(signals, times, types, amplitudes, strict=True)
        return [bank.render(len(signal), *event) for signal, *event in events]

    left, worth = project(signals)
    if are_apart(times, length):
        return left, worth
    # Conjugate gradients for all templates together; ``power`` preconditions them, so that the first step is the mean.
    templates, direction = np.zeros_like(left), left
    energy = first = float((power * left**2).sum())
    for _ in range(STEPS):
        if energy <= SETTLED * first:
            break
        seen, _ = project(render(direction))
        step = energy / float((power * direction * seen).sum())
        templates, left = templates + step * direction, left - step * seen
        energy, last = float((power * left**2).sum()), energy
        direction = left + energy / last * direction
    return templates, worth


def cut_apart(bank, signal, time, type, amplitude, margin=0):
    """Snippets (N, margin + L + margin, C) of events, each without what the bank explains as the others."""
    before, length = bank.before + margin, bank.length + 2 * margin
    if are_apart([time], length):
        return cut_snippets(signal, time, before, length)
    pieces = cut_snippets(signal - bank.render(len(signal), time, type, amplitude), time, before, length)
    pieces[:, margin : margin + bank.length] += amplitude[:, None, None] * bank.templates[type]
    return pieces
