"""Two sensors on two clocks: how far they are apart is found from the events that both see.

The channels are two halves, in their order: those of the first sensor, and those of the second. Each half alone finds
events with its part of the templates; where the two see the same event, the difference of its times is the lag of the
second clock. It is followed through the recording, piece by piece, along a line in each.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np

from ..signals.recording import Recording
from ..templates.bank import cut_snippets
from ..templates.pursue import CERTAIN, find_candidates

# A shorter recording is not looked at; of a longer one two pieces of this share, at these places, at most so many
# seconds each, say whether both halves see the same events.
SHORTEST_S, PROBE_SHARE, PROBES, PROBE_S = 60.0, 0.02, (0.3, 0.85), 4.0
# Least number of clear events in them; where in more than this share one half shows less than this share of what the
# other half shows, the clocks are apart.
LEAST_EVENTS, APART_SHARE, SHOWN = 8, 0.5, 0.3
# The lag is found in pieces of so many seconds. It begins within so many seconds; from piece to piece the clocks differ
# by at most this factor, tried in so fine steps, and the lag is within so many seconds of where it was headed.
PIECE_S, FIRST_S, MOST_SKEW, SKEW_STEP, NEXT_S = 30.0, 5.0, 0.02, 2e-4, 0.1
# A smaller lag is none, in seconds: an event is whole.
LEAST_LAG_S = 0.001
# Two times belong to one event where they are so near, in seconds, once the lag is known; a piece says something where
# this share of the events of the half that sees fewer is common.
SAME_S, COMMON = 0.004, 0.4


@dataclass(frozen=True, eq=False)
class ClockLag:
    """By how much events come later on the clock of ``channels`` (numbers): ``lag_s`` at ``time_s`` of the first one,
    both (k,), a line between them."""

    channels: tuple
    time_s: np.ndarray
    lag_s: np.ndarray

    def __str__(self):
        skew = 100 * np.polyfit(self.time_s, self.lag_s, 1)[0] if len(self.time_s) > 1 else 0.0
        ends = f"{self.lag_s[0]:+.3f} s at the start, {self.lag_s[-1]:+.3f} s at the end"
        return f"the second half of the channels runs on another clock ({skew:+.3g} %): its events lag by {ends}"


def clock_lag(detector, recording: Recording) -> ClockLag | None:
    """The lag of the second half of the channels, or None where both halves see the same events at the same time, or
    where it is not clear."""
    recording = detector.accept(recording)
    halves = _halves(detector.bank)
    if len(halves) < 2 or not detector.uses_templates or not _apart(detector, recording, halves):
        return None
    rate, n = detector.sampling_rate_hz, recording.n_samples
    tables: list = [[], []]
    for start in range(0, n, piece := int(PIECE_S * rate)):
        low, high = max(start - 2 * detector.bank.length, 0), min(start + piece + 2 * detector.bank.length, n)
        white = detector.whitener(recording, low, high)
        for (bank, half), own in zip(halves, tables, strict=True):
            found = find_candidates(bank, np.ascontiguousarray(white[:, half])).shift(low)
            clear = (found.llr > CERTAIN) & (found.margin > 0) & (found.time >= start) & (found.time < start + piece)
            own.append(np.column_stack([found.time[clear] / rate, found.type[clear]]))
    knots = _follow(np.concatenate(tables[0]), np.concatenate(tables[1]), n / rate)
    if knots is None or np.abs(knots[1]).max() < LEAST_LAG_S:
        return None
    return ClockLag(tuple(range(recording.n_channels))[halves[1][1]], *knots)


def on_one_clock(detector, recording: Recording) -> Recording:
    """The recording with both halves of its channels on the clock of the first, which a log line says; unchanged where
    they are."""
    lag = clock_lag(detector, recording)
    if lag is None:
        return recording
    logging.getLogger(__name__).warning("%s; it is put on the first one's clock", lag)
    return recording.align_clocks(lag.channels, lag.time_s, lag.lag_s)


def _halves(bank):
    """(bank, columns) of the first and the second half of the channels; none where a half sees no event."""
    middle = bank.templates.shape[2] // 2
    columns = (slice(0, middle), slice(middle, 2 * middle)) if bank.templates.shape[2] == 2 * middle else ()
    halves = [(replace(bank, templates=bank.templates[:, :, half]), half) for half in columns]
    return halves if all((half.norm > 1).any() for half, _ in halves) else []


def _apart(detector, recording, halves):
    """Whether clear events are seen by one half and not by the other."""
    rate, n, bank = detector.sampling_rate_hz, recording.n_samples, detector.bank
    if n < SHORTEST_S * rate:
        return False
    length = max(int(min(PROBE_SHARE * n, PROBE_S * rate)), 4 * bank.length)
    shown = []
    for place in PROBES:
        start = min(int(place * n), n - length)
        white = detector.whitener(recording, start, start + length)
        found = find_candidates(bank, white)
        clear = found[(found.llr > CERTAIN) & (found.margin > 0)]
        snippets = cut_snippets(white, clear.time, bank.before, bank.length)
        scores = [half.own_scores(snippets[:, :, own], clear.type) / half.norm[clear.type] for half, own in halves]
        known = np.min([half.norm[clear.type] for half, _ in halves], axis=0) > np.sqrt(CERTAIN)
        shown.append(np.transpose(scores)[known])
    shown = np.concatenate(shown)
    return len(shown) >= LEAST_EVENTS and (shown.min(axis=1) < SHOWN * shown.max(axis=1)).mean() > APART_SHARE


def _follow(first, second, duration_s):
    """Knots (time, lag) of the lag between two tables (n, 2) of times and types, or None where it is not clear."""
    lines, n_pieces = [], 0
    for start in np.arange(0, duration_s, PIECE_S):
        middle, own = (
            (start + min(start + PIECE_S, duration_s)) / 2,
            first[(first[:, 0] >= start) & (first[:, 0] < start + PIECE_S)],
        )
        guess, reach = (_at(lines[-1], middle), NEXT_S) if lines else (0.0, FIRST_S)
        reach += MOST_SKEW * PIECE_S / 2 if lines else 0.0
        wide = reach + MOST_SKEW * PIECE_S / 2
        near = second[np.abs(second[:, 0] - middle - guess) < PIECE_S / 2 + wide]
        if len(own) < LEAST_EVENTS or len(near) < LEAST_EVENTS:
            continue
        n_pieces += 1
        row, other = np.nonzero((own[:, None, 1] == near[:, 1]) & (np.abs(near[:, 0] - own[:, None, 0] - guess) < wide))
        line = _line(own[row, 0] - middle, near[other, 0] - own[row, 0], guess, reach)
        if line is not None and line[2] >= max(LEAST_EVENTS, COMMON * min(len(own), len(near))):
            lines.append((middle, *line[:2]))
    if not lines or len(lines) < n_pieces / 2:
        return None
    middle, lag, _ = np.array(lines).T
    time = np.r_[0.0, middle, duration_s]
    return time, np.r_[_at(lines[0], 0.0), lag, _at(lines[-1], duration_s)]


def _at(line, time):
    middle, lag, slope = line
    return lag + slope * (time - middle)


def _line(time, difference, guess, reach):
    """Lag at time 0, slope and number of pairs of the line that most pairs (n,) of time and difference lie on."""
    best: tuple = (0, 0.0, 0.0)
    low, n_bins = guess - reach, int(np.ceil(4 * reach / SAME_S)) + 2
    for slope in np.arange(-MOST_SKEW, MOST_SKEW, SKEW_STEP):
        place = np.floor((difference - slope * time - low) / (SAME_S / 2)).astype(int)
        count = np.bincount(place[(place >= 0) & (place < n_bins)], minlength=n_bins)
        count = count[:-1] + count[1:]
        if count.max() > best[0]:
            best = count.max(), slope, low + SAME_S / 2 * (count.argmax() + 1)
    n, slope, lag = best
    for _ in range(3):
        near = np.abs(difference - lag - slope * time) < SAME_S / 2
        if near.sum() < LEAST_EVENTS:
            return None
        slope, lag = np.polyfit(time[near], difference[near], 1)
    return lag, slope, near.sum()
