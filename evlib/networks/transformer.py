"""A transformer over patches of many channels, in which attention over time and over channels alternate.

A *patch* is a short stretch of one channel, resampled to a fixed number of samples; a *token* is its vector. A *batch*
is a dict of tensors:

- ``input`` (batch, patches, samples, channels), the patches, each usually with mean 0 and deviation 1;
- ``stats`` (batch, patches, channels, 2), what that normalisation removed, see `normalise_patches`;
- ``patch_mask`` (batch, patches) and ``channel_mask`` (batch, channels), bool, False at padding;
- ``channel_text`` (batch, channels, text_size), a vector that describes each channel.

`make_batch` cuts it from signals, `mask_tokens` draws which tokens a masked model must predict, `DualBranchEncoder`
encodes it, and `PatchFrameEncoder` takes the place of an LSTM encoder.
"""

import functools
import hashlib
import math
import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..signals.errors import DataError, OptionError, ShapeError, require_int, require_list, require_number, require_rate
from .encoders import MAX_DROPOUT, Encoder, frame_mask, keep_arguments, require_shape, to_frames, two_layers

# Numbers in the vector of a text: those of the sentence encoders that may take the place of hashed words.
TEXT_SIZE = 384


class HashedWords:
    """Vectors of texts: the sum of a pseudo-random vector for each word, scaled to length 1; equal on every machine.

    >>> left, same, other = HashedWords()(["walking upstairs", "Upstairs, walking!", "sitting"])
    >>> bool((left == same).all()), round(float(left @ other), 1)
    (True, 0.0)
    """

    name = "hashed words"

    def __call__(self, texts: list[str]) -> Tensor:
        """Vectors (n, 384) of n texts."""
        rows = [sum(map(_word_vector, _words(text))) for text in check_texts(texts)]
        return F.normalize(torch.tensor(np.stack(rows), dtype=torch.float32))


def check_texts(texts) -> list[str]:
    """Return texts as a list; refuse what holds no word of a to z or 0 to 9."""
    require_list(texts=texts)
    texts = list(texts)
    if not texts or not all(isinstance(text, str) and _words(text) for text in texts):
        raise DataError(f"texts must be words, got {texts!r}")
    return texts


def _words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


@functools.cache
def _word_vector(word):
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).normal(size=TEXT_SIZE)


# --- Patches: stretches of equal duration, each resampled to the same number of samples and normalised.


# Samples of a patch after resampling, and the largest number of patches of one signal in a batch (memory).
PATCH_SAMPLES, MAX_PATCHES = 64, 48
# Channels whose numbers a `PatchFrameEncoder` knows: each is a vector in memory.
MOST_CHANNELS = 4096
# Added to a deviation before its logarithm: the noise of a motion sensor at rest, in m/s2 or rad/s.
FLOOR = 0.01
# A deviation below this share of the mean is a rounding error of single precision.
ROUNDING = 1e-6


def patchify(
    x: Tensor, sampling_rate_hz: float, patch_s: float, stride_s: float | None = None, n_samples: int = PATCH_SAMPLES
) -> Tensor:
    """Cut signals into patches of ``patch_s`` and interpolate each linearly to ``n_samples``; an incomplete patch at
    the end is left out.

    Parameters
    ----------
    x : (batch, time, channels) float tensor
    sampling_rate_hz : samples per second
    patch_s, stride_s : seconds of a patch, and from one to the next (default: ``patch_s``)
    n_samples : samples of a patch after the interpolation

    Returns
    -------
    (batch, patches, n_samples, channels)

    Raises
    ------
    ShapeError, UnitError : wrong axes, a rate that is not a positive number
    OptionError : a patch of less than two samples or longer than the signals, a stride of less than one sample

    Examples
    --------
    >>> patchify(torch.zeros(2, 128, 6), 50.0, patch_s=0.64).shape
    torch.Size([2, 4, 64, 6])
    """
    if x.ndim != 3 or 0 in x.shape:
        raise ShapeError(f"signals must be (batch, time, channels) without an empty axis, got {tuple(x.shape)}")
    rate = require_rate(sampling_rate_hz)
    length, step = patch_samples(patch_s, rate), patch_samples(patch_s if stride_s is None else stride_s, rate, least=1)
    if length > x.shape[1]:
        raise OptionError(
            f"a patch of {patch_s:g} s is longer than the signals of {x.shape[1] / rate:g} s (seconds, not samples?)"
        )
    pieces = x.unfold(1, length, step)  # (batch, patches, channels, length)
    if length != n_samples:
        rows = F.interpolate(pieces.reshape(-1, 1, length), n_samples, mode="linear", align_corners=False)
        pieces = rows.view(*pieces.shape[:3], n_samples)
    return pieces.transpose(2, 3)


