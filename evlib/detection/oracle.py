"""The oracle: a matched filter that knows the true templates, amplitudes and noise of a simulation.

No detector that looks at one event at a time can be better; one that knows the rhythm can.
"""

from dataclasses import replace

import numpy as np

from ..signals.clock import duration_to_samples
from ..signals.refractory import Refractory
from ..signals.synthetic import Simulation
from ..templates.bank import TemplateBank
from ..templates.learn import PRIOR_LOGIT
from ..templates.whiten import design_whitener
from .calibrate import TOLERANCE_S, HeldOut, best_thresholds, label_all
from .detector import Detector

# Seconds before and after the onset that templates reach, and around a template in which the whitening filter rings.
BEFORE_S, AFTER_S, MARGIN_S = 0.01, 0.055, 0.3


def oracle_detector(
    simulation: Simulation,
    refractory_s: float | dict = 2.0,
    tolerance_s: float = TOLERANCE_S,
) -> Detector:
    """Matched filter with the true templates and the true noise spectrum of a simulation.

    Thresholds are fitted on this simulation with all of its labels: pass the one that the detectors under test were
    trained on, and judge on another.

    Parameters
    ----------
    simulation : from :func:`evlib.make_recording`
    refractory_s, tolerance_s : as in :func:`evlib.fit`

    Examples
    --------
    >>> import evlib
    >>> oracle_detector(evlib.make_recording(duration_s=10.0))
    Detector(matched_filter, 16 types, 6 channels, 2000 Hz)
    """
    recording, amplitude, names = simulation.recording, simulation.amplitude, simulation.events.names
    rate = recording.sampling_rate_hz
    spectrum = simulation.noise_psd(np.linspace(0, rate / 2, 8193))
    whitener = design_whitener(np.tile(spectrum, (simulation.templates.n_channels, 1)), rate)
    margin, before = duration_to_samples(MARGIN_S, rate), duration_to_samples(BEFORE_S, rate)
    first, length = margin - before, before + duration_to_samples(AFTER_S, rate)
    wide = whitener.filter_templates(simulation.templates.sampled(rate, MARGIN_S, MARGIN_S))
    spread = float(max(amplitude.std() / amplitude.mean(), 0.05))
    detector = Detector(
        whitener,
        TemplateBank(wide[:, first : first + length] * amplitude.mean(), before, names, spread),
        np.zeros(len(names)),
        Refractory(refractory_s, names).by_name(rate),
        PRIOR_LOGIT,
        channels=tuple(recording.channels or ()),
        metadata={"method": "oracle"},
    )
    labels = replace(simulation.events, labelled_spans=np.array([[0, recording.n_samples]]))
    held_out = HeldOut([], label_all([detector.candidates(recording)], [labels], tolerance_s), [])
    return replace(detector, thresholds=best_thresholds(detector, held_out))
