"""What a detector sees in the part of a recording that is being looked at: candidates and by how much they pass.

The recording is searched in tiles of a few seconds when they are first looked at. A tile sees enough of its neighbours
that its candidates are those of a search through the whole recording.
"""

import numpy as np

from .candidates import Candidates

TILE_S = 10.0
MAX_TILES = 64
# Signal on either side of a tile, in template lengths, as in find_candidates.
HALO_LENGTHS = 16
# Seconds of candidates on either side that a context network reads: as far as rhythm reaches.
CONTEXT_S = 10.0


class CandidateTrace:
    """Candidates of ``detector`` in any part of ``recording``, kept for as long as the part is near.

    The context network of a detector reads ten seconds on either side of the part: its log odds may differ a little from
    those of a search through the whole recording, the candidates do not.

    Raises
    ------
    UnitError, ShapeError : a recording that the detector cannot read
    """

    def __init__(self, detector, recording):
        detector.check(recording)
        self.detector, self.recording = detector, recording
        # Tiles begin where a network that reads the signal would begin anew.
        self._unit = detector.grid_samples
        self._samples = -(-int(TILE_S * recording.sampling_rate_hz) // self._unit) * self._unit
        self._tiles, self._last = {}, (None, None, None)

    def between(self, start_s, stop_s):
        """Candidates from ``start_s`` to ``stop_s``: times (n,) in seconds, types (n,), log odds over their thresholds (n,)."""
        rate, detector = self.recording.sampling_rate_hz, self.detector
        context_s = 0.0 if detector.network is None else CONTEXT_S
        first = int(max(start_s - context_s, 0.0) * rate) // self._samples
        last = int(min(stop_s + context_s, self.recording.duration_s) * rate - 1) // self._samples
        if self._last[0] != (first, last):
            found = Candidates.concatenate([self._tile(k) for k in range(first, max(first, last) + 1)])
            self._last = (first, last), found, detector.log_odds(found)
        _, found, log_odds = self._last
        rise = log_odds - np.asarray(detector.thresholds)[found.type]
        time_s = found.time / rate
        inside = (time_s >= start_s) & (time_s <= stop_s)
        return time_s[inside], found.type[inside], rise[inside]

    def _tile(self, k):
        if k not in self._tiles:
            while len(self._tiles) >= MAX_TILES:
                self._tiles.pop(next(iter(self._tiles)))
            self._tiles[k] = self._search(k * self._samples, min((k + 1) * self._samples, self.recording.n_samples))
        return self._tiles[k]

    def _search(self, start, stop):
        """Candidates of samples [start, stop)."""
        detector, n = self.detector, self.recording.n_samples
        halo = -(-HALO_LENGTHS * detector.bank.length // self._unit) * self._unit
        low, high = max(start - halo, 0), min(stop + halo, n)
        found = detector.find(lambda a, b: detector.whitener(self.recording, low + a, low + b), high - low)
        found = found.shift(low)
        return found[(found.time >= start - 0.5) & ((found.time < stop - 0.5) | (stop == n))]
