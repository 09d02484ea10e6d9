"""The encoder of the frame network: what each frame of a continuous signal sounds like, near and far.

(batch, time, channels) in, (batch, frames, features) out. A frame is ``resolution`` samples. The front end hears each
channel twice: strided filters keep the wave itself, which tells times, and band filters of two lengths keep the
logarithm of its energy, which tells kinds whatever their phase. Both are taken relative to the level of the signal in
the seconds around, so that gain and colour of another sensor cancel. Residual convolutions look at the frames nearby,
an LSTM on stretches of frames looks over seconds. The filters of the wave are learned; those of the bands are windowed
sines and stay so, because learning them takes nearly half of the time, in which more steps can be made.

Source: learned filters with log energies are those of audio front ends (Zeghidour et al., LEAF, 2021), the mean of the
logarithm is taken off as in cepstral mean normalisation; near and far sight on two grids as in seismic pickers (Zhu and
Beroza, PhaseNet, 2019; Mousavi et al., EQTransformer, 2020).
"""

import numpy as np
import torch
from torch import nn

from ..signals.errors import OptionError, require_int
from .encoders import LSTMEncoder, check_batch, frame_mask, pool_frames

# Band filters of each length, spaced evenly in log frequency from two periods in their window to nearly half the rate.
BANDS, HIGHEST = 12, 0.45
# Samples in the short and the long window, at least; where a frame is long, so many frames.
SHORTEST_WINDOW, WINDOW_HOPS, LONGER = 16, 4, 4
# The level of a signal is the mean of its log energy over so many frames to either side: seconds, longer than an event.
LEVEL_FRAMES = 512
# Frames in one step of the LSTM; dilations of the residual convolutions, of five frames each.
STRETCH = 8
DILATIONS = (1, 2, 4, 8)
# Waves this many times their level are bent: what is louder still says little more.
LOUD = 8.0
# Energy below this, where noise has about 1, is digital silence and no part of any level.
SILENCE = 1e-12


