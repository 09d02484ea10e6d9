"""Whether events look otherwise than in training, and more so in the course of a recording."""

from dataclasses import dataclass

import numpy as np

from ..signals.recording import Recording

# Pieces of a recording that are looked at, at most so many of so many seconds each.
PIECES, PIECE_S = 6, 60.0
# A share of the templates' energy that is worth a word; where events are as in training it stays below 0.01.
DIFFERENT = 0.05


@dataclass(frozen=True, eq=False)
class TemplateDrift:
    """How far events are from the templates of training: ``share`` of their energy at ``time_s``, both (k,)."""

    time_s: np.ndarray
    share: np.ndarray

    def __str__(self):
        first, last = self.share[[0, -1]]
        return (
            f"events look otherwise than in training: by {first:.0%} of their energy at {self.time_s[0]:.0f} s, by "
            f"{last:.0%} at {self.time_s[-1]:.0f} s"
        )


def template_drift(detector, recording: Recording) -> TemplateDrift | None:
    """How far events are from the templates in pieces spread over a recording; None without templates.

    What chance explains is left out, so where few events are, a difference is not seen.
    """
    recording = detector.accept(recording)
    if not detector.uses_templates or not recording.n_samples:
        return None
    rate, n = detector.sampling_rate_hz, recording.n_samples
    length = min(int(PIECE_S * rate), n)
    starts = np.linspace(0, n - length, min(PIECES, n // length)).astype(int)
    shares = []
    for start in starts.tolist():
        drifting = detector.drifting_templates()
        detector.search(recording, start, start + length, drifting)
        shares.append(drifting.share())
    return TemplateDrift((starts + length / 2) / rate, np.array(shares))
