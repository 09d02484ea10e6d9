"""The event-specific architecture: a template, a convolutional path and a timing head for each type of event.

After the event-specific part of https://github.com/gfr10598/lstm (its branch of the same name). Differences: templates
are correlated with the signal, not convolved, and the score of an event peaks at its onset; onset delays are fractions
of a sample and are learned; scores are normalised to [-1, 1]; the paths of the types are one grouped computation, and
each feeds the timing of its own type; attention is over frames; padding changes nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..signals.clock import n_frames
from ..signals.errors import OptionError, require_int
from ..templates.bank import refine_peak
from .classifier import EventModel, EventOutput, gather_near, mlp_head
from .encoders import LSTMEncoder, check_batch, frame_mask, keep_arguments, length_mask, pool_frames, require_shape

# 5 ms at 2000 Hz: longer than sound in a frame takes from one sensor to another.
MAX_DELAY_SAMPLES = 10
# Zeros around a template, so that shifting it by a fraction of a sample does not wrap around.
MARGIN = 8
# Taps of the three layers of a type's path at 2000 Hz: 5 ms for the onset, 10 ms for the shape, 20 ms for the pattern.
KERNELS = (11, 21, 41)
# Features of each type's path and of the shared path in the classifier.
EVENT_CHANNELS, SHARED_CHANNELS = 8, 32
# Timing logit of a type that is known to be absent, as in the original.
ABSENT = -1e9
# Steps in a sample of the search for delays.
DELAY_STEPS = 8
# Filter outputs, in standard deviations of the noise, grow by their logarithm from here on.
FILTER_SCALE = 4.0


class EventTemplateBank(nn.Module):
    """One learnable template for each type of event, with a learnable onset delay for each channel.

    The score of a type at sample t is the correlation of its template with the signal when the onset is put at t,
    divided by the norms of both: 1 where the signal looks exactly like the template.

    Parameters
    ----------
    num_events, num_features : types of events and channels
    template_length : samples
    max_delay_samples : largest delay of a channel, in either direction
    before : samples of the template ahead of the onset

    Attributes
    ----------
    templates : (events, features, length) parameter, the shape on each channel before its delay
    onset_delays : (events, features) parameter, samples by which the event comes later on a channel; may be fractions

    Examples
    --------
    >>> bank = EventTemplateBank(num_events=3, num_features=2, template_length=20)
    >>> x = torch.zeros(1, 100, 2)
    >>> x[0, 40:60] = bank.templates[1].T.detach()
    >>> bank(x)[0, :, 1].argmax().item()
    40
    """

    def __init__(
        self, num_events=16, num_features=6, template_length=80, max_delay_samples=MAX_DELAY_SAMPLES, before=0
    ):
        super().__init__()
        require_int(1, num_events=num_events, num_features=num_features, template_length=template_length)
        require_int(0, max_delay_samples=max_delay_samples, before=before)
        self.num_events, self.num_features, self.template_length = num_events, num_features, template_length
        self.max_delay_samples, self.before = max_delay_samples, before
        self.templates = nn.Parameter(0.1 * torch.randn(num_events, num_features, template_length))
        self.onset_delays = nn.Parameter(torch.zeros(num_events, num_features))

    @torch.no_grad()
    def load_templates(self, templates) -> None:
        """Start from templates (events, length, features), such as those of a `evlib.templates.bank.TemplateBank` with
        the same ``before``.

        Longer ones are cut, shorter ones are padded with zeros; delays become 0.
        """
        templates = torch.as_tensor(templates, dtype=self.templates.dtype)
        require_shape((self.num_events, "length", self.num_features), templates=templates)
        self.templates.zero_()
        self.templates[:, :, : templates.shape[1]] = templates[:, : self.template_length].transpose(1, 2)
        self.onset_delays.zero_()

    @torch.no_grad()
    def find_delays(self, snippets) -> None:
        """Set each delay to the lag at which its channel correlates best with the template.

        Training refines delays from there; from zero it would stop at the nearest oscillation.

        Parameters
        ----------
        snippets : (events, length + 2 * max_delay_samples, features), a mean snippet of each type with its onset at
            sample ``max_delay_samples + before``
        """
        reach = self.max_delay_samples
        snippets = torch.as_tensor(snippets, dtype=self.templates.dtype)
        require_shape((self.num_events, self.template_length + 2 * reach, self.num_features), snippets=snippets)
        n = 2 * snippets.shape[1]
        templates = torch.fft.rfft(F.pad(self.templates, (reach, reach)), n)
        product = torch.fft.rfft(snippets.transpose(1, 2), n) * templates.conj()
        # Zeros beyond the highest frequency interpolate between samples.
        correlation = torch.fft.irfft(product, n * DELAY_STEPS)
        lags = torch.arange(-reach * DELAY_STEPS, reach * DELAY_STEPS + 1)
        self.onset_delays.copy_(lags[correlation[:, :, lags].argmax(2)] / DELAY_STEPS)

    def apply_delays(self) -> Tensor:
        """Templates with their delays, (events, features, length + 2 * max_delay_samples).

        The onset is at sample ``max_delay_samples + before``.
        """
        reach = self.max_delay_samples
        padded = F.pad(self.templates, (reach + MARGIN, reach + MARGIN))
        frequency = torch.fft.rfftfreq(padded.shape[2], device=padded.device)
        turn = torch.exp(-2j * torch.pi * frequency * self.onset_delays.clamp(-reach, reach)[..., None])
        return torch.fft.irfft(torch.fft.rfft(padded) * turn, padded.shape[2])[:, :, MARGIN:-MARGIN]

    def forward(self, x: Tensor, lengths=None) -> Tensor:
        """Scores (batch, time, events) in [-1, 1] of signals (batch, time, features); 0 at padding."""
        return self.match(x, lengths)[0]

    def match(self, x: Tensor, lengths=None) -> tuple[Tensor, Tensor]:
        """Scores as :meth:`forward` gives, and the matched-filter output, both (batch, time, events).

        The output is the correlation divided by the norm of the template alone: in white noise of standard deviation 1
        it is normally distributed with standard deviation 1, however loud its surroundings are.
        """
        lengths, kernels = check_batch(x, self.num_features, lengths), self.apply_delays()
        mask = length_mask(lengths, x.shape[1])[:, None]
        ahead = self.max_delay_samples + self.before
        signal = F.pad(x.transpose(1, 2).masked_fill(~mask, 0), (ahead, kernels.shape[2] - ahead - 1))
        energy = F.conv1d(signal.square().sum(1, keepdim=True), signal.new_ones(1, 1, kernels.shape[2]))
        norm = kernels.square().sum((1, 2)).clamp(min=1e-12).sqrt()[:, None]
        output = (F.conv1d(signal, kernels) / norm).masked_fill(~mask, 0)
        return (output / energy.clamp(min=1e-12).sqrt()).transpose(1, 2), output.transpose(1, 2)


class EventSpecificCNN(nn.Module):
    """Three convolutions at three scales for each type, computed as one grouped convolution, and one path for all
    types.

    Parameters
    ----------
    num_events, input_channels : types of events and channels of the signal
    output_channels : features of each type's path
    use_shared : False leaves the shared path out
    stride : samples between two outputs of the paths of the types; the time that their layers cover stays the same
    shared_channels : features of the shared path; default: ``output_channels``

    Examples
    --------
    >>> event_features, shared_features = EventSpecificCNN(num_events=3, output_channels=4)(torch.zeros(2, 50, 6))
    >>> event_features.shape, shared_features.shape
    (torch.Size([2, 50, 3, 4]), torch.Size([2, 50, 4]))
    """

    def __init__(
        self, num_events=16, input_channels=6, output_channels=32, use_shared=True, stride=1, shared_channels=None
    ):
        super().__init__()
        require_int(1, num_events=num_events, input_channels=input_channels)
        require_int(1, output_channels=output_channels, stride=stride)
        self.num_events, self.input_channels, self.stride = num_events, input_channels, stride
        width, (first, *rest) = num_events * output_channels, KERNELS
        self.onset = nn.Conv1d(input_channels, width, max(first, stride), stride)
        # An odd number of taps keeps a frame in its place.
        taps = [max(3, round(kernel / stride) | 1) for kernel in rest]
        self.shape, self.pattern = (nn.Conv1d(width, width, k, padding=k // 2, groups=num_events) for k in taps)
        shared = shared_channels or output_channels
        self.shared = nn.Conv1d(input_channels, shared, first, padding=first // 2) if use_shared else None

    def forward(self, x: Tensor, lengths=None) -> tuple[Tensor, Tensor | None]:
        """Features of signals (batch, time, channels).

        Returns
        -------
        event_features : (batch, frames, events, output_channels), frames of ``stride`` samples
        shared_features : (batch, time, channels), None without a shared path
        """
        lengths = check_batch(x, self.input_channels, lengths)
        mask = length_mask(lengths, x.shape[1])[:, None]
        signal = x.transpose(1, 2).masked_fill(~mask, 0)
        frames = frame_mask(lengths, x.shape[1], self.stride)[:, None]
        kernel = self.onset.kernel_size[0]
        before = (kernel - self.stride) // 2
        behind = (frames.shape[2] - 1) * self.stride + kernel - before - x.shape[1]
        features = F.pad(signal, (before, behind))
        for layer in (self.onset, self.shape, self.pattern):
            features = F.relu(layer(features)).masked_fill(~frames, 0)
        event_features = features.unflatten(1, (self.num_events, -1)).permute(0, 3, 1, 2)
        if self.shared is None:
            return event_features, None
        return event_features, F.relu(self.shared(signal)).masked_fill(~mask, 0).transpose(1, 2)


class EventSpecificTimingHeads(nn.Module):
    """For each type its own self-attention over the frames and its own two-layer head for the time.

    The heads of all types are computed together.

    Parameters
    ----------
    num_events : types of events
    hidden_size : features of a frame, a multiple of ``num_heads``
    dropout : probability in the attention and in front of the last layer
    num_heads : attention heads of each type

    Examples
    --------
    >>> EventSpecificTimingHeads(num_events=3, hidden_size=8)(torch.zeros(2, 20, 8)).shape
    torch.Size([2, 20, 3])
    """

    def __init__(self, num_events=16, hidden_size=128, dropout=0.2, num_heads=4):
        super().__init__()
        if hidden_size < num_heads or hidden_size % num_heads:
            raise OptionError(f"hidden_size must be a multiple of {num_heads} attention heads, got {hidden_size!r}")
        self.num_events, self.hidden_size, self.num_heads = num_events, hidden_size, num_heads
        self.dropout, half = dropout, max(1, hidden_size // 2)
        shapes = {"qkv": (hidden_size, 3 * hidden_size), "out": (hidden_size, hidden_size)}
        for name, (fan_in, fan_out) in (shapes | {"first": (hidden_size, half), "last": (half, 1)}).items():
            weight = torch.empty(num_events, fan_in, fan_out).uniform_(-(fan_in**-0.5), fan_in**-0.5)
            self.register_parameter(f"{name}_weight", nn.Parameter(weight))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(num_events, 1, fan_out)))

    def forward(self, features: Tensor, event_mask: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Timing logits (batch, frames, events).

        Parameters
        ----------
        features : (batch, frames, hidden_size)
        event_mask : (batch, events), False for types that are known not to occur; their logits become -1e9
        mask : (batch, frames) bool, True at frames that are not padding
        """
        require_shape(("batch", "frames", self.hidden_size), features=features)
        qkv = self._each(features[:, None], "qkv").unflatten(-1, (3, self.num_heads, -1))
        # Each (batch, events * heads, frames, features of a head).
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        keys = None if mask is None else mask[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=keys, dropout_p=dropout)
        attended = attended.unflatten(1, (self.num_events, self.num_heads)).transpose(2, 3).flatten(3)
        states = self._each(attended, "out")
        hidden = F.dropout(F.relu(self._each(states, "first")), self.dropout, self.training)
        logits = self._each(hidden, "last")[..., 0].transpose(1, 2)
        if event_mask is None:
            return logits
        require_shape((len(features), self.num_events), event_mask=event_mask)
        return logits.masked_fill(~event_mask.bool()[:, None], ABSENT)

    def _each(self, x, name):
        """A linear map for each type: (batch, events or 1, frames, in) -> (batch, events, frames, out)."""
        return x @ getattr(self, f"{name}_weight") + getattr(self, f"{name}_bias")


