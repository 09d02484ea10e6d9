"""The oracle: a matched filter that knows the true templates, amplitudes and noise of a simulation.

No detector that looks at one event at a time can be better; one that knows the rhythm can.
"""

from dataclasses import replace

import numpy as np

from ..signals.clock import duration_to_samples
from ..signals.refractory import Refractory
from ..templates.bank import TemplateBank
from ..templates.learn import PRIOR_LOGIT
from ..templates.whiten import design_whitener
from .detector import Detector
from .development import TOLERANCE_S, Judged, fit_thresholds, real_examples

# Room around a template in which the whitening filter rings.
MARGIN_S = 0.3


def oracle_detector(simulation, refractory_s=2.0, before_s=0.01, after_s=0.055, tolerance_s=TOLERANCE_S) -> Detector:
    """Matched filter with the true templates and the true noise spectrum of a
    :class:`evlib.signals.synthetic.Simulation`.

    Thresholds are fitted on this simulation with all of its labels: pass the one that the detectors under test were
    trained on, and judge on another.
    """
    rate = simulation.recording.sampling_rate_hz
    spectrum = simulation.noise_psd(np.linspace(0, rate / 2, 8193))
    whitener = design_whitener(np.tile(spectrum, (simulation.templates.n_channels, 1)), rate)
    margin, before = duration_to_samples(MARGIN_S, rate), duration_to_samples(before_s, rate)
    length = before + duration_to_samples(after_s, rate)
    wide = whitener.filter_templates(simulation.templates.sampled(rate, MARGIN_S, MARGIN_S))
    mean, spread = simulation.amplitude.mean(), simulation.amplitude.std() / simulation.amplitude.mean()
    names = simulation.events.names
    bank = TemplateBank(
        wide[:, margin - before : margin - before + length] * mean, before, names, float(max(spread, 0.05))
    )
    detector = Detector(
        whitener,
        bank,
        np.zeros(len(names)),
        Refractory(refractory_s, names).by_name(rate),
        PRIOR_LOGIT,
        channels=simulation.recording.channels,
    )
    detector.metadata = {"method": "oracle"}
    examples = real_examples([detector.candidates(simulation.recording)], [_complete(simulation)], tolerance_s)[0]
    detector.thresholds, _ = fit_thresholds(detector, Judged([], [examples], []))
    return detector


def _complete(simulation):
    """The true events, all of them."""
    return replace(simulation.events, labelled_spans=np.array([[0, simulation.recording.n_samples]]))
