"""Sensors on clocks of their own: how far they are apart is found from the events that they both see.

The channels are those of two halves, in their order, or of several streams (`evlib.signals.joined.join_streams`). Each
alone finds events with its part of the templates; where two see the same event, the difference of its times is the lag
of one clock. Of halves it is followed through the recording, piece by piece, along a line in each; of streams it is one
line, with its standard errors.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np

from ..signals.errors import DataError, OptionError, require
from ..signals.joined import Clock, stream_groups
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
SLOPES = np.arange(-MOST_SKEW, MOST_SKEW, SKEW_STEP)
# Log likelihood ratio of an event that tells about clocks: many weak ones say more than few clear ones.
LEAST_LLR = 4.0
# The first stretch that the line of two streams is looked for in, in seconds and in events, whichever is longer; and by
# how many standard deviations more pairs lie on it than would by chance.
FIRST_LINE_S, FIRST_LINE_EVENTS, CLEAR = 60.0, 40, 6.0
# Slopes that are tried at most: where the first stretch is longer than 1000 s, the skew is within less than 2 %.
MOST_SLOPES = 20_000
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


def stream_clocks(detector, recording: Recording) -> dict[str, Clock]:
    """The clocks of the streams of a recording, relative to that of the first, from the events that both see.

    Parameters
    ----------
    detector : with templates, trained on joined streams (`evlib.signals.joined.join_streams`) with the same channels
    recording : joined streams whose clocks are not known: within 5 s and 2 % of the first one's (where events are
        rare, 20 / T, with the T seconds in which 40 happen)

    Returns
    -------
    the clock of each stream but the first, with standard errors; for the next `join_streams`

    Raises
    ------
    OptionError : a detector without templates, a recording of a single stream
    DataError : a stream with too few events in common with the first
    """
    recording = detector.accept(recording)
    groups = list(stream_groups(recording).items())
    message = "clocks of streams need a detector with templates, and a recording of join_streams with several streams"
    require(detector.uses_templates and len(groups) > 1, OptionError, message)
    banks = [(replace(detector.bank, templates=detector.bank.templates[:, :, cols]), list(cols)) for _, cols in groups]
    tables = [np.concatenate(table) for table in _events_of(detector, recording, banks, least=LEAST_LLR)]
    clocks = {}
    for (name, _), table in zip(groups[1:], tables[1:], strict=True):
        pairs = _common_events(tables[0], table)
        message = f"{name} and {groups[0][0]} have too few events in common to put them on one clock"
        require(pairs is not None, DataError, message)
        clocks[name] = Clock.from_markers(*pairs)
        logging.getLogger(__name__).info("%s on the clock of %s: %s", name, groups[0][0], clocks[name])
    return clocks


def _events_of(detector, recording, banks, least):
    """For each (bank, columns) the tables (n, 2) of times in s and types, piece by piece."""
    rate, n, tables = detector.sampling_rate_hz, recording.n_samples, [[] for _ in banks]
    around = 2 * detector.bank.length
    for start in range(0, n, piece := int(PIECE_S * rate)):
        low, high = max(start - around, 0), min(start + piece + around, n)
        white = detector.whitener(recording, low, high)
        for (bank, own), table in zip(banks, tables, strict=True):
            found = find_candidates(bank, np.ascontiguousarray(white[:, own])).shift(low)
            clear = (found.llr > least) & (found.margin > 0) & (found.time >= start) & (found.time < start + piece)
            table.append(np.column_stack([found.time[clear] / rate, found.type[clear]]))
    return tables


def _common_events(first, second):
    """The times (n,) of common events on both clocks, of tables (n, 2) of times and types: those near the line that
    most lie on; None where it is not clear."""
    if min(len(first), len(second)) < LEAST_EVENTS or first[0, 0] == first[-1, 0]:
        return None
    start, duration = first[0, 0], 0.0
    shortest = max(FIRST_LINE_S, first[min(FIRST_LINE_EVENTS, len(first)) - 1, 0] - start)
    line, reach, most = (0.0, 0.0), FIRST_S, MOST_SKEW
    while start + duration < first[-1, 0]:
        # The longer the stretch, the finer the slope is known, and the fewer are left to try.
        duration = min(max(4 * duration, shortest), first[-1, 0] - start)
        own = first[first[:, 0] <= start + duration]
        most = min(most, MOST_SLOPES * SAME_S / 4 / duration)
        wide = reach + most * duration
        row, other = [], []
        for k in np.unique(own[:, 1]):
            mine, theirs = np.flatnonzero(own[:, 1] == k), np.flatnonzero(second[:, 1] == k)
            expected = own[mine, 0] + line[0] + line[1] * (own[mine, 0] - start)
            low, high = (np.searchsorted(second[theirs, 0], expected + edge) for edge in (-wide, wide))
            row.append(np.repeat(mine, high - low))
            other.append(theirs[np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)]).astype(int)])
        row, other = np.concatenate(row), np.concatenate(other)
        time, difference = own[row, 0] - start, second[other, 0] - own[row, 0]
        slopes = line[1] + np.arange(-most, most + 1e-12, SAME_S / duration / 2)
        found = _line(time, difference, line[0], wide, slopes)
        by_chance = len(row) * SAME_S / (2 * wide)
        if found is None or found[2] < by_chance + CLEAR * np.sqrt(by_chance) + LEAST_EVENTS:
            return None
        line, reach, most = found[:2], SAME_S, 4 * SAME_S / duration
    near = np.abs(difference - line[0] - line[1] * time) < SAME_S / 2
    return first[row[near], 0], second[other[near], 0]


def clock_lag(detector, recording: Recording) -> ClockLag | None:
    """The lag of the second half of the channels, or None where both halves see the same events at the same time, or
    where it is not clear."""
    recording = detector.accept(recording)
    halves = _halves(detector.bank)
    if len(halves) < 2 or not detector.uses_templates or not _apart(detector, recording, halves):
        return None
    tables = _events_of(detector, recording, halves, least=CERTAIN)
    knots = _follow(np.concatenate(tables[0]), np.concatenate(tables[1]), recording.duration_s)
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


def _line(time, difference, guess, reach, slopes=SLOPES):
    """Lag at time 0, slope and number of pairs of the line that most pairs (n,) of time and difference lie on."""
    best: tuple = (0, 0.0, 0.0)
    low, n_bins = guess - reach, int(np.ceil(4 * reach / SAME_S)) + 2
    for slope in slopes:
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