class EventSpecificClassifier(EventModel):
    """Templates, per-type convolutions and an LSTM over frames; per-type heads for time.

    Signal, template scores and shared features, sample by sample, are the LSTM's input. The presence of a type is
    predicted from the mean state, its own features and the best score of its template; its time from its own attention,
    its own features and its template score, refined on the template score to a fraction of a sample.

    Parameters
    ----------
    input_size, hidden_size, num_layers, num_events, dropout, bidirectional, timing_resolution_samples,
    refractory_period_samples : as in `evlib.LSTMEventClassifier`
    template_length : samples (80 are 40 ms at 2000 Hz)
    max_delay_samples, before : as in `EventTemplateBank`
    event_channels, shared_channels : features of the paths of the types and of the shared path

    Examples
    --------
    >>> model = EventSpecificClassifier(hidden_size=8, num_events=3)
    >>> event_logits, timing_logits, template_scores = model(torch.zeros(2, 200, 6), torch.tensor([200, 150]))
    >>> event_logits.shape, timing_logits.shape, template_scores.shape
    (torch.Size([2, 3]), torch.Size([2, 20, 3]), torch.Size([2, 200, 3]))
    """

    backbone = ("encoder", "cnn")

    @keep_arguments
    def __init__(
        self,
        input_size: int = 6,
        hidden_size: int = 128,
        num_layers: int = 2,
        num_events: int = 16,
        dropout: float = 0.3,
        template_length: int = 80,
        bidirectional: bool = True,
        timing_resolution_samples: int = 10,
        refractory_period_samples: int = 4000,
        max_delay_samples: int = MAX_DELAY_SAMPLES,
        before: int = 0,
        event_channels: int = EVENT_CHANNELS,
        shared_channels: int = SHARED_CHANNELS,
    ):
        resolution = timing_resolution_samples
        super().__init__(input_size, num_events, resolution, refractory_period_samples)
        self.template_bank = EventTemplateBank(num_events, input_size, template_length, max_delay_samples, before)
        self.cnn = EventSpecificCNN(num_events, input_size, event_channels, True, resolution, shared_channels)
        read = input_size + num_events + shared_channels
        self.encoder = LSTMEncoder(read, hidden_size, num_layers, dropout, bidirectional, resolution)
        features = self.encoder.output_size
        self.event_head = mlp_head(features + 2 * num_events, hidden_size, num_events, dropout)
        self.timing_heads = EventSpecificTimingHeads(num_events, features, dropout)
        # How much a type's own features and its template count for its presence and for its time.
        self.presence_weight = nn.Parameter(0.1 * torch.randn(num_events, event_channels))
        self.place_weight = nn.Parameter(0.1 * torch.randn(num_events, event_channels))
        self.presence_gain = nn.Parameter(torch.full((num_events, 2), 3.0))
        self.place_gain = nn.Parameter(torch.full((num_events, 2), 5.0))

    def forward(self, x: Tensor, lengths=None) -> EventOutput:
        """Run the model on a batch (batch, time, channels); see `evlib.LSTMEventClassifier.forward`."""
        lengths = check_batch(x, self.input_size, lengths)
        mask = frame_mask(lengths, x.shape[1], self.timing_resolution_samples)
        scores, filtered = self.template_bank.match(x, lengths)
        filtered = torch.arcsinh(filtered / FILTER_SCALE)
        event_features, shared = self.cnn(x, lengths)
        states = self.encoder.states(torch.cat([x, scores, shared], -1), lengths)
        best, strongest = (self._frame_maximum(values, lengths) for values in (scores, filtered))
        evidence = torch.cat([pool_frames(states, mask), best.amax(1), strongest.amax(1)], 1)
        both = torch.stack([best, strongest], -1)
        event_logits = self.event_head(evidence) + (self.presence_gain * both.amax(1)).sum(-1)
        event_logits = event_logits + (event_features.amax(1) * self.presence_weight).sum(-1)
        timing_logits = self.timing_heads(states, mask=mask) + (event_features * self.place_weight).sum(-1)
        timing_logits = timing_logits + (self.place_gain * both.masked_fill(~mask[..., None, None], 0)).sum(-1)
        timing_logits = timing_logits.masked_fill(~mask[..., None], -torch.inf)
        return EventOutput(event_logits, timing_logits, scores, states)

    def _frame_maximum(self, scores, lengths):
        """The best score of each frame, (batch, frames, events), minus infinity at padding."""
        resolution = self.timing_resolution_samples
        scores = scores.masked_fill(~length_mask(lengths, scores.shape[1])[..., None], -torch.inf)
        missing = n_frames(scores.shape[1], resolution) * resolution - scores.shape[1]
        padded = F.pad(scores, (0, 0, 0, missing), value=-torch.inf)
        return padded.unflatten(1, (-1, resolution)).amax(2)

    def times(self, output: EventOutput) -> Tensor:
        """Times (batch, events) in samples: from the frames, refined on the template score within two frames."""
        return refine_times(output["template_scores"], super().times(output), 2 * self.timing_resolution_samples)


def refine_times(scores: Tensor, times: Tensor, reach: int) -> Tensor:
    """Move times (batch, events) to the best of the scores (batch, time, events) within ``reach`` samples, and from
    there to the peak of the parabola through its neighbours.

    >>> t = torch.arange(50.0)
    >>> refine_times(torch.cos((t - 20.3) / 10)[None, :, None], torch.tensor([[18.0]]), 5).round(decimals=2)
    tensor([[20.3000]])
    """
    near, values = gather_near(scores, times.round().long(), reach)
    peak = near.gather(1, values.argmax(1, keepdim=True))[:, 0]
    _, around = gather_near(scores.detach(), peak, 1)
    inside = around.isfinite().all(1, keepdim=True)
    offset, _ = refine_peak(around.where(inside, 0).transpose(0, 1).cpu().numpy(), 1)
    return peak + torch.from_numpy(offset).to(scores)
