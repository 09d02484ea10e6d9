"""The frame network: in which frame of a continuous signal does an event begin, and of which type is it?

`FrameEncoder` turns (batch, time, channels) into features (batch, frames, features); a frame is ``resolution`` samples.
Its front end filters each channel in two ways: learned strided filters of the waveform, which carry the time of an
event, and band-pass filters of two lengths, of whose output only the logarithm of the energy is kept, which carries the
type whatever the phase. Both are relative to the mean level of some seconds around, so that the gain and the spectrum
of another sensor cancel. Residual convolutions then cover neighbouring frames, and an LSTM on stretches of frames
covers seconds. The band-pass filters are not learned: that would take nearly half of the training time.

Sources: learned filters with log energies as in audio front ends (Zeghidour et al., LEAF, 2021), subtraction of the
mean logarithm as in cepstral mean normalisation, a fine and a coarse grid as in seismic phase pickers (Zhu and Beroza,
PhaseNet, 2019; Mousavi et al., EQTransformer, 2020).
"""

import numpy as np
import torch
from torch import Tensor, nn

from ..signals.clock import n_frames
from ..signals.errors import require_int, require_number
from .encoders import MAX_DROPOUT, Encoder, LSTMEncoder, frame_mask, keep_arguments, length_mask

# Band-pass filters of each length, spaced evenly in log frequency from two periods in their window up to HIGHEST, in
# cycles per sample: just below half the sampling rate.
BANDS, HIGHEST = 12, 0.45
# The short window has at least 16 samples and at least 4 frames; the long window is 4 times as long.
SHORTEST_WINDOW, WINDOW_HOPS, LONGER = 16, 4, 4
# The level of a signal is its mean log energy over this many frames to either side: seconds, longer than an event.
LEVEL_FRAMES = 512
# Frames in one step of the LSTM; dilations of the residual convolutions, of five frames each.
STRETCH = 8
DILATIONS = (1, 2, 4, 8)
# The waveform is compressed where it is this many times larger than its level.
LOUD = 8.0
# Energies below this are digital silence and are left out of the level; noise has about 1.
SILENCE = 1e-12
# Log odds of a type in a frame before training: events are rare.
RARE = -4.0