class FrameFrontEnd(nn.Module):
    """(B, T, C) -> (B, hidden_size, F): wave and band energies of each frame, relative to the level around.

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
        """``mask`` (B, F): frames that hold signal; ``x`` is zero behind the end of a sequence."""
        frames = mask.shape[1]
        x = nn.functional.pad(x.transpose(1, 2), (0, frames * self.hop - x.shape[1]))
        energy, level = self.relative_energy(x, mask)
        # One gain for each channel: the mean level of its bands, in amplitude.
        wave = x * torch.exp(-0.5 * level.mean(2)).repeat_interleave(self.hop, -1)
        wave = nn.functional.pad(wave * torch.rsqrt(1 + (wave / LOUD).square()), (2 * self.hop, 2 * self.hop))
        out = self.of_wave(wave)[..., :frames] + self.of_energy(energy.flatten(1, 2))
        return nn.functional.gelu(self.norm(out)) * mask[:, None]

    def relative_energy(self, x, mask):
        """(B, C, T) -> log energy over its level, and the level: two (B, C, 2 * BANDS, F), 0 where nothing is heard."""
        energy = torch.cat(
            [self._energy(x, weight, mask.shape[1]) for weight in (self.short_bands, self.long_bands)], 2
        )
        valid = mask[:, None, None] & (energy > SILENCE)
        energy = energy.clamp(min=SILENCE).log().masked_fill(~valid, 0)
        level = local_mean(energy, valid)
        return (energy - level).masked_fill(~valid, 0), level

    def _energy(self, x, weight, frames):
        """(B, C, T) -> (B, C, BANDS, F): energy of each band in a window around the middle of each frame."""
        batch, channels, _ = x.shape
        length = weight.shape[-1]
        left = length // 2 - self.hop // 2
        padded = nn.functional.pad(x.reshape(batch * channels, 1, -1), (left, length))
        pairs = nn.functional.conv1d(padded, weight, stride=self.hop)[..., :frames]
        return pairs.view(batch, channels, BANDS, 2, frames).square().sum(3)


def band_filters(length):
    """(2 * BANDS, 1, length) windowed cosines and sines of unit energy, from two periods to nearly half the rate."""
    frequency = np.geomspace(2 / length, HIGHEST, BANDS)
    phase = 2 * np.pi * frequency[:, None] * (np.arange(length) - (length - 1) / 2)
    window = np.hanning(length + 2)[1:-1]
    waves = np.stack([np.cos(phase), np.sin(phase)], 1) * window / np.sqrt((window**2).sum() / 2)
    return torch.tensor(waves.reshape(2 * BANDS, 1, length), dtype=torch.float32)


def local_mean(values, valid):
    """Mean over the valid frames within about ``LEVEL_FRAMES`` of each, along the last axis; ``values`` are 0
    elsewhere.

    Taken over stretches of frames, within which it hardly changes.
    """
    n, reach = values.shape[-1], LEVEL_FRAMES // STRETCH
    sums = []
    for part in (values, valid.to(values.dtype)):
        stretches = nn.functional.pad(part, (0, -n % STRETCH)).unflatten(-1, (-1, STRETCH)).sum(-1)
        total = nn.functional.pad(stretches.double().cumsum(-1), (1, 0))
        place = torch.arange(stretches.shape[-1], device=part.device)
        sums.append(total[..., (place + reach + 1).clamp(max=len(place))] - total[..., (place - reach).clamp(min=0)])
    mean = (sums[0] / sums[1].clamp(min=1)).to(values.dtype)
    return mean.repeat_interleave(STRETCH, -1)[..., :n]


class ResidualConvolution(nn.Module):
    """(B, size, F) -> (B, size, F): what five frames, ``dilation`` apart, add to the one in the middle."""

    def __init__(self, size, dilation):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(size, size, 5, 1, 2 * dilation, dilation), nn.BatchNorm1d(size), nn.GELU())

    def forward(self, x):
        return x + self.body(x)


class FrameEncoder(nn.Module):
    """(batch, time, channels) -> (batch, frames, 2 * hidden_size): near sight and far sight of each frame.

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

    def __init__(self, input_size, hidden_size=48, resolution=10):
        super().__init__()
        require_int(1, input_size=input_size, hidden_size=hidden_size, resolution=resolution)
        self.config = {"input_size": int(input_size), "hidden_size": int(hidden_size), "resolution": int(resolution)}
        self.input_size, self.resolution, self.output_size = int(input_size), int(resolution), 2 * int(hidden_size)
        self.front = FrameFrontEnd(self.input_size, hidden_size, self.resolution)
        self.near = nn.ModuleList(ResidualConvolution(hidden_size, dilation) for dilation in DILATIONS)
        self.far = LSTMEncoder(hidden_size, hidden_size, num_layers=1, dropout=0.0, resolution=STRETCH)
        self.of_far = nn.Linear(2 * hidden_size, hidden_size)

    def layers(self):
        """The parameters from output to input: far sight, the convolutions from the last to the first, the front
        end."""
        far = [*self.far.parameters(), *self.of_far.parameters()]
        return [far, *(list(block.parameters()) for block in reversed(self.near)), list(self.front.parameters())]

    def train(self, mode=True):
        """As ever, but a frozen encoder stays in evaluation: its normalisation is part of what is kept."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    def pooled(self, x, lengths=None):
        """(batch, time, channels) -> (batch, output_size): the mean over the frames of each sequence, padding left
        out."""
        lengths = check_batch(x, self.input_size, lengths)
        return pool_frames(self(x, lengths), frame_mask(lengths, x.shape[1], self.resolution))

    def forward(self, x, lengths=None):
        """(batch, time, channels) -> (batch, ceil(time / resolution), output_size); zero behind the end of a
        sequence."""
        lengths = check_batch(x, self.input_size, lengths)
        mask = frame_mask(lengths, x.shape[1], self.resolution)
        x = x.masked_fill(torch.arange(x.shape[1], device=x.device)[None, :, None] >= lengths[:, None, None], 0)
        near = self.front(x, mask)
        for block in self.near:
            near = block(near) * mask[:, None]
        near = near.transpose(1, 2)
        far = self.of_far(self.far(near, mask.sum(1))).repeat_interleave(STRETCH, 1)[:, : near.shape[1]]
        return torch.cat([near, far], -1) * mask[..., None]


# --- The frame network: which event begins in which frame of a continuous signal, learned from the signal itself.


# A type is rare in a frame: log odds that the untrained network begins with.
RARE = -4.0


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
    OptionError : sizes below 1, a dropout outside of [0, 1)

    Examples
    --------
    >>> network = FrameNetwork(6, num_events=16, hidden_size=8)
    >>> [tuple(part.shape) for part in network(torch.zeros(2, 205, 6))]
    [(2, 21, 16), (2, 21, 16)]
    """

    def __init__(self, input_size, num_events, hidden_size=48, resolution=10, dropout=0.1):
        super().__init__()
        require_int(1, num_events=num_events)
        if not 0 <= dropout < 1:
            raise OptionError(f"dropout must lie in [0, 1), got {dropout!r}")
        self.encoder = FrameEncoder(input_size, hidden_size, resolution)
        self.config = self.encoder.config | {"num_events": int(num_events), "dropout": float(dropout)}
        self.num_events, self.resolution = int(num_events), int(resolution)
        self.body = nn.Sequential(
            nn.Conv1d(self.encoder.output_size, hidden_size, 3, padding=1), nn.GELU(), nn.Dropout(dropout)
        )
        self.head = nn.Conv1d(hidden_size, 2 * num_events, 1)
        with torch.no_grad():
            self.head.bias[:num_events] = RARE
            self.head.bias[num_events:] = 0.0

    def forward(self, x, lengths=None):
        out = self.head(self.body(self.encoder(x, lengths).transpose(1, 2))).transpose(1, 2)
        return out[..., : self.num_events], out[..., self.num_events :]
