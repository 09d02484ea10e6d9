"""What every event model returns, and how windows are decided from it.

Presence is one logit for each type; time is a softmax over the frames of a window. Frame f covers the samples
f * resolution to (f + 1) * resolution - 1, and its time is their middle, f * resolution + (resolution - 1) / 2. Times
are sample indices and finer than a frame.
"""

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import nn

from .encoders import check_batch
from .errors import OptionError
from .threads import few_threads

# The time is re-picked this far around the best frame: four standard deviations of the default timing target.
TIMING_RADIUS_SAMPLES = 20


@dataclass(frozen=True, eq=False)
class EventOutput:
    """What every event model returns; read it by attribute, by key, or unpack its first three fields.

    Parameters
    ----------
    event_logits : (batch, events)
    timing_logits : (batch, frames, events), minus infinity at padding
    template_scores : (batch, time, events), None for a model without templates
    hidden_states : (batch, frames, features)
    attention_weights : (batch, frames, frames), mean over the heads, None unless asked for

    Examples
    --------
    >>> out = EventOutput(torch.zeros(1, 2), torch.zeros(1, 4, 2))
    >>> event_logits, timing_logits, template_scores = out
    >>> out["event_probs"].tolist(), out.timing_probs[0, :, 0].tolist()
    ([[0.5, 0.5]], [0.25, 0.25, 0.25, 0.25])
    """

    event_logits: torch.Tensor
    timing_logits: torch.Tensor
    template_scores: torch.Tensor | None = None
    hidden_states: torch.Tensor | None = None
    attention_weights: torch.Tensor | None = None

    @property
    def event_probs(self):
        """(batch, events): the probability that the type occurs in the window."""
        return self.event_logits.sigmoid()

    @property
    def timing_probs(self):
        """(batch, frames, events): where it is, if it occurs; sums to 1 over the frames, 0 at padding."""
        return self.timing_logits.softmax(1)

    def keys(self):
        return [*self.__dataclass_fields__, "event_probs", "timing_probs"]

    def __contains__(self, key):
        return key in self.keys()

    def __getitem__(self, key):
        if key not in self:
            raise KeyError(f"{key!r}; an EventOutput has {', '.join(self.keys())}")
        return getattr(self, key)

    def __iter__(self):
        return iter((self.event_logits, self.timing_logits, self.template_scores))


def pick_times(timing_logits, resolution, radius_samples=TIMING_RADIUS_SAMPLES):
    """Times in samples from logits over frames: the best frame, then the centre of mass near it.

    The mean over the whole window would fall between two modes, where nothing happened; this picks a mode. For the
    Gaussian target of `EventTimingLoss` with its default width the result is exact to 0.25 samples.

    Parameters
    ----------
    timing_logits : (batch, frames, events), minus infinity at padding
    resolution : samples in a frame
    radius_samples : how far around the best frame the centre of mass is taken, at least one frame

    Returns
    -------
    times : (batch, events) in samples

    Examples
    --------
    >>> p = torch.tensor([0.0, 0.6, 0.0, 0.0, 0.4, 0.0])
    >>> pick_times(p.log()[None, :, None], 10, radius_samples=10)
    tensor([[14.5000]])
    """
    frames = timing_logits.shape[1]
    radius = max(1, math.ceil(radius_samples / resolution))
    best = timing_logits.argmax(1)
    near = best[:, None] + torch.arange(-radius, radius + 1, device=best.device)[:, None]  # (batch, near, events)
    logits = timing_logits.gather(1, near.clamp(0, frames - 1))
    weight = logits.masked_fill((near < 0) | (near >= frames), -torch.inf).softmax(1)
    return (weight * near).sum(1) * resolution + (resolution - 1) / 2


@contextlib.contextmanager
def evaluating(model):
    """No dropout, no gradients and few threads inside of the block; each submodule gets its mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with few_threads(), torch.no_grad():
            yield model
    finally:
        for module, training in modes:
            module.training = training


def check_threshold(threshold, num_events):
    """Return one threshold or one for each type as a float tensor, or refuse what is no probability."""
    try:
        value = torch.as_tensor(threshold, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise OptionError(f"threshold must be a probability in [0, 1], got {threshold!r}") from None
    if value.shape not in ((), (num_events,)):
        raise OptionError(f"threshold must be one number or one for each of {num_events} types, got shape {tuple(value.shape)}")
    if not ((value >= 0) & (value <= 1)).all():
        slip = " (was a percentage passed?)" if (value > 1).any() else ""
        raise OptionError(f"threshold must be a probability in [0, 1], got {threshold!r}{slip}")
    return value


def mlp_head(features, hidden_size, num_events, dropout):
    """Two layers from a state to a logit for each type."""
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(features, hidden_size),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, num_events),
    )


def predict_windows(model, x, threshold=0.5, lengths=None):
    """What an event model decides about windows; see :meth:`LSTMEventClassifier.predict_events`."""
    threshold = check_threshold(threshold, model.num_events)
    lengths = check_batch(x, model.input_size, lengths)
    with evaluating(model):
        out = model(x, lengths)
        times = model.times(out)
    probs = out.event_probs
    detected = probs >= threshold.to(probs.device)
    # The middle of the last frame may lie behind the end of the sequence.
    timings = torch.minimum(times, lengths[:, None] - 1)
    return detected.float(), timings.masked_fill(~detected, torch.nan), probs
