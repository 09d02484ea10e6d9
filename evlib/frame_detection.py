"""Continuous detection with a frame network: its peaks, and what it says of given times.

The network reads tiles of signal that overlap; each tile answers for its middle, so that every answer has seen seconds to
either side. Tiles begin at whole multiples of their middle from the start of the recording, whatever is asked for.
"""

import numpy as np
import torch

from .candidates import Candidates
from .event_output import evaluating
from .frame_encoder import LEVEL_FRAMES

# Frames of a tile that it answers for, and on either side beyond them: as far as the level of the signal is taken from.
TILE_FRAMES, HALO_FRAMES = 3072, LEVEL_FRAMES
# A peak with less than this log odds is not worth a look: one in four hundred.
LEAST_LOGIT = -6.0
# A peak is the greatest of its type within this many frames to either side; its time is a mean over as many.
PEAK_FRAMES = 2


def read_frames(network, read, n_samples, advance=None):
    """Go through a recording: yields (first frame, logits (F, E), times (F, E)) of one tile after the other.

    Parameters
    ----------
    network : FrameNetwork
    read : (start, stop) -> whitened signal (stop - start, C)
    n_samples : of the recording
    advance : called with the number of samples that are done

    ``times`` are samples from the start of the recording at which an event that belongs to the frame begins.
    """
    hop = network.resolution
    n_frames = -(-n_samples // hop)
    for first in range(0, n_frames, TILE_FRAMES):
        last = min(first + TILE_FRAMES, n_frames)
        low, high = max(first - HALO_FRAMES, 0), min(last + HALO_FRAMES, n_frames)
        signal = np.ascontiguousarray(read(low * hop, min(high * hop, n_samples)), dtype=np.float32)
        with evaluating(network):
            logits, offsets = (part[0].numpy()[first - low : last - low] for part in network(torch.from_numpy(signal)[None]))
        middle = (np.arange(first, last) * hop + (hop - 1) / 2)[:, None]
        yield first, logits.astype(np.float64), middle + offsets.astype(np.float64) * hop
        if advance is not None:
            advance(min(last * hop, n_samples) - first * hop)


def frame_candidates(network, read, n_samples, beside=None, advance=None):
    """Peaks of a frame network as candidates, and what it says of those of templates.

    Parameters
    ----------
    network, read, n_samples, advance : as in `read_frames`
    beside : Candidates of templates that are to be judged too, or None

    Returns
    -------
    Candidates : of the network alone, with its logit as ``llr``, ``alone``, ``margin`` and ``frame``
    frame_logit : (len(beside),) the logit of its type in the frame of each of ``beside``, None without
    """
    parts, edge = [], None
    at = None if beside is None else np.full(len(beside), LEAST_LOGIT)
    hop, width = network.resolution, PEAK_FRAMES
    for first, logits, times in read_frames(network, read, n_samples, advance=advance):
        # The last frames of the tile before decide whether the first ones here are peaks.
        if edge is not None:
            logits, times, first = np.concatenate([edge[0], logits]), np.concatenate([edge[1], times]), first - len(edge[0])
        whole = (first + len(logits)) * hop >= n_samples
        parts.append(_peaks(logits, times, first, edge is None, whole))
        if at is not None:
            low = 0 if edge is None else (first + width) * hop
            high = n_samples if whole else (first + len(logits) - width) * hop
            rows = slice(*np.searchsorted(beside.time, [low if edge is not None else -np.inf, np.inf if whole else high]))
            frame = np.clip((beside.time[rows] // hop).astype(int) - first, 0, len(logits) - 1)
            at[rows] = np.maximum(logits[frame, beside.type[rows]], LEAST_LOGIT)
        edge = logits[-2 * width :], times[-2 * width :]
    return Candidates.concatenate(parts), at


def _peaks(logits, times, first, is_start, is_end):
    """Local maxima of a tile; those in its first and last frames are the neighbours' to report."""
    n, width = len(logits), PEAK_FRAMES
    low, high = 0 if is_start else width, n if is_end else n - width
    frame, type = np.nonzero(logits[low:high] > LEAST_LOGIT)
    frame += low
    near = frame[:, None] + np.arange(-width, width + 1)
    inside = (near >= 0) & (near < n)
    near = np.clip(near, 0, n - 1)
    around = np.where(inside, logits[near, type[:, None]], -np.inf)
    # Of equal neighbours the first is the peak.
    top = (around[:, width] >= around.max(1, initial=-np.inf)) & (around[:, width] > around[:, :width].max(1, initial=-np.inf))
    frame, type, near, around = frame[top], type[top], near[top], around[top]
    share = np.where(np.isfinite(around), 1 / (1 + np.exp(-around)), 0)
    time = (times[near, type[:, None]] * share).sum(1) / np.maximum(share.sum(1), 1e-12)
    value, zeros = logits[frame, type], np.zeros(len(frame))
    found = Candidates(time, type, value, value, value, zeros + 1.0, zeros, value)
    return found[np.lexsort((type, time))]