def patch_samples(seconds: float, rate: float, least: int = 2) -> int:
    """Whole samples in a patch or stride of ``seconds``; what is up to 1/1000 sample short of one counts as whole."""
    samples = int(seconds * rate + 1e-3) if seconds > 0 else 0
    if samples < least:
        raise OptionError(
            f"a patch or stride of {seconds!r} s has {samples} samples at {rate:g} Hz, at least {least} are needed"
        )
    return samples


def normalise_patches(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Each patch of each channel with mean 0 and deviation 1, and the mean and deviation that were removed.

    Parameters
    ----------
    patches : (batch, patches, samples, channels)

    Returns
    -------
    input : as ``patches``; zeros for a constant patch
    stats : (batch, patches, channels, 2), asinh of the mean and log of the deviation

    >>> patches, stats = normalise_patches(torch.tensor([1.0, 3.0]).view(1, 1, 2, 1))
    >>> patches.flatten(), stats.flatten().sinh()[0]
    (tensor([-1.,  1.]), tensor(2.))
    """
    mean, deviation = patches.mean(2, keepdim=True), patches.std(2, correction=0, keepdim=True)
    stats = torch.stack([mean.asinh(), (deviation + FLOOR).log()], -1)[:, :, 0]
    return ((patches - mean) / (deviation + 1e-8)).masked_fill(deviation <= ROUNDING * mean.abs(), 0), stats


def make_batch(
    x: Tensor,
    sampling_rate_hz: float,
    patch_s: float,
    channel_text: Tensor,
    stride_s: float | None = None,
    n_samples: int = PATCH_SAMPLES,
    normalise: bool = True,
) -> dict[str, Tensor]:
    """A batch from signals (batch, time, channels) of one length; at most `MAX_PATCHES` patches of each.

    ``channel_text`` (channels, numbers) is a vector for each channel, such as `HashedWords` of its name.
    ``normalise=False`` leaves patches as they are, for whitened signals, whose scale is the same everywhere.
    """
    if not x.isfinite().all():
        raise DataError(
            "the signals hold NaN or infinity: fill or cut out such samples first (validate_sessions shows where)"
        )
    if len(channel_text) != x.shape[2]:
        raise ShapeError(
            f"channel_text must have a row for each of {x.shape[2]} channels, got {tuple(channel_text.shape)}"
        )
    patches = patchify(x, sampling_rate_hz, patch_s, stride_s, n_samples)[:, :MAX_PATCHES]
    normalised, stats = normalise_patches(patches)
    mask = torch.ones(patches.shape[:2], dtype=torch.bool)
    return _as_batch(normalised if normalise else patches, stats, mask, channel_text)


def _as_batch(patches, stats, patch_mask, channel_text):
    size, _, _, channels = patches.shape
    return {
        "input": patches,
        "stats": stats,
        "patch_mask": patch_mask,
        "channel_mask": torch.ones(size, channels, dtype=torch.bool, device=patches.device),
        "channel_text": channel_text.to(patches.dtype).expand(size, -1, -1),
    }


def join_batches(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One batch from several that differ in patches or channels, padded with zeros and masked.

    >>> text = torch.zeros(9, 4)
    >>> batches = [make_batch(torch.ones(2, 100, c), 50.0, s, text[:c]) for c, s in ((6, 1.0), (9, 0.5))]
    >>> joined = join_batches(batches)
    >>> joined["input"].shape, joined["channel_mask"].sum(1).tolist()
    (torch.Size([4, 4, 64, 9]), [6, 6, 9, 9])
    """
    joined = {}
    for name in batches[0]:
        parts = [batch[name] for batch in batches]
        shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        joined[name] = parts[0].new_zeros(sum(map(len, parts)), *shape)
        for rows, part in zip(joined[name].split([len(part) for part in parts]), parts, strict=True):
            rows[tuple(slice(n) for n in part.shape)] = part
    return joined


# --- Which tokens are hidden from a masked model.


# Shares of sequences with a random mask, a span mask and a channel mask.
SHARES = (0.4, 0.4, 0.2)
# Least and greatest number of patches in a span.
SPAN_PATCHES = (2, 4)
# A channel mask hides this share of the channels, and this share of the patches of the others.
CHANNEL_DROPOUT, PATCHES_BESIDE = 0.3, 0.15


def mask_tokens(
    patch_mask: Tensor, channel_mask: Tensor, generator: torch.Generator, ratio: float = 0.5, shares: tuple = SHARES
) -> tuple[Tensor, Tensor]:
    """Draw the kind of each sequence's mask, and the mask.

    Parameters
    ----------
    patch_mask : (batch, patches) bool, True where a patch is valid
    channel_mask : (batch, channels) bool
    generator : source of the random numbers
    ratio : share of the valid patches that a random or a span mask hides
    shares : probabilities of random, span and channel masks

    Returns
    -------
    hidden : (batch, patches, channels) bool, True at valid tokens that are hidden
    dropped : (batch, channels) bool, True at channels that are hidden completely

    Raises
    ------
    OptionError : a ratio outside of (0, 1), shares that are not three probabilities

    Examples
    --------
    >>> valid = torch.ones(1, 8, dtype=torch.bool), torch.ones(1, 6, dtype=torch.bool)
    >>> hidden, _ = mask_tokens(*valid, torch.Generator().manual_seed(0), shares=(1, 0, 0))
    >>> hidden.sum(1).tolist()
    [[4, 4, 4, 4, 4, 4]]
    """
    if not 0 < ratio < 1:
        raise OptionError(f"ratio must lie strictly between 0 and 1, got {ratio!r}")
    if len(shares) != len(SHARES) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise OptionError(f"shares must be {len(SHARES)} probabilities that add up to 1, got {shares!r}")
    chances = torch.tensor(shares, dtype=torch.float64)
    kind = torch.multinomial(chances, len(patch_mask), replacement=True, generator=generator)
    kind = kind.to(patch_mask.device)[:, None]
    beside = random_patches(patch_mask, PATCHES_BESIDE, generator)
    random, span = random_patches(patch_mask, ratio, generator), span_patches(patch_mask, ratio, generator)
    patches = torch.where(kind == 0, random, torch.where(kind == 1, span, beside))
    # A signal of one channel keeps it.
    several = channel_mask.sum(1, keepdim=True) > 1
    dropped = random_patches(channel_mask, CHANNEL_DROPOUT, generator) & several & (kind == 2)
    hidden = (patches[:, :, None] | dropped[:, None]) & patch_mask[:, :, None] & channel_mask[:, None]
    return hidden, dropped


def random_patches(patch_mask: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """(batch, patches) bool: ``ratio`` of the valid patches of each sequence, rounded; at least 1, and where there are
    several, not all."""
    return _lowest(_uniform(patch_mask, generator), patch_mask, ratio)


def span_patches(patch_mask: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """(batch, patches) bool: as many as `random_patches` hides, in spans of `SPAN_PATCHES` neighbours.

    Spans begin at random places and are hidden one after the other until the number is reached; the last may be cut.
    """
    size, n = patch_mask.shape
    shortest, longest = SPAN_PATCHES
    length = torch.randint(shortest, longest + 1, (size, n), generator=generator, device=generator.device)
    length, step = length.to(patch_mask.device), torch.arange(n, device=patch_mask.device)
    # The turn of the span that begins at each patch; 2 is later than all, for spans that would leave the signal.
    turn = _uniform(patch_mask, generator).masked_fill(step + length > patch_mask.sum(1, keepdim=True), 2.0)
    # Patch p belongs to the span from s if s <= p < s + length: it is hidden when the first such span is.
    inside = (step >= step[:, None]) & (step < step[:, None] + length[:, :, None])  # (batch, span, patch)
    reached = torch.where(inside, turn[:, :, None], 2.0).amin(1)
    # Patches of one span have the same turn: in order from its start.
    return _lowest(reached.double() + 1e-9 * step, patch_mask, ratio)


def _uniform(mask, generator):
    return torch.rand(mask.shape, generator=generator, device=generator.device).to(mask.device)


def _lowest(values, mask, ratio):
    """True at the lowest ``values`` among those of the mask: ``ratio`` of them, as in `random_patches`."""
    valid = mask.sum(1)
    count = (ratio * valid).round().long().clamp(min=1).minimum((valid - 1).clamp(min=1))
    rank = values.masked_fill(~mask, torch.inf).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return (rank < count[:, None]) & mask


# --- The transformer.


# Width, heads and blocks. "nano" is for a CPU; the others are those of the original.
SIZES = {
    "nano": {"d_model": 64, "num_heads": 4, "num_layers": 2},
    "tiny": {"d_model": 192, "num_heads": 8, "num_layers": 4},
    "small": {"d_model": 384, "num_heads": 8, "num_layers": 4},
    "small-deep": {"d_model": 384, "num_heads": 8, "num_layers": 8},
    "medium": {"d_model": 512, "num_heads": 8, "num_layers": 8},
    "large": {"d_model": 512, "num_heads": 8, "num_layers": 12},
}
# Attention heads of a `PatchFrameEncoder`.
FRAME_HEADS = 4
# Parts of a patch that the convolutions keep apart: an average over the whole patch would lose where an event was.
TOKEN_PARTS = 4
# A patch of fewer samples has no room for the convolutions.
SHORT_PATCH = 32
# Added to amplitudes before their logarithm, where white noise has 1.
SPECTRUM_FLOOR = 0.1


class DualBranchEncoder(nn.Module):
    """Tokens of patches, then blocks of attention over time, attention over channels and a feed-forward network.

    After the IMU activity recognition encoder (TSFM). Differences: mean and deviation of a patch go into its token; the
    convolutions keep four parts of a patch apart; the vectors of descriptions come from outside.

    Parameters
    ----------
    d_model, num_heads, num_layers : width of a token, attention heads, blocks; `SIZES` lists common ones
    dropout : probability, in the tokens and the blocks
    text_size : numbers in the vector of a description
    patch_samples : samples in a patch

    Raises
    ------
    OptionError : sizes below 1, heads that do not divide the width, a dropout outside of [0, 0.99]

    Examples
    --------
    >>> encoder = DualBranchEncoder(**SIZES["nano"], text_size=8)
    >>> encoder(make_batch(torch.zeros(2, 100, 6), 50.0, 0.5, torch.zeros(6, 8))).shape
    torch.Size([2, 4, 6, 64])
    """

    config: dict

    @keep_arguments
    def __init__(
        self, d_model=384, num_heads=8, num_layers=4, dropout=0.1, text_size=TEXT_SIZE, patch_samples=PATCH_SAMPLES
    ):
        super().__init__()
        require_int(1, d_model=d_model, num_heads=num_heads, num_layers=num_layers)
        require_int(1, text_size=text_size, patch_samples=patch_samples)
        require_number(0, MAX_DROPOUT, dropout=dropout)
        if d_model % num_heads or d_model % 2:
            raise OptionError(f"d_model must be even and a multiple of {num_heads} heads, got {d_model}")
        self.output_size, self.patch_samples, self.text_size = d_model, patch_samples, text_size
        self.tokenizer = PatchTokenizer(d_model, patch_samples, dropout)
        self.mask_token = nn.Parameter(0.02 * torch.randn(d_model))
        self.time_scale = nn.Parameter(torch.tensor(0.1))
        self.channel_code = ChannelCode(text_size, d_model)
        self.blocks = nn.ModuleList(DualBranchBlock(d_model, num_heads, dropout) for _ in range(num_layers))

    def forward(self, batch: dict[str, Tensor], hidden: Tensor | None = None) -> Tensor:
        """Encode a batch (see the top of the file).

        Parameters
        ----------
        batch : dict of tensors
        hidden : (batch, patches, channels) bool, True at tokens that the encoder must not see

        Returns
        -------
        (batch, patches, channels, d_model), zero at padding

        Raises
        ------
        ShapeError : tensors that do not fit each other or the encoder
        """
        require_shape(("batch", "patches", self.patch_samples, "channels"), input=batch["input"])
        size, n_patches, _, channels = batch["input"].shape
        patch_mask, channel_mask, text = batch["patch_mask"], batch["channel_mask"], batch["channel_text"]
        require_shape((size, n_patches, channels, 2), stats=batch["stats"])
        require_shape((size, n_patches), patch_mask=patch_mask)
        require_shape((size, channels), channel_mask=channel_mask)
        require_shape((size, channels, self.text_size), channel_text=text)
        if not (patch_mask.any(1) & channel_mask.any(1)).all():
            raise ShapeError("each sequence of a batch needs a valid patch and a valid channel")
        padding = ~(patch_mask[:, :, None] & channel_mask[:, None])
        patches = batch["input"].masked_fill(padding[:, :, None], 0).transpose(2, 3)
        tokens = self.tokenizer(patches, batch["stats"].masked_fill(padding[..., None], 0))
        if hidden is not None:
            tokens = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
        places = sinusoids(n_patches, tokens.shape[3]).to(tokens)
        codes = self.channel_code(text.masked_fill(~channel_mask[..., None], 0))
        tokens = tokens + self.time_scale * places[:, None] + codes[:, None]
        for block in self.blocks:
            tokens = block(tokens, patch_mask, channel_mask)
        return tokens.masked_fill(padding[..., None], 0)


def summarise_tokens(tokens: Tensor) -> Tensor:
    """(batch, patches, channels, d_model) -> (batch, channels * 3 * d_model): mean, maximum and deviation over the
    patches.

    Channel by channel, for windows without padding. A mean alone loses what occurs once: a step, a turn.

    >>> summarise_tokens(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).round(decimals=3)
    tensor([[2., 3., 1.]])
    """
    # The gradient of a root at 0 is infinite.
    deviation = (tokens.var(1, correction=0) + 1e-6).sqrt()
    return torch.cat([tokens.mean(1), tokens.amax(1), deviation], -1).flatten(1)


class PatchFrameEncoder(Encoder):
    """A `DualBranchEncoder` in the place of an `LSTMEncoder`: patches are the frames of a signal, the tokens of its
    channels are averaged.

    Parameters
    ----------
    input_size : channels, described by their numbers
    hidden_size, num_layers : width of a token, blocks
    dropout : probability
    bidirectional : must be True, attention sees past and future
    resolution : samples in a frame

    Examples
    --------
    >>> encoder = PatchFrameEncoder(6, hidden_size=16, num_layers=1)
    >>> encoder(torch.zeros(2, 105, 6)).shape
    torch.Size([2, 11, 16])
    """

    @keep_arguments
    def __init__(self, input_size, hidden_size=64, num_layers=2, dropout=0.1, bidirectional=True, resolution=10):
        super().__init__()
        require_int(1, input_size=input_size, hidden_size=hidden_size)
        require_int(2, resolution=resolution)
        require_number(1, MOST_CHANNELS, input_size=input_size)
        if not bidirectional:
            raise OptionError("attention sees past and future: a PatchFrameEncoder needs bidirectional=True")
        self.input_size, self.resolution, self.output_size = input_size, resolution, hidden_size
        self.patches = DualBranchEncoder(hidden_size, FRAME_HEADS, num_layers, dropout, TEXT_SIZE, resolution)
        self.register_buffer("channel_text", HashedWords()(frame_channels(input_size)), persistent=False)

    def states(self, x, lengths):
        # Whitened signals have one scale: patches are not normalised.
        patches = to_frames(x, lengths, self.resolution)
        mask = frame_mask(lengths, x.shape[1], self.resolution)
        batch = _as_batch(patches, normalise_patches(patches)[1], mask, self.channel_text)
        return self.patches(batch).mean(2)


def frame_channels(n: int) -> tuple[str, ...]:
    """Descriptions of the channels in a `PatchFrameEncoder`: their numbers.

    >>> frame_channels(2)
    ('channel 1', 'channel 2')
    """
    return tuple(f"channel {k + 1}" for k in range(n))


class PatchTokenizer(nn.Module):
    """(..., patch_samples) and stats (..., 2) -> (..., d_model), by the same convolutions for every channel.

    The samples of a patch shorter than `SHORT_PATCH` are used without convolutions.
    """

    def __init__(self, d_model, patch_samples, dropout):
        super().__init__()
        convolutions = []
        for inputs, outputs in ((1, 32), (32, 64)):
            convolutions += [nn.Conv1d(inputs, outputs, 5, stride=2, padding=2), nn.GroupNorm(1, outputs), nn.GELU()]
        short = patch_samples < SHORT_PATCH
        average = nn.Sequential(*convolutions, nn.AdaptiveAvgPool1d(TOKEN_PARTS), nn.Flatten())
        self.convolutions = nn.Flatten() if short else average
        features = patch_samples if short else 64 * TOKEN_PARTS
        between = nn.GELU(), nn.Dropout(dropout)
        self.of_shape = two_layers(features + patch_samples // 2 + 1, d_model, d_model, *between)
        # Apart from the shape, or these two numbers would be lost among the others.
        self.of_stats = two_layers(2, d_model, d_model, *between)

    def forward(self, patches, stats):
        parts = self.convolutions(patches.reshape(-1, 1, patches.shape[-1])).view(*patches.shape[:-1], -1)
        shape = torch.cat([parts, log_spectrum(patches).to(parts.dtype)], -1)
        return self.of_shape(shape) + self.of_stats(stats.to(parts.dtype))


def log_spectrum(patches: Tensor) -> Tensor:
    """(..., samples) -> (..., samples // 2 + 1): log amplitude at each frequency of a normalised patch.

    >>> log_spectrum(torch.zeros(3, 64)).shape
    torch.Size([3, 33])
    """
    # In single precision: half precision has no Fourier transform for every length.
    return (torch.fft.rfft(patches.float(), norm="ortho").abs() + SPECTRUM_FLOOR).log()


class ChannelCode(nn.Module):
    """The vector of a description -> the vector that is added to the tokens of its channel."""

    def __init__(self, text_size, d_model):
        super().__init__()
        self.linear = nn.Linear(text_size, d_model)
        self.mlp = two_layers(text_size, d_model, d_model, nn.GELU())
        nn.init.zeros_(self.mlp[-1].weight)
        nn.init.zeros_(self.mlp[-1].bias)

    def forward(self, text):
        return self.linear(text) + self.mlp(text)


class DualBranchBlock(nn.Module):
    """Attention over the patches of a channel, over the channels of a patch, feed-forward; each added, then
    normalised."""

    def __init__(self, d_model, num_heads, dropout):
        super().__init__()
        # Dropout of attention weights would need all of them in memory; the dropout after the attention is enough.
        self.over_time = nn.MultiheadAttention(d_model, num_heads, batch_first=True)
        self.over_channels = nn.MultiheadAttention(d_model, num_heads, batch_first=True)
        self.feed_forward = two_layers(d_model, 4 * d_model, d_model, nn.GELU(), nn.Dropout(dropout))
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, patch_mask, channel_mask):
        size, patches, channels, width = x.shape
        rows = x.transpose(1, 2).reshape(-1, patches, width)  # (batch * channels, patches, width)
        rows = self._attend(self.over_time, rows, patch_mask.repeat_interleave(channels, 0), self.norms[0])
        rows = rows.view(size, channels, patches, width).transpose(1, 2).reshape(-1, channels, width)
        rows = self._attend(self.over_channels, rows, channel_mask.repeat_interleave(patches, 0), self.norms[1])
        x = rows.view(size, patches, channels, width)
        return self.norms[2](x + self.dropout(self.feed_forward(x)))

    def _attend(self, attention, rows, mask, norm):
        # Attention is faster without a mask where nothing is padded.
        padding = None if mask.all() else ~mask
        attended, _ = attention(rows, rows, rows, key_padding_mask=padding, need_weights=False)
        return norm(rows + self.dropout(attended))


def sinusoids(n: int, width: int) -> Tensor:
    """(n, width): sines and cosines of the place in a sequence.

    >>> sinusoids(2, 4)[0]
    tensor([0., 0., 1., 1.])
    """
    frequency = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    phase = torch.arange(n)[:, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], 1)
