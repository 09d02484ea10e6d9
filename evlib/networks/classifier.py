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

from ..signals.errors import OptionError, require_int
from .encoders import LSTMEncoder, check_batch, frame_mask, pool_frames
from .threads import few_threads
from .transformer import PatchFrameEncoder

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
        raise OptionError(
            f"threshold must be one number or one for each of {num_events} types, got shape {tuple(value.shape)}"
        )
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


# --- The window classifier: which event types occur in a window, and when.


ATTENTION_HEADS = 8
ENCODERS = {"lstm": LSTMEncoder, "dual-branch": PatchFrameEncoder}


class LSTMEventClassifier(nn.Module):
    """Bidirectional LSTM, self-attention, one head for presence and one for time.

    After the LSTM event classifier of https://github.com/gfr10598/lstm. Differences: the LSTM runs on frames of
    ``timing_resolution_samples`` (1 gives the original's form and its 867,616 parameters); padding is masked
    everywhere; the attention is added to the LSTM's output, so that a frame keeps its own content, and its weights
    are made only on demand; times come from one mode and are finer than a frame.

    Parameters
    ----------
    input_size : channels
    hidden_size : LSTM units in each direction; hidden_size * directions must be a multiple of 8 (attention heads)
    num_layers : LSTM layers
    num_events : event types
    dropout : probability, in the LSTM, the attention and both heads
    bidirectional : read in both directions
    timing_resolution_samples : samples in a frame (10 are 5 ms at 2000 Hz)
    refractory_period_samples : the shortest time between two events of a type (4000 are 2 s at 2000 Hz); windows
        no longer than this are where presence x softmax is exact
    encoder : "lstm", or "dual-branch": a `evlib.networks.transformer.PatchFrameEncoder` in its place, a transformer
        over frames and channels, hidden_size wide

    Examples
    --------
    >>> model = LSTMEventClassifier(hidden_size=8, num_events=3)
    >>> out = model(torch.zeros(2, 200, 6), lengths=torch.tensor([200, 150]))
    >>> out.event_logits.shape, out["timing_logits"].shape
    (torch.Size([2, 3]), torch.Size([2, 20, 3]))
    """

    def __init__(
        self,
        input_size=6,
        hidden_size=128,
        num_layers=2,
        num_events=16,
        dropout=0.3,
        bidirectional=True,
        timing_resolution_samples=10,
        refractory_period_samples=4000,
        encoder="lstm",
    ):
        super().__init__()
        if encoder not in ENCODERS:
            raise OptionError(f"encoder must be one of {', '.join(ENCODERS)}, got {encoder!r}")
        kind = ENCODERS[encoder]
        self.encoder = kind(input_size, hidden_size, num_layers, dropout, bidirectional, timing_resolution_samples)
        features = self.encoder.output_size
        if features % ATTENTION_HEADS:
            raise OptionError(
                f"hidden_size * directions must be a multiple of {ATTENTION_HEADS} attention heads, got {features}"
            )
        require_int(1, num_events=num_events)
        if not refractory_period_samples >= 0:
            raise OptionError(f"refractory_period_samples must not be negative, got {refractory_period_samples!r}")
        # Python's own numbers, so that a checkpoint holds nothing else.
        self.config = {
            "input_size": int(input_size),
            "hidden_size": int(hidden_size),
            "num_layers": int(num_layers),
            "num_events": int(num_events),
            "dropout": float(dropout),
            "bidirectional": bool(bidirectional),
            "timing_resolution_samples": int(timing_resolution_samples),
            "refractory_period_samples": int(refractory_period_samples),
            "encoder": str(encoder),
        }
        self.input_size, self.num_events = int(input_size), int(num_events)
        self.timing_resolution_samples = int(timing_resolution_samples)
        self.refractory_period_samples = int(refractory_period_samples)
        self.attention = nn.MultiheadAttention(features, ATTENTION_HEADS, dropout=dropout, batch_first=True)
        self.event_head = mlp_head(features, hidden_size, num_events, dropout)
        self.timing_head = mlp_head(features, hidden_size, num_events, dropout)

    def forward(self, x, lengths=None, need_weights=False):
        """Run the model on a batch.

        Parameters
        ----------
        x : (batch, time, channels) float tensor
        lengths : (batch,) samples in each sequence, None when nothing is padded
        need_weights : keep the attention weights, frames squared in memory for each sequence

        Returns
        -------
        EventOutput

        Raises
        ------
        ShapeError, DataError : as in `evlib.networks.encoders.check_batch`
        """
        lengths = check_batch(x, self.input_size, lengths)
        mask = frame_mask(lengths, x.shape[1], self.timing_resolution_samples)
        states = self.encoder(x, lengths)
        attended, weights = self.attention(states, states, states, key_padding_mask=~mask, need_weights=need_weights)
        states = states + attended
        event_logits = self.event_head(pool_frames(states, mask))
        timing_logits = self.timing_head(states).masked_fill(~mask[..., None], -torch.inf)
        return EventOutput(event_logits, timing_logits, hidden_states=states, attention_weights=weights)

    def get_embeddings(self, x, lengths=None):
        """(batch, features): the mean state of each sequence, in the model's present mode."""
        lengths = check_batch(x, self.input_size, lengths)
        return pool_frames(
            self(x, lengths).hidden_states, frame_mask(lengths, x.shape[1], self.timing_resolution_samples)
        )

    def predict_events(self, x, threshold=0.5, apply_refractory=True, lengths=None):
        """Decide which events are in each window, and when.

        A window gives at most one event of a type, so the refractory rule holds inside of it whatever
        ``apply_refractory`` says; between windows `RefractoryPeriodEnforcer` keeps it.

        Parameters
        ----------
        x : (batch, time, channels) float tensor
        threshold : probability from which an event counts as detected, one or one for each type
        apply_refractory : kept for the original's signature, see above
        lengths : (batch,) samples in each sequence, None when nothing is padded

        Returns
        -------
        detections : (batch, events) float, 1 where detected
        timings : (batch, events) samples from the start of the window, NaN where not detected
        event_probs : (batch, events)

        Raises
        ------
        ShapeError, DataError : an input that does not fit
        OptionError : a threshold that is no probability
        """
        return predict_windows(self, x, threshold, lengths)

    def times(self, output):
        """Times (batch, events) in samples that an EventOutput of this model gives."""
        return pick_times(output.timing_logits, self.timing_resolution_samples)

    def freeze_backbone(self):
        """Train the two heads only."""
        self._set_backbone(requires_grad=False)

    def unfreeze_backbone(self):
        """Train everything again."""
        self._set_backbone(requires_grad=True)

    def _set_backbone(self, requires_grad):
        self.encoder.requires_grad_(requires_grad)
        self.attention.requires_grad_(requires_grad)
