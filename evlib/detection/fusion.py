"""Two witnesses of one event: what templates say and what the frame network says, joined and weighed.

A template's candidate and a peak of the network that belong to one event become one candidate, and the log odds of both
add up.
"""

from dataclasses import replace

import numpy as np

from ..signals.clock import split_time
from ..signals.events import Events
from ..templates.learn import nearest_label
from ..templates.pursue import Candidates

# Log odds that templates give an event where they have no candidate: as of one in three thousand.
UNSEEN = -8.0
# What the log odds of templates and of the network are worth to each other: the most that templates can say balances a
# network that hears nothing at all. Of five fixed worths the best on a simulated frame, whether its shapes are fixed or
# vary.
WORTH = (0.3, 1.0)
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


def learn_scale(odds, target, weight):
    """Slope and offset that make log odds of development candidates as true as they say (Platt's logistic fit).

    ``target``, ``weight`` (n,): truth, and 0 where it is unknown. Where nothing tells true from false: (1, 0).
    """
    from sklearn.linear_model import LogisticRegression

    known = weight > 0
    if len(np.unique(target[known])) < 2:
        return 1.0, 0.0
    model = LogisticRegression(C=10.0).fit(odds[known, None], target[known] > 0.5, weight[known])
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    return (slope, offset) if slope > 0 else (1.0, 0.0)
