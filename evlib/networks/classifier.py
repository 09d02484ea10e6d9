"""Event models of windows: their output, how windows are decided, and the window classifier.

Presence is one logit for each type; time is a softmax over the frames of a window. Frame f covers the samples
f * resolution to (f + 1) * resolution - 1, and its time is their middle, f * resolution + (resolution - 1) / 2. Times
are in samples from the start of the window, and finer than a frame.
"""

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..signals.errors import OptionError, require_choice, require_int, require_number
from .encoders import LSTMEncoder, check_batch, frame_mask, keep_arguments, pool_frames, two_layers
from .threads import few_threads
from .transformer import PatchFrameEncoder

# The time is the centre of mass this far around the best frame: four standard deviations of the default target.
TIMING_RADIUS_SAMPLES = 20
# Heads of the classifier's attention over frames, as in the original.
ATTENTION_HEADS = 8
ENCODERS = {"lstm": LSTMEncoder, "dual-branch": PatchFrameEncoder}


@dataclass(frozen=True, eq=False)
class EventOutput:
    """Output of every event model; read it by attribute, by key, or unpack its first three fields.

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

    event_logits: Tensor
    timing_logits: Tensor
    template_scores: Tensor | None = None
    hidden_states: Tensor | None = None
    attention_weights: Tensor | None = None

    @property
    def event_probs(self) -> Tensor:
        """(batch, events): the probability that the type occurs in the window."""
        return self.event_logits.sigmoid()

    @property
    def timing_probs(self) -> Tensor:
        """(batch, frames, events): where it is, if it occurs; sums to 1 over the frames, 0 at padding."""
        return self.timing_logits.softmax(1)

    def keys(self) -> list[str]:
        return [*self.__dataclass_fields__, "event_probs", "timing_probs"]

    def __contains__(self, key):
        return key in self.keys()

    def __getitem__(self, key: str):
        if key not in self:
            raise KeyError(f"{key!r}; an EventOutput has {', '.join(self.keys())}")
        return getattr(self, key)

    def __iter__(self):
        return iter((self.event_logits, self.timing_logits, self.template_scores))


def pick_times(timing_logits: Tensor, resolution: int, radius_samples: float = TIMING_RADIUS_SAMPLES) -> Tensor:
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
    radius = max(1, math.ceil(radius_samples / resolution))
    near, logits = gather_near(timing_logits, timing_logits.argmax(1), radius)
    return (logits.softmax(1) * near).sum(1) * resolution + (resolution - 1) / 2


def gather_near(values: Tensor, place: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Places (batch, 2 * reach + 1, events) around ``place`` (batch, events), and the ``values`` (batch, n, events)
    there; minus infinity outside."""
    n = values.shape[1]
    near = place[:, None] + torch.arange(-reach, reach + 1, device=place.device)[:, None]
    return near, values.gather(1, near.clamp(0, n - 1)).masked_fill((near < 0) | (near >= n), -torch.inf)


@contextlib.contextmanager
def evaluating(model: nn.Module):
    """No dropout, no gradients and few threads inside of the block; each submodule gets its mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with few_threads(), torch.no_grad():
            yield model
    finally:
        for module, training in modes:
            module.training = training


def check_threshold(threshold, num_events: int) -> Tensor:
    """Return one threshold, or one for each type, as a float tensor; refuse what is not a probability."""
    try:
        value = torch.as_tensor(threshold, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise OptionError(f"threshold must be a probability in [0, 1], got {threshold!r}") from None
    if value.shape not in ((), (num_events,)):
        raise OptionError(f"threshold must be one number or one for each of {num_events} types, got {threshold!r}")
    if not ((value >= 0) & (value <= 1)).all():
        slip = " (was a percentage passed?)" if (value > 1).any() else ""
        raise OptionError(f"threshold must be a probability in [0, 1], got {threshold!r}{slip}")
    return value


def mlp_head(features: int, hidden_size: int, num_events: int, dropout: float) -> nn.Sequential:
    """Two layers from a state to a logit for each type."""
    layers = two_layers(features, hidden_size, num_events, nn.ReLU(), nn.Dropout(dropout))
    return nn.Sequential(nn.Dropout(dropout), *layers)


class EventModel(nn.Module):
    """Base of the event models: arguments that all of them have, and decisions about windows.

    ``backbone`` names the parts that `freeze_backbone` keeps from learning.
    """

    backbone: tuple[str, ...]

    def __init__(self, input_size, num_events, timing_resolution_samples, refractory_period_samples):
        super().__init__()
        require_int(1, input_size=input_size, num_events=num_events)
        require_number(refractory_period_samples=refractory_period_samples)
        self.input_size, self.num_events = input_size, num_events
        self.timing_resolution_samples = timing_resolution_samples
        self.refractory_period_samples = refractory_period_samples

    def predict_events(
        self, x: Tensor, threshold=0.5, apply_refractory: bool = True, lengths=None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decide which events are in each window, and when.

        A window has at most one event of a type, so the refractory rule holds inside of it whatever
        ``apply_refractory`` is; between windows `RefractoryPeriodEnforcer` keeps it.

        Parameters
        ----------
        x : (batch, time, channels) float tensor
        threshold : probability from which an event counts as detected, one or one for each type
        apply_refractory : part of the original's signature, see above
        lengths : (batch,) samples in each sequence, None when nothing is padded

        Returns
        -------
        detections : (batch, events) float, 1 where detected
        timings : (batch, events) samples from the start of the window, NaN where not detected
        event_probs : (batch, events)

        Raises
        ------
        ShapeError, DataError : an input that does not fit
        OptionError : a threshold that is not a probability
        """
        threshold = check_threshold(threshold, self.num_events)
        lengths = check_batch(x, self.input_size, lengths)
        with evaluating(self):
            out = self(x, lengths)
            times = self.times(out)
        probs = out.event_probs
        detected = probs >= threshold.to(probs.device)
        # The middle of the last frame may lie after the end of the sequence.
        timings = torch.minimum(times, lengths[:, None] - 1)
        return detected.float(), timings.masked_fill(~detected, torch.nan), probs

    def times(self, output: EventOutput) -> Tensor:
        """Times (batch, events) in samples from an EventOutput of this model."""
        return pick_times(output.timing_logits, self.timing_resolution_samples)

    def get_embeddings(self, x: Tensor, lengths=None) -> Tensor:
        """(batch, features): the mean state of each sequence; dropout is active in training mode."""
        lengths = check_batch(x, self.input_size, lengths)
        mask = frame_mask(lengths, x.shape[1], self.timing_resolution_samples)
        return pool_frames(self(x, lengths).hidden_states, mask)

    def freeze_backbone(self) -> None:
        """Train the heads only (and the templates, where there are some)."""
        for name in self.backbone:
            self.get_submodule(name).requires_grad_(False)

    def unfreeze_backbone(self) -> None:
        """Train everything again."""
        self.requires_grad_(True)


