"""The window classifier: which event types occur in a window, and when.

Presence is one logit for each type; time is a softmax over the frames of the window. That is exact as long as a
window is no longer than the refractory period, because a type then occurs at most once in it; in a longer window
it gives the most likely occurrence only (continuous signals are the business of ``evlib.detect``).

Frame f covers the samples f * resolution to (f + 1) * resolution - 1, and its time is their middle,
f * resolution + (resolution - 1) / 2. Times are sample indices and finer than a frame.
"""

import torch
from torch import nn

from ..encoders import LSTMEncoder, check_batch, frame_mask, pool_frames
from ..errors import OptionError
from ..event_output import EventOutput, mlp_head, pick_times, predict_windows
from ..options import check_whole
from ..patch_encoder import PatchFrameEncoder

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
    encoder : "lstm", or "dual-branch": a `evlib.patch_encoder.PatchFrameEncoder` in its place, a transformer over frames and
        channels, hidden_size wide

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
            raise OptionError(f"hidden_size * directions must be a multiple of {ATTENTION_HEADS} attention heads, got {features}")
        check_whole(1, num_events=num_events)
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
        ShapeError, DataError : as in `evlib.encoders.check_batch`
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
        return pool_frames(self(x, lengths).hidden_states, frame_mask(lengths, x.shape[1], self.timing_resolution_samples))

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
