"""Log odds of candidates by templates and their rhythm, one part of a recording after the other.

The context network reads the candidates of a part and of some seconds around it, so that memory is bounded and a live
signal is judged as a recording is. Where it doubts many clear events, now and in the minutes before, the rhythm is not
one that it learned, and the evidence of each event decides alone.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..networks.context import FAR_S, context_features, relative_evidence
from ..networks.threads import few_threads
from .candidates import CERTAIN

# Seconds of a part, and around it that the network reads: by then its LSTM has forgotten where it began (log odds
# differ by less than 0.02).
PART_S, HALO_S = 20.0, 5.0
# Seconds before a part whose clear candidates say, with its own, whether the rhythm is strange.
RECORD_S = 300.0
# Evidence with these log odds is clear; context doubts it where it takes away at least this many. Fewer clear
# candidates than these do not say whether a rhythm is strange.
CLEAR, DOUBTED, FEWEST_CLEAR = 3.0, 0.4, 25


@dataclass
class Rhythm:
    """The context network of a detector on the parts of one recording, in their order.

    ``record`` has a row for each part of the last minutes: its end in seconds, its clear candidates, and how many of
    them context doubted.
    """

    detector: Any
    record: list = field(default_factory=list)

    @property
    def around(self) -> float:
        """Samples on either side of a part in which candidates decide its log odds."""
        return 0.0 if self.detector.network is None else (HALO_S + FAR_S) * self.detector.sampling_rate_hz

    def log_odds(self, candidates, start: float, stop: float):
        """Log odds of the candidates in samples [start, stop): their rows (a slice), log odds (n,), and the share of
        clear events that context doubts where the rhythm is strange, else 0.

        ``candidates`` : sorted by time; those within ``around`` of the part count
        """
        detector = self.detector
        rate, (slope, offset) = detector.sampling_rate_hz, detector.calibration
        halo, reach = HALO_S * rate, FAR_S * rate
        first, last = np.searchsorted(candidates.time, [start, stop])
        low, high = np.searchsorted(candidates.time, [start - halo, stop + halo])
        evidence = slope * (candidates.llr[low:high] - detector.prior_logit) + offset
        own = slice(first - low, last - low)
        if detector.network is None or low == high:
            return slice(first, last), evidence[own], 0.0
        begin, end = np.searchsorted(candidates.time, candidates.time[[low, high - 1]] + [-reach, reach])
        rows = slice(low - begin, high - begin)
        features = context_features(candidates[begin:end], rate, detector.prior_logit, rows)
        llr = relative_evidence(candidates.llr[low:high], detector.prior_logit)
        inputs = features, llr, candidates.type[low:high]
        with few_threads(), torch.inference_mode():
            out = detector.network.eval()(*(torch.from_numpy(value)[None] for value in inputs))
        odds = out[0].numpy().astype(np.float64)
        before = [row for row in self.record if row[0] > start / rate - RECORD_S]
        clear, doubted = np.sum(
            [row[1:] for row in before] + [count_doubted(evidence[own.start :], odds[own.start :])], 0
        )
        self.record = [*before, (stop / rate, *count_doubted(evidence[own], odds[own]))]
        share = doubted / clear if clear >= FEWEST_CLEAR else 0.0
        return slice(first, last), *((evidence[own], share) if share > detector.most_doubted else (odds[own], 0.0))


def count_doubted(evidence: np.ndarray, odds: np.ndarray) -> tuple[int, int]:
    """Number of clear candidates, and of those from which context takes something away."""
    clear = (evidence > CLEAR) & (evidence < CERTAIN)
    return int(clear.sum()), int((clear & (odds < evidence - DOUBTED)).sum())


def doubted_share(evidence: np.ndarray, odds: np.ndarray) -> float:
    """Share of the clear candidates from which context takes something away; 0 where few are clear.

    >>> doubted_share(np.full(60, 5.0), np.repeat([4.0, 7.0], 30))
    0.5
    """
    clear, doubted = count_doubted(evidence, odds)
    return doubted / clear if clear >= FEWEST_CLEAR else 0.0