class LSTMEventClassifier(EventModel):
    """Bidirectional LSTM, self-attention, one head for presence and one for time.

    After the LSTM event classifier of https://github.com/gfr10598/lstm. Differences: the LSTM runs on frames of
    ``timing_resolution_samples`` (1 gives the original's form and its 867,616 parameters); padding is masked
    everywhere; the attention is added to the LSTM's output, so that a frame keeps its own content, and its weights
    are computed only on demand; times come from one mode and are finer than a frame.

    Parameters
    ----------
    input_size : channels
    hidden_size : LSTM units in each direction; hidden_size * directions must be a multiple of 8 (attention heads)
    num_layers : LSTM layers
    num_events : event types
    dropout : probability, in the LSTM, the attention and both heads
    bidirectional : read in both directions
    timing_resolution_samples : samples in a frame (10 are 5 ms at 2000 Hz)
    refractory_period_samples : the shortest time between two events of a type (4000 are 2 s at 2000 Hz); in windows
        no longer than this, presence x softmax is exact
    encoder : "lstm", or "dual-branch" for a `evlib.networks.transformer.PatchFrameEncoder`, a transformer over frames
        and channels, hidden_size wide

    Raises
    ------
    OptionError : a size below 1, a dropout outside of [0, 0.99], heads that do not divide the features

    Examples
    --------
    >>> model = LSTMEventClassifier(hidden_size=8, num_events=3)
    >>> out = model(torch.zeros(2, 200, 6), lengths=torch.tensor([200, 150]))
    >>> out.event_logits.shape, out["timing_logits"].shape
    (torch.Size([2, 3]), torch.Size([2, 20, 3]))
    """

    backbone = ("encoder", "attention")

    @keep_arguments
    def __init__(
        self,
        input_size: int = 6,
        hidden_size: int = 128,
        num_layers: int = 2,
        num_events: int = 16,
        dropout: float = 0.3,
        bidirectional: bool = True,
        timing_resolution_samples: int = 10,
        refractory_period_samples: int = 4000,
        encoder: str = "lstm",
    ):
        super().__init__(input_size, num_events, timing_resolution_samples, refractory_period_samples)
        require_choice(ENCODERS, encoder=encoder)
        sizes = (input_size, hidden_size, num_layers, dropout, bidirectional, timing_resolution_samples)
        self.encoder = ENCODERS[encoder](*sizes)
        features = self.encoder.output_size
        if features % ATTENTION_HEADS:
            raise OptionError(f"hidden_size * directions must be a multiple of {ATTENTION_HEADS}, got {features}")
        self.attention = nn.MultiheadAttention(features, ATTENTION_HEADS, dropout=dropout, batch_first=True)
        self.event_head = mlp_head(features, hidden_size, num_events, dropout)
        self.timing_head = mlp_head(features, hidden_size, num_events, dropout)

    def forward(self, x: Tensor, lengths=None, need_weights: bool = False) -> EventOutput:
        """Run the model on a batch.

        Parameters
        ----------
        x : (batch, time, channels) float tensor
        lengths : (batch,) samples in each sequence, None when nothing is padded
        need_weights : keep the attention weights, frames squared in memory for each sequence

        Raises
        ------
        ShapeError, DataError : as in `evlib.networks.encoders.check_batch`
        """
        lengths = check_batch(x, self.input_size, lengths)
        mask = frame_mask(lengths, x.shape[1], self.timing_resolution_samples)
        states = self.encoder.states(x, lengths)
        attended, weights = self.attention(states, states, states, key_padding_mask=~mask, need_weights=need_weights)
        states = states + attended
        event_logits = self.event_head(pool_frames(states, mask))
        timing_logits = self.timing_head(states).masked_fill(~mask[..., None], -torch.inf)
        return EventOutput(event_logits, timing_logits, hidden_states=states, attention_weights=weights)
