"""Events in single windows, the original's way. For continuous recordings use ``evlib.detect``.

At most one event of each type is found in a sequence: its most likely occurrence. Up to the refractory period that
is all there can be; a longer sequence is allowed, but further occurrences in it are not reported.
"""

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from .errors import DataError, ShapeError
from .options import check_whole
from .threads import few_threads


def detect_events_from_sequence(model, sequence, threshold=0.5, apply_refractory=True, device=None):
    """Find the events in one sequence.

    Parameters
    ----------
    model : an event model; the mode that it is in is kept
    sequence : (time, channels) array or tensor, prepared like the training windows
    threshold : probability from which an event counts as detected, one or one for each type
    apply_refractory : see `LSTMEventClassifier.predict_events`
    device : where to compute, the model is moved there; None for where it is

    Returns
    -------
    dict of (events,) arrays : ``detected_events`` (1 where detected), ``event_timings`` (samples from the start of the
        sequence, NaN where not detected), ``event_probs``

    Raises
    ------
    ShapeError : not (time, channels), or another number of channels than the model's
    DataError : NaN, infinity, no numbers
    OptionError : a threshold that is no probability

    Examples
    --------
    >>> from evlib.models import LSTMEventClassifier
    >>> results = detect_events_from_sequence(LSTMEventClassifier(hidden_size=8), np.zeros((2000, 6)))
    >>> results["event_timings"].shape
    (16,)
    """
    results = batch_inference(model, [sequence], 1, threshold, apply_refractory, device)
    return {name: values[0] for name, values in results.items()}


@few_threads()
def batch_inference(model, sequences, batch_size=32, threshold=0.5, apply_refractory=True, device=None):
    """Find the events in many sequences of any lengths; the result for each is the one it would have alone.

    Parameters
    ----------
    model, threshold, apply_refractory, device : as in `detect_events_from_sequence`
    sequences : (n, time, channels) array, or a list of (time, channels) arrays
    batch_size : sequences computed at once

    Returns
    -------
    dict of (n, events) arrays : as `detect_events_from_sequence`

    Raises
    ------
    ShapeError, DataError, OptionError : as in `detect_events_from_sequence`; no sequence at all; a batch size below 1
    """
    check_whole(1, batch_size=batch_size)
    if len(sequences) == 0:
        raise ShapeError("sequences is empty: at least one sequence of shape (time, channels) is needed")
    if device is not None:
        model.to(device)
    device = next(model.parameters()).device
    parts = []
    for first in range(0, len(sequences), int(batch_size)):
        windows = [_check_sequence(sequence, model.input_size) for sequence in sequences[first : first + int(batch_size)]]
        lengths = torch.tensor([len(window) for window in windows])
        batch = pad_sequence(windows, batch_first=True).to(device)
        parts.append(model.predict_events(batch, threshold, apply_refractory, lengths.to(device)))
    names = ("detected_events", "event_timings", "event_probs")
    return {name: torch.cat(values).cpu().numpy() for name, values in zip(names, zip(*parts, strict=True), strict=True)}


def _check_sequence(sequence, channels):
    try:
        sequence = np.asarray(sequence, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"a sequence must be an array of numbers (time, channels): {error}") from error
    if sequence.ndim != 2 or sequence.shape[1] != channels or len(sequence) == 0:
        slip = " (are time and channels transposed?)" if sequence.ndim == 2 and sequence.shape[0] == channels else ""
        raise ShapeError(f"a sequence must have shape (time, {channels}), got {sequence.shape}{slip}")
    if not np.isfinite(sequence).all():
        raise DataError("the sequence holds NaN or infinity: fill or cut out such samples first (evlib.validate shows where)")
    return torch.tensor(sequence)
