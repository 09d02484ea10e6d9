"""Two witnesses of one event: what templates say and what the frame network says, joined and weighed.

A template's candidate and a peak of the network that belong to one event become one candidate. What either says is worth is
learned on development data (logistic regression on two log odds): where shapes are fixed the templates have the say, where
they vary the network.
"""

from dataclasses import replace

import numpy as np

from .candidates import Candidates
from .events import Events
from .learning import nearest_label
from .timebase import split_time

# Log odds that templates give an event where they have no candidate: as of one in three thousand.
UNSEEN = -8.0
# More than certain is no more than certain: log odds are taken up to here.
CERTAIN = 20.0


def join(templates, peaks, frame_logit, names, rate, reach, exact) -> Candidates:
    """One list of candidates from two: pairs of one type within ``reach`` samples are one candidate.

    Parameters
    ----------
    templates, peaks : Candidates of templates and of the frame network
    frame_logit : (len(templates),) what the network says at the templates' candidates
    reach : samples
    exact : samples; a pair takes the time of its template if the network's peak lies so near, else that of the peak

    A peak without a template has the ``llr`` minus infinity.
    """
    own = replace(templates, frame=frame_logit)
    rows, owner, _ = nearest_label(own, Events(*split_time(peaks.time), peaks.type, names, rate), reach)
    time, frame = own.time.copy(), own.frame.copy()
    frame[rows] = peaks.frame[owner]
    time[rows] = np.where(np.abs(peaks.time[owner] - own.time[rows]) <= exact, own.time[rows], peaks.time[owner])
    lone = np.delete(np.arange(len(peaks)), owner)
    unseen = replace(peaks[lone], llr=np.full(len(lone), -np.inf))
    return Candidates.concatenate([replace(own, time=time, frame=frame), unseen])


def weigh(weights, template_odds, frame_logit):
    """Log odds of candidates, (n,), from those of templates (minus infinity: unseen) and of the frame network."""
    of_template, of_frame, offset = weights
    return of_template * bounded(template_odds) + of_frame * np.clip(frame_logit, -CERTAIN, CERTAIN) + offset


def bounded(template_odds):
    return np.where(np.isneginf(template_odds), UNSEEN, np.clip(template_odds, -CERTAIN, CERTAIN))


def learn_weights(template_odds, frame_logit, target, weight, use_templates=True):
    """The weights of `weigh` that make development candidates most likely; a witness that speaks against itself is not heard.

    ``target``, ``weight`` (n,): truth, and 0 where it is unknown.
    """
    from sklearn.linear_model import LogisticRegression

    known = weight > 0
    odds = np.stack([bounded(template_odds), np.clip(frame_logit, -CERTAIN, CERTAIN)], 1)[known]
    heard = np.array([use_templates, True])
    if len(np.unique(target[known])) < 2:
        return (float(use_templates), float(not use_templates), 0.0)
    for _ in range(2):
        model = LogisticRegression(C=10.0).fit(odds * heard, target[known] > 0.5, weight[known])
        if (model.coef_[0][heard] > 0).all():
            break
        heard &= model.coef_[0] > 0
    if not heard.any():
        return (float(use_templates), float(not use_templates), 0.0)
    slope = model.coef_[0] * heard
    return (float(slope[0]), float(slope[1]), float(model.intercept_[0]))
