"""Log odds of candidates by templates and their rhythm, one part of a recording after the other.

The context network reads the candidates of a part and of some seconds around it, so that memory is bounded and a live
signal is judged as a recording is. Where it doubts many clear events, now and in the minutes before, the rhythm is not
one that it learned, and the evidence of each event decides alone.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from ..networks.context import FAR_S, context_features, relative_evidence
from ..networks.threads import few_threads
from ..templates.pursue import Candidates
from .candidates import CERTAIN, weigh

# Seconds of a part, and around it that the network reads: by then its LSTM has forgotten where it began (log odds
# differ by less than 0.02).
PART_S, HALO_S = 20.0, 5.0
# Seconds before a part whose clear candidates say, with its own, whether the rhythm is strange.
RECORD_S = 300.0
# Evidence with these log odds is clear; context doubts it where it takes away at least this many. Fewer clear
# candidates than these do not say whether a rhythm is strange.
CLEAR, DOUBTED, FEWEST_CLEAR = 3.0, 0.4, 25


class Part(NamedTuple):
    """The candidates in samples [start, stop) of a recording, the log odds (n,) of each, and the share of clear ones
    that context doubts where the rhythm is strange, else 0."""

    start: float
    stop: float
    candidates: Candidates
    log_odds: np.ndarray
    doubted: float


@dataclass
class Rhythm:
    """Log odds of the candidates of one recording, part by part, as they are found.

    Parameters
    ----------
    detector : Detector
    known : Candidates that are not judged yet, and those before them that still count
    waits : whether a part waits for the candidates around it; without a context network none has to
    judged : the sample up to which all is judged
    record : a row for each part of the last minutes: its end in seconds, its clear candidates, and how many of them
        context doubted
    """

    detector: Any
    known: Candidates = field(default_factory=Candidates.empty)
    waits: bool = True
    judged: float = -math.inf
    record: list = field(default_factory=list)

    def __post_init__(self):
        self.waits = self.waits and self.detector.network is not None

    @property
    def around(self) -> float:
        """Samples on either side of a part in which candidates decide its log odds."""
        return 0.0 if self.detector.network is None else (HALO_S + FAR_S) * self.detector.sampling_rate_hz

    @property
    def latency(self) -> float:
        """Samples behind a candidate that must be searched before it is judged, at most."""
        return PART_S * self.detector.sampling_rate_hz + self.around if self.waits else 0.0

    def through(self, blocks: Iterable[tuple[float, Candidates]]) -> Iterator[Part]:
        """All parts of a recording, from the candidates of its blocks: (the sample behind a block, Candidates)."""
        for stop, found in blocks:
            yield from self.push(found, stop - 0.5)
        yield from self.judge()

    def push(self, found: Candidates, edge: float = math.inf) -> list[Part]:
        """Take more candidates, and judge what can be now that all before sample ``edge`` are known."""
        self.known = Candidates.concatenate([self.known, found])
        parts = list(self.judge(edge))
        self.known = self.known[self.known.time >= self.judged - self.around - 1]
        return parts

    def judge(self, edge: float = math.inf) -> Iterator[Part]:
        """The parts that can be judged where all candidates before sample ``edge`` are known."""
        detector, known = self.detector, self.known
        # What only the frame network finds has no evidence of templates.
        seen = known[known.llr > -np.inf]
        for start, stop in self._spans(edge):
            own = known[slice(*np.searchsorted(known.time, [start, stop]))]
            odds, doubted = np.full(len(own), -np.inf), 0.0
            if detector.uses_templates:
                odds[own.llr > -np.inf], doubted = self._by_templates(seen, start, stop)
            self.judged = stop
            yield Part(
                start, stop, own, odds if detector.frames is None else weigh(detector.weights, odds, own.frame), doubted
            )

    def _spans(self, edge):
        """First samples of the parts that can be judged, and the samples behind them."""
        if not self.waits:
            return [(self.judged, edge)] if edge > self.judged else []
        length, end = PART_S * self.detector.sampling_rate_hz, edge - self.around
        # An event may lie before the first sample, in part -1. Behind the last candidate is nothing to judge.
        first = math.floor(max(self.judged, -1.0) / length)
        last = end // length if end < math.inf else self.known.time.max(initial=-length) // length + 1
        return [(part * length, (part + 1) * length) for part in range(first, int(last))]

    def _by_templates(self, candidates, start, stop):
        """Log odds by templates of the candidates in samples [start, stop), and the share that context doubts."""
        detector = self.detector
        rate, (slope, offset) = detector.sampling_rate_hz, detector.calibration
        halo, reach = HALO_S * rate, FAR_S * rate
        first, last = np.searchsorted(candidates.time, [start, stop])
        low, high = np.searchsorted(candidates.time, [start - halo, stop + halo])
        evidence = slope * (candidates.llr[low:high] - detector.prior_logit) + offset
        own = slice(first - low, last - low)
        if detector.network is None or low == high:
            return evidence[own], 0.0
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
        return (evidence[own], share) if share > detector.most_doubted else (odds[own], 0.0)


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