class FrameFrontEnd(nn.Module):
    """(B, T, C) -> (B, hidden_size, F): waveform and band energies of each frame, relative to the level around.

    Parameters
    ----------
    input_size : channels
    hidden_size : features of a frame
    hop : samples in a frame
    """

    def __init__(self, input_size, hidden_size, hop):
        super().__init__()
        self.hop = hop
        short = max(SHORTEST_WINDOW, WINDOW_HOPS * hop)
        self.register_buffer("short_bands", band_filters(short), persistent=False)
        self.register_buffer("long_bands", band_filters(LONGER * short), persistent=False)
        self.of_wave = nn.Conv1d(input_size, hidden_size, 4 * hop + 1, hop)
        self.of_energy = nn.Conv1d(input_size * 2 * BANDS, hidden_size, 1)
        self.norm = nn.BatchNorm1d(hidden_size)

    def forward(self, x, mask):
        """``mask`` (B, F): frames that hold signal; ``x`` is zero after the end of a sequence."""
        frames = mask.shape[1]
        x = nn.functional.pad(x.transpose(1, 2), (0, frames * self.hop - x.shape[1]))
        energy, level = self.relative_energy(x, mask)
        # One gain for each channel: the mean level of its bands, in amplitude.
        wave = x * torch.exp(-0.5 * level.mean(2)).repeat_interleave(self.hop, -1)
        wave = nn.functional.pad(wave * torch.rsqrt(1 + (wave / LOUD).square()), (2 * self.hop, 2 * self.hop))
        out = self.of_wave(wave)[..., :frames] + self.of_energy(energy.flatten(1, 2))
        return nn.functional.gelu(self.norm(out)) * mask[:, None]

    def relative_energy(self, x, mask):
        """(B, C, T) -> log energy relative to its level, and the level: two (B, C, 2 * BANDS, F); 0 at padding and in
        silence."""
        bands = (self.short_bands, self.long_bands)
        energy = torch.cat([self._energy(x, filters, mask.shape[1]) for filters in bands], 2)
        valid = mask[:, None, None] & (energy > SILENCE)
        energy = energy.clamp(min=SILENCE).log().masked_fill(~valid, 0)
        level = local_mean(energy, valid)
        return (energy - level).masked_fill(~valid, 0), level

    def _energy(self, x, filters, frames):
        """(B, C, T) -> (B, C, BANDS, F): energy of each band in a window around the middle of each frame."""
        batch, channels, _ = x.shape
        length = filters.shape[-1]
        padded = nn.functional.pad(x.reshape(batch * channels, 1, -1), (length // 2 - self.hop // 2, length))
        pairs = nn.functional.conv1d(padded, filters, stride=self.hop)[..., :frames]
        return pairs.view(batch, channels, BANDS, 2, frames).square().sum(3)


def band_filters(length: int) -> Tensor:
    """(2 * BANDS, 1, length) windowed cosines and sines of unit energy, from two periods to nearly half the rate."""
    frequency = np.geomspace(2 / length, HIGHEST, BANDS)
    phase = 2 * np.pi * frequency[:, None] * (np.arange(length) - (length - 1) / 2)
    window = np.hanning(length + 2)[1:-1]
    waves = np.stack([np.cos(phase), np.sin(phase)], 1) * window / np.sqrt((window**2).sum() / 2)
    return torch.tensor(waves.reshape(2 * BANDS, 1, length), dtype=torch.float32)


def local_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid frames within about ``LEVEL_FRAMES`` of each, along the last axis; ``values`` are 0 where
    they are not valid.

    It is computed once for each stretch of frames, within which it hardly changes.
    """
    n, reach = values.shape[-1], LEVEL_FRAMES // STRETCH
    sums = []
    for part in (values, valid.to(values.dtype)):
        stretches = (
            nn.functional.pad(part, (0, n_frames(n, STRETCH) * STRETCH - n)).unflatten(-1, (-1, STRETCH)).sum(-1)
        )
        total = nn.functional.pad(stretches.double().cumsum(-1), (1, 0))
        place = torch.arange(stretches.shape[-1], device=part.device)
        sums.append(
            total[..., (place + reach + 1).clamp(max=place.shape[0])] - total[..., (place - reach).clamp(min=0)]
        )
    mean = (sums[0] / sums[1].clamp(min=1)).to(values.dtype)
    return mean.repeat_interleave(STRETCH, -1)[..., :n]


class ResidualConvolution(nn.Module):
    """(B, size, F) -> (B, size, F): each frame plus a convolution over five frames that lie ``dilation`` apart."""

    def __init__(self, size, dilation):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(size, size, 5, 1, 2 * dilation, dilation), nn.BatchNorm1d(size), nn.GELU())

    def forward(self, x):
        return x + self.body(x)


class FrameEncoder(Encoder):
    """(batch, time, channels) -> (batch, frames, 2 * hidden_size): each frame seen nearby and over seconds.

    Parameters
    ----------
    input_size : channels
    hidden_size : features of a frame in each half
    resolution : samples in a frame

    Examples
    --------
    >>> encoder = FrameEncoder(6, hidden_size=8)
    >>> encoder(torch.zeros(2, 205, 6)).shape
    torch.Size([2, 21, 16])
    """

    @keep_arguments
    def __init__(self, input_size: int, hidden_size: int = 48, resolution: int = 10):
        super().__init__()
        require_int(1, input_size=input_size, hidden_size=hidden_size, resolution=resolution)
        self.input_size, self.resolution, self.output_size = input_size, resolution, 2 * hidden_size
        self.front = FrameFrontEnd(input_size, hidden_size, resolution)
        self.near = nn.ModuleList(ResidualConvolution(hidden_size, dilation) for dilation in DILATIONS)
        self.far = LSTMEncoder(hidden_size, hidden_size, num_layers=1, dropout=0.0, resolution=STRETCH)
        self.of_far = nn.Linear(2 * hidden_size, hidden_size)

    def train(self, mode=True):
        """As in PyTorch, but a frozen encoder stays in evaluation mode: its batch normalisation is frozen too."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    def states(self, x, lengths):
        mask = frame_mask(lengths, x.shape[1], self.resolution)
        near = self.front(x.masked_fill(~length_mask(lengths, x.shape[1])[..., None], 0), mask)
        for block in self.near:
            near = block(near) * mask[:, None]
        near = near.transpose(1, 2)
        far = self.of_far(self.far.states(near, mask.sum(1))).repeat_interleave(STRETCH, 1)[:, : near.shape[1]]
        return torch.cat([near, far], -1) * mask[..., None]


class FrameNetwork(nn.Module):
    """Logits and offsets of every type in every frame: (batch, time, channels) -> two tensors (batch, frames,
    num_events).

    The offset is how far the beginning of the event lies behind the middle of the frame, in frames.

    Parameters
    ----------
    input_size, hidden_size, resolution : of its `FrameEncoder`
    num_events : types
    dropout : in front of the last layer

    Raises
    ------
    OptionError : sizes below 1, a dropout outside of [0, 0.99]

    Examples
    --------
    >>> network = FrameNetwork(6, num_events=16, hidden_size=8)
    >>> [tuple(part.shape) for part in network(torch.zeros(2, 205, 6))]
    [(2, 21, 16), (2, 21, 16)]
    """

    @keep_arguments
    def __init__(self, input_size, num_events, hidden_size=48, resolution=10, dropout=0.1):
        super().__init__()
        require_int(1, num_events=num_events)
        require_number(0, MAX_DROPOUT, dropout=dropout)
        self.encoder = FrameEncoder(input_size, hidden_size, resolution)
        self.num_events, self.resolution = num_events, resolution
        near = nn.Conv1d(self.encoder.output_size, hidden_size, 3, padding=1)
        self.body = nn.Sequential(near, nn.GELU(), nn.Dropout(dropout))
        self.head = nn.Conv1d(hidden_size, 2 * num_events, 1)
        with torch.no_grad():
            self.head.bias[:num_events] = RARE
            self.head.bias[num_events:] = 0.0

    def forward(self, x: Tensor, lengths=None) -> tuple[Tensor, Tensor]:
        out = self.head(self.body(self.encoder(x, lengths).transpose(1, 2))).transpose(1, 2)
        return out[..., : self.num_events], out[..., self.num_events :]
