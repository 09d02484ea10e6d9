"""Few-shot detection: the first examples of each kind are labelled, the rest of the recording is judged.

The protocol of few-shot sound event detection (Nolasco et al. 2023, https://doi.org/10.1016/j.ecoinf.2023.102258): a
researcher labels five events at the start of a recording, and wants to be told of all others.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..scoring.comparison import Comparison, compare
from ..scoring.segments import compare_segments
from ..signals.errors import DataError, require, require_instance, require_int
from ..signals.events import Events
from ..signals.recording import Recording
from .detector import Detector, detect
from .fit import fit

# Seconds of signal behind the last example that are learned from.
HEARD_OUT_S = 1.0


@dataclass(frozen=True, eq=False)
class FewShot:
    """What was found from the first few examples.

    ``detector``; ``shots`` the labels that it has learned from; ``found`` and ``reference`` the events from ``start_s``
    on, where it is judged; ``by_onset`` the comparison of their onsets; ``by_overlap`` that of their overlap
    (`evlib.scoring.segments.compare_segments`), None where no event lasts.
    """

    detector: Detector
    shots: Events
    found: Events
    reference: Events
    start_s: float
    by_onset: Comparison
    by_overlap: dict | None


def few_shot(
    recording: Recording,
    events: Events,
    n_shots: int = 5,
    *,
    tolerance_s: float = 0.005,
    iou: float = 0.3,
    **options,
) -> FewShot:
    """Learn from the first examples of each kind, and judge all that comes behind the last of them.

    The signal up to there is learned from too, as signal whose other events are not labelled.

    Parameters
    ----------
    recording, events : the whole recording, completely labelled
    n_shots : examples of each kind; kinds that have no more than that are left out
    tolerance_s : of onsets, seconds; thresholds are chosen for it too
    iou : least overlap of what lasts; 0.3 is that of the challenge
    options : of `evlib.fit`

    Raises
    ------
    DataError : no kind with more examples than ``n_shots``

    Examples
    --------
    >>> from evlib.signals.synthetic import make_recording, make_templates
    >>> recording, events = make_recording(make_templates(3), 40.0, refractory_s=0.5, seed=1)
    >>> result = few_shot(recording, events, method="matched_filter", refractory_s=0.5, progress=False)
    >>> len(result.shots), result.by_onset.f1 > 0.9
    (15, True)
    """
    require_instance(Recording, recording=recording)
    require_instance(Events, events=events)
    require_int(1, n_shots=n_shots)
    events = events.at_rate(recording.sampling_rate_hz)
    names = [name for name, count in zip(events.names, events.counts(), strict=True) if count > n_shots]
    require(names, DataError, f"no kind of event happens more than {n_shots} times: nothing would be left to judge")
    events = events.select(names)
    first = np.concatenate([np.flatnonzero(events.type == k)[:n_shots] for k in range(len(names))])
    shots = events[np.sort(first)]
    end_s = shots.onset_s + np.nan_to_num(shots.duration_s)
    start_s = float(end_s.max()) + tolerance_s
    # Up to the last example of the kind that has all of them first, every event is an example.
    complete_s = min(end_s[shots.type == k].max() for k in range(len(names)))
    shots = replace(shots, labelled_spans=np.array([[0, int(complete_s * recording.sampling_rate_hz)]]))
    # An example at the end is heard out: as far as events are taken to sound on.
    heard_s = min(start_s + HEARD_OUT_S, recording.duration_s)
    options = {"tolerance_s": tolerance_s} | options
    detector = fit([(recording.between(0.0, heard_s), shots)], **options)
    found = detect(detector, recording, progress=False).with_names(names)
    found, reference = (table[table.onset_s > start_s] for table in (found, events))
    lasts = np.nan_to_num(reference.duration_s).any()
    by_overlap = compare_segments(reference, found, iou) if lasts else None
    return FewShot(detector, shots, found, reference, start_s, compare(reference, found, tolerance_s), by_overlap)
