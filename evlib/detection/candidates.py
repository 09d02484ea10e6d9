"""Candidates that networks find in a recording: windows of a classifier, and peaks of a frame network, which may be
joined with candidates of templates.

A window classifier reads windows that overlap by half; an event is reported by the window in whose middle half it
begins. Presence x softmax-over-time is exact where a type occurs at most once, so windows are short. A frame network
reads tiles of frames, and its peaks are the candidates. Both start at whole multiples of their hop from the start of
the recording.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.special import expit

from ..networks.classifier import evaluating
from ..networks.frames import LEVEL_FRAMES
from ..signals.clock import split_time
from ..signals.events import Events
from ..signals.recording import cut
from ..templates.learn import nearest_label
from ..templates.pursue import Candidates
from .durations import farthest_end, find_ends

# Windows that are computed at once.
BATCH = 256
# A type with a lower probability in a window is no candidate.
LEAST_PROBABILITY = 0.001
# Frames of a tile, and frames around it that the network sees: as far as the level of the signal is taken from.
TILE_FRAMES, HALO_FRAMES = 3072, LEVEL_FRAMES
# A peak with lower log odds is no candidate: a probability of one in four hundred.
LEAST_LOGIT = -6.0
# A peak is the greatest of its type within this many frames to either side; its time is a mean over as many.
PEAK_FRAMES = 2
# Frames of its neighbours with which a tile is read: peaks at its edges are whole, and where their time lies beyond the
# edge, the tile there sees them too.
EDGE_FRAMES = 2 * PEAK_FRAMES
# Log odds of templates where they have no candidate: a probability of one in three thousand.
NO_CANDIDATE = -8.0
# Log odds are taken up to here: beyond, an event is certain.
CERTAIN = 20.0


def window_candidates(
    model, read: Callable, n_samples: int, window: int, start: int = 0, stop: int | None = None
) -> Candidates:
    """The most likely occurrence of each type in each window, with its log odds.

    Parameters
    ----------
    model : an event model on whitened signal
    read : (start, stop) -> whitened signal (stop - start, C)
    n_samples : of the recording
    window : samples in a window, a multiple of 4
    start, stop : samples whose windows are looked at, at least; default: the whole recording
    """
    hop, stop = window // 2, n_samples if stop is None else stop
    # The first window begins before the recording, so that its middle covers the first samples.
    starts = np.arange(-window // 4, n_samples - window // 4, hop)
    starts = starts[(starts > start - window) & (starts < stop)]
    parts = []
    for first in range(0, len(starts), BATCH):
        some = starts[first : first + BATCH]
        low = max(int(some[0]), 0)
        signal = read(low, min(int(some[-1]) + window, n_samples))
        parts.append(_in_windows(model, cut(signal, some - low, window), some, window))
    found = Candidates.concatenate(parts)
    return found[(found.time >= 0) & (found.time <= n_samples - 1)]


def _in_windows(model, windows, starts, window):
    """Candidates of some windows (N, window, C) that begin at ``starts``: onsets in the middle half only."""
    with evaluating(model):
        output = model(torch.from_numpy(windows))
        time = model.times(output).numpy().astype(np.float64)
    logit = output.event_logits.numpy().astype(np.float64)
    row, type = np.nonzero((time >= window / 4) & (time < 3 * window / 4) & (logit > np.log(LEAST_PROBABILITY)))
    return Candidates(time[row, type] + starts[row], type, logit[row, type])


def read_frames(network, read: Callable, n_samples: int, start: int = 0, stop: int | None = None, behind: int = 0):
    """Run a frame network over a recording: yields (first frame, logits (F, E), times (F, E)) of one tile after the
    other, each with ``EDGE_FRAMES`` more on either side, and ``behind`` frames behind it, except at the ends of the
    recording.

    The arguments are those of `frame_candidates`. ``times`` are samples from the start of the recording at which an
    event that belongs to the frame begins.
    """
    hop, stop = network.resolution, n_samples if stop is None else stop
    n_frames = -(-n_samples // hop)
    for first in range(start // hop // TILE_FRAMES * TILE_FRAMES, -(-stop // hop), TILE_FRAMES):
        last = min(first + TILE_FRAMES, n_frames)
        low, high = max(first - HALO_FRAMES, 0), min(last + HALO_FRAMES + behind, n_frames)
        signal = np.ascontiguousarray(read(low * hop, min(high * hop, n_samples)), dtype=np.float32)
        with evaluating(network):
            output = network(torch.from_numpy(signal)[None])
        begin, end = max(first - EDGE_FRAMES, 0), min(last + EDGE_FRAMES + behind, n_frames)
        logits, offsets = (part[0, begin - low : end - low].numpy().astype(np.float64) for part in output)
        yield first, logits, (np.arange(begin, end) * hop + (hop - 1) / 2)[:, None] + offsets * hop


def frame_candidates(
    network,
    read: Callable,
    n_samples: int,
    beside: Candidates | None = None,
    start: int = 0,
    stop: int | None = None,
    durations: tuple = (),
):
    """Peaks of a frame network as candidates, and its logits at the candidates of templates.

    Parameters
    ----------
    network : FrameNetwork
    read : (start, stop) -> whitened signal (stop - start, C)
    n_samples : of the recording
    beside : Candidates of templates, sorted by time
    start, stop : samples whose tiles are looked at, with what begins just beyond them; default: the whole recording
    durations : of a network that knows where events end, in its second half of the columns: (median in frames, spread)
        of each type

    Returns
    -------
    Candidates : of the network alone, with its logit in every column of evidence, and a length if it knows ends
    frame_logit : (len(beside),) the logit of its type in the frame of each of ``beside``, -6 outside of the tiles
    """
    hop, stop, parts = network.resolution, n_samples if stop is None else stop, []
    beside = Candidates.empty() if beside is None else beside
    at = np.full(len(beside), LEAST_LOGIT)
    n_types, behind = len(durations) or None, farthest_end(durations, TILE_FRAMES)
    for first, logits, times in read_frames(network, read, n_samples, start, stop, behind):
        begin, last = max(first - EDGE_FRAMES, 0), min(first + TILE_FRAMES, -(-n_samples // hop))
        before = PEAK_FRAMES if 0 < first * hop <= start else 0
        after = PEAK_FRAMES if stop <= last * hop < n_samples else 0
        peaks = _peaks(logits[:, :n_types], times[:, :n_types], first - before - begin, last + after - begin)
        if durations:
            peaks = _with_lengths(peaks, logits[:, n_types:], times[:, n_types:], begin, hop, durations)
        parts.append(peaks)
        inner = -np.inf if first == 0 else first * hop, np.inf if last * hop >= n_samples else last * hop
        rows = slice(*np.searchsorted(beside.time, inner))
        frame = np.clip((beside.time[rows] // hop).astype(int) - begin, 0, len(logits) - 1)
        at[rows] = np.maximum(logits[frame, beside.type[rows]], LEAST_LOGIT)
    return Candidates.concatenate(parts), at


def _peaks(logits, times, low, high):
    """Local maxima in the frames [low, high) of a tile and its neighbours."""
    n, width = len(logits), PEAK_FRAMES
    frame, type = np.nonzero(logits[low:high] > LEAST_LOGIT)
    near = frame[:, None] + low + np.arange(-width, width + 1)
    inside, near = (near >= 0) & (near < n), np.clip(near, 0, n - 1)
    around = np.where(inside, logits[near, type[:, None]], -np.inf)
    # Of equal neighbours the first is the peak.
    before, here, after = around[:, :width], around[:, width], around[:, width + 1 :]
    top = (here > before.max(1, initial=-np.inf)) & (here >= after.max(1, initial=-np.inf))
    type, near, around, value = type[top], near[top], around[top], here[top]
    share = expit(around)
    time = (times[near, type[:, None]] * share).sum(1) / np.maximum(share.sum(1), 1e-12)
    return Candidates(time, type, value, frame=value)[np.lexsort((type, time))]


def _with_lengths(peaks, ends, times, begin, hop, durations):
    """Peaks with the samples up to where their events end; ``ends`` and ``times`` (F, E) are those of ends, from frame
    ``begin`` on."""
    frame = np.clip((peaks.time // hop).astype(int) - begin, 0, len(ends) - 1)
    length = peaks.length.copy()
    for k, (median, spread) in enumerate(durations):
        own = np.flatnonzero((peaks.type == k) & (median > 0))
        end = times[find_ends(ends[:, k], frame[own], median, spread), k] if len(own) else np.zeros(0)
        length[own] = np.maximum(end - peaks.time[own], 1.0)
    return replace(peaks, length=length)


def join(templates: Candidates, peaks: Candidates, frame_logit, names, rate: float, reach: float, exact: float):
    """Candidates of templates and of a frame network as one list: pairs of one type within ``reach`` samples are one.

    Parameters
    ----------
    templates, peaks : Candidates of templates and of the frame network
    frame_logit : (len(templates),) the network's logits at the templates' candidates
    names, rate : of the types, Hz
    reach : samples
    exact : samples; a pair has the time of its template if the network's peak is that near, else that of the peak

    Returns
    -------
    Candidates : a peak without a template has the ``llr`` minus infinity
    """
    own = replace(templates, frame=frame_logit)
    rows, owner, _ = nearest_label(own, Events(*split_time(peaks.time), peaks.type, names, rate), reach)
    time, frame, length = own.time.copy(), own.frame.copy(), own.length.copy()
    frame[rows], length[rows] = peaks.frame[owner], peaks.length[owner]
    time[rows] = np.where(np.abs(peaks.time[owner] - own.time[rows]) <= exact, own.time[rows], peaks.time[owner])
    alone = peaks[np.delete(np.arange(len(peaks)), owner)]
    return Candidates.concatenate(
        [replace(own, time=time, frame=frame, length=length), replace(alone, llr=np.full(len(alone), -np.inf))]
    )


def weigh(weights, template_odds, frame_logit) -> np.ndarray:
    """Log odds of candidates (n,): the weighted sum of those of templates (minus infinity where they have no candidate)
    and of a frame network. ``weights`` : of templates, of frames, and an offset."""
    of_templates, of_frames, offset = weights
    odds = np.where(np.isneginf(template_odds), NO_CANDIDATE, np.clip(template_odds, -CERTAIN, CERTAIN))
    return of_templates * odds + of_frames * np.clip(frame_logit, -CERTAIN, CERTAIN) + offset
