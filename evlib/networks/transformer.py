"""Hashed words."""

import functools
import hashlib
import math
import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..signals.errors import DataError, OptionError, ShapeError, require_int, require_list, require_rate
from .encoders import check_batch, frame_mask, pool_frames, to_frames

TEXT_SIZE = 384


class HashedWords:
    """Sums of a pseudo-random vector for each word, with length 1: the same on every machine.

    >>> left, same, other = HashedWords()(["walking upstairs", "Upstairs, walking!", "sitting"])
    >>> bool((left == same).all()), round(float(left @ other), 1)
    (True, 0.0)
    """

    name = "hashed words"

    def __call__(self, texts):
        """Texts -> (n, 384) tensor of unit length."""
        rows = [
            sum((_word_vector(word) for word in _words(text)), start=np.zeros(TEXT_SIZE)) for text in check_texts(texts)
        ]
        return _unit(np.stack(rows))


def check_texts(texts):
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


def _unit(rows):
    rows = torch.tensor(rows, dtype=torch.float32)
    return rows / rows.norm(dim=1, keepdim=True)


# --- Patches: a signal cut into pieces of equal seconds, each at the same number of samples, normalised one by one.


PATCH_SAMPLES = 64
MAX_PATCHES = 48
# Added to a deviation before its logarithm: the noise of a motion sensor at rest, in m/s2 or rad/s.
FLOOR = 0.01
ROUNDING = 1e-6


def patchify(x, sampling_rate_hz, patch_s, stride_s=None, n_samples=PATCH_SAMPLES):
    """Cut signals into patches of ``patch_s`` and interpolate each linearly to ``n_samples``; an incomplete end is left
    out.

    Parameters
    ----------
    x : (batch, time, channels) float tensor
    sampling_rate_hz : samples per second
    patch_s, stride_s : seconds of a patch, and from one to the next (default: ``patch_s``)
    n_samples : samples of a patch afterwards

    Returns
    -------
    (batch, patches, n_samples, channels)

    Raises
    ------
    ShapeError, UnitError : wrong axes, a rate that is no positive number
    OptionError : a patch shorter than two samples or longer than the signals, no stride

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
        size = pieces.shape
        pieces = F.interpolate(pieces.reshape(-1, 1, length), n_samples, mode="linear", align_corners=False)
        pieces = pieces.view(*size[:3], n_samples)
    return pieces.transpose(2, 3)


def patch_samples(seconds, rate, least=2):
    """Whole samples in a patch; a thousandth of a sample that is missing is rounding."""
    samples = int(seconds * rate + 1e-3) if seconds > 0 else 0
    if samples < least:
        raise OptionError(
            f"a patch or stride of {seconds!r} s has {samples} samples at {rate:g} Hz, at least {least} are needed"
        )
    return samples


def normalise_patches(patches, eps=1e-8):
    """Each patch of each channel with mean 0 and deviation 1, and what that took away.

    Parameters
    ----------
    patches : (batch, patches, samples, channels)

    Returns
    -------
    input : as ``patches``; zeros for a constant one
    stats : (batch, patches, channels, 2), asinh of the mean and log of the deviation

    >>> patches, stats = normalise_patches(torch.tensor([1.0, 3.0]).view(1, 1, 2, 1))
    >>> patches.flatten(), stats.flatten().sinh()[0]
    (tensor([-1.,  1.]), tensor(2.))
    """
    mean, deviation = patches.mean(2, keepdim=True), patches.std(2, correction=0, keepdim=True)
    stats = torch.stack([mean.asinh(), (deviation + FLOOR).log()], -1)[:, :, 0]
    # What rounding leaves of a constant is no shape.
    constant = deviation <= ROUNDING * mean.abs()
    return ((patches - mean) / (deviation + eps)).masked_fill(constant, 0), stats


def make_batch(x, sampling_rate_hz, patch_s, channel_text, stride_s=None, n_samples=PATCH_SAMPLES, normalise=True):
    """The batch (see above) of signals (batch, time, channels) of one length; at most `MAX_PATCHES` patches of each.

    ``channel_text`` (channels, numbers) : a vector for each channel, see `evlib.motion.words`. ``normalise=False``
    leaves patches as they are, for whitened signals, which have one scale already.
    """
    if not x.isfinite().all():
        raise DataError(
            "the signals hold NaN or infinity: fill or cut out such samples first (validate_sessions shows where)"
        )
    if len(channel_text) != x.shape[2]:
        raise ShapeError(
            f"channel_text must have a row for each of {x.shape[2]} channels, got {tuple(channel_text.shape)}"
        )
    plain = patchify(x, sampling_rate_hz, patch_s, stride_s, n_samples)[:, :MAX_PATCHES]
    normalised, stats = normalise_patches(plain)
    patches = normalised if normalise else plain
    size, n_patches, _, channels = patches.shape
    return {
        "input": patches,
        "stats": stats,
        "patch_mask": torch.ones(size, n_patches, dtype=torch.bool),
        "channel_mask": torch.ones(size, channels, dtype=torch.bool),
        "channel_text": channel_text.to(x.dtype).expand(size, -1, -1),
    }


def join_batches(batches):
    """One batch of several with other numbers of patches or channels, padded with zeros and masked.

    >>> text = torch.zeros(9, 4)
    >>> batches = [make_batch(torch.ones(2, 100, c), 50.0, s, text[:c]) for c, s in ((6, 1.0), (9, 0.5))]
    >>> joined = join_batches(batches)
    >>> joined["input"].shape, joined["channel_mask"].sum(1).tolist()
    (torch.Size([4, 4, 64, 9]), [6, 6, 9, 9])
    """
    patches = max(batch["input"].shape[1] for batch in batches)
    channels = max(batch["input"].shape[3] for batch in batches)
    # The axes of patches and channels in each tensor.
    axes = {
        "input": (1, 3),
        "stats": (1, 2),
        "patch_mask": (1, None),
        "channel_mask": (None, 1),
        "channel_text": (None, 1),
    }
    joined = {}
    for name, (patch_axis, channel_axis) in axes.items():
        parts = []
        for batch in batches:
            value = batch[name]
            wanted = list(value.shape)
            if patch_axis is not None:
                wanted[patch_axis] = patches
            if channel_axis is not None:
                wanted[channel_axis] = channels
            padded = value.new_zeros(wanted)
            padded[tuple(slice(n) for n in value.shape)] = value
            parts.append(padded)
        joined[name] = torch.cat(parts)
    return joined


# --- Which tokens of a batch a masked autoencoder does not see: exact counts, drawn from a ``torch.Generator``.


MASK_KINDS = ("random", "span", "channel")
SHARES = (0.4, 0.4, 0.2)
SPAN_PATCHES = (2, 4)
CHANNEL_DROPOUT, PATCHES_BESIDE = 0.3, 0.15


def mask_tokens(patch_mask, channel_mask, generator, ratio=0.5, shares=SHARES):
    """Draw a kind of mask for each sequence, and the mask.

    Parameters
    ----------
    patch_mask : (batch, patches) bool, True where a patch is valid
    channel_mask : (batch, channels) bool
    generator : torch.Generator
    ratio : share of the valid patches that a random or a span mask hides
    shares : probabilities of random, span and channel masks

    Returns
    -------
    hidden : (batch, patches, channels) bool, True at valid tokens that are not to be seen
    dropped : (batch, channels) bool, True at channels of which nothing is seen

    Raises
    ------
    OptionError : a ratio outside of (0, 1), shares that are no three probabilities

    Examples
    --------
    >>> valid = torch.ones(1, 8, dtype=torch.bool), torch.ones(1, 6, dtype=torch.bool)
    >>> hidden, _ = mask_tokens(*valid, torch.Generator().manual_seed(0), shares=(1, 0, 0))
    >>> hidden.sum(1).tolist()
    [[4, 4, 4, 4, 4, 4]]
    """
    if not 0 < ratio < 1:
        raise OptionError(f"ratio must lie strictly between 0 and 1, got {ratio!r}")
    if len(shares) != len(MASK_KINDS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise OptionError(f"shares must be {len(MASK_KINDS)} probabilities that add up to 1, got {shares!r}")
    kind = torch.multinomial(
        torch.tensor(shares, dtype=torch.float64), len(patch_mask), replacement=True, generator=generator
    )
    kind = kind.to(patch_mask.device)[:, None]
    beside = random_patches(patch_mask, PATCHES_BESIDE, generator)
    patches = torch.where(
        kind == 0, random_patches(patch_mask, ratio, generator), span_patches(patch_mask, ratio, generator)
    )
    patches = torch.where(kind == 2, beside, patches)
    dropped = random_channels(channel_mask, CHANNEL_DROPOUT, generator) & (kind == 2)
    hidden = (patches[:, :, None] | dropped[:, None]) & patch_mask[:, :, None] & channel_mask[:, None]
    return hidden, dropped


def random_patches(patch_mask, ratio, generator):
    """(batch, patches) bool: ``ratio`` of the valid patches of each sequence, rounded, at least 1, and never all of
    several."""
    return _lowest(_uniform(patch_mask, generator), patch_mask, _count(patch_mask, ratio))


def random_channels(channel_mask, ratio, generator):
    """(batch, channels) bool: ``ratio`` of the valid channels, rounded, at least 1, and never all."""
    count = _count(channel_mask, ratio).minimum(channel_mask.sum(1) - 1)
    return _lowest(_uniform(channel_mask, generator), channel_mask, count)


def span_patches(patch_mask, ratio, generator, span=SPAN_PATCHES):
    """(batch, patches) bool: as many as `random_patches` hides, in spans of ``span`` neighbours (the last may be cut).

    Spans lie at random places, whole; patches are hidden in the order in which spans reach them, up to the count.
    """
    require_int(1, shortest_span=span[0], longest_span=span[1])
    size, n = patch_mask.shape
    length = torch.randint(span[0], span[1] + 1, (size, n), generator=generator, device=generator.device).to(
        patch_mask.device
    )
    # Patch p belongs to the span from s if s <= p < s + length: it is hidden when the first such span is.
    step = torch.arange(n, device=patch_mask.device)
    turn = _uniform(patch_mask, generator).masked_fill(step + length > patch_mask.sum(1, keepdim=True), 2.0)
    inside = (step >= step[:, None]) & (step < step[:, None] + length[:, :, None])  # (batch, span, patch)
    reached = torch.where(inside, turn[:, :, None], 2.0).amin(1)
    # Patches of one span have the same turn: in order from its start.
    return _lowest(reached.double() + 1e-9 * step, patch_mask, _count(patch_mask, ratio))


def _count(mask, ratio):
    valid = mask.sum(1)
    return (ratio * valid).round().long().clamp(min=1).minimum((valid - 1).clamp(min=1))


def _uniform(mask, generator):
    return torch.rand(mask.shape, generator=generator, device=generator.device).to(mask.device)


def _lowest(values, mask, count):
    """True at the ``count`` (batch,) lowest values of each row among those of the mask."""
    rank = values.masked_fill(~mask, torch.inf).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return (rank < count[:, None]) & mask


# --- A transformer over patches of many channels: attention over time and over channels in turn.


# Width, heads and blocks. "nano" is for a CPU; the others are those of the original.
SIZES = {
    "nano": {"d_model": 64, "num_heads": 4, "num_layers": 2},
    "tiny": {"d_model": 192, "num_heads": 8, "num_layers": 4},
    "small": {"d_model": 384, "num_heads": 8, "num_layers": 4},
    "small-deep": {"d_model": 384, "num_heads": 8, "num_layers": 8},
    "medium": {"d_model": 512, "num_heads": 8, "num_layers": 8},
    "large": {"d_model": 512, "num_heads": 8, "num_layers": 12},
}
FRAME_HEADS = 4
# Parts of a patch that the convolutions keep apart: one would forget where in the patch something was.
TOKEN_PARTS = 4
SHORT_PATCH = 32
# Added to amplitudes before their logarithm, where white noise has 1.
SPECTRUM_FLOOR = 0.1


class DualBranchEncoder(nn.Module):
    """Tokens of patches, then blocks of attention over time, attention over channels and a feed-forward network.

    After the IMU activity recognition encoder (TSFM). Differences: mean and deviation of a patch go into its token; the
    convolutions keep four parts of a patch apart; the vectors of descriptions come from outside.

    Parameters
    ----------
    d_model, num_heads, num_layers : width of a token, attention heads, blocks; see ``SIZES`` and `of_size`
    dropout : probability, in the tokens and the blocks
    text_size : numbers in the vector of a description
    patch_samples : samples in a patch

    Raises
    ------
    OptionError : sizes below 1, heads that do not divide the width, a dropout outside of [0, 1), an unknown size

    Examples
    --------
    >>> from evlib.networks.transformer import make_batch
    >>> encoder = DualBranchEncoder.of_size("nano", text_size=8)
    >>> encoder(make_batch(torch.zeros(2, 100, 6), 50.0, 0.5, torch.zeros(6, 8))).shape
    torch.Size([2, 4, 6, 64])
    """

    def __init__(
        self, d_model=384, num_heads=8, num_layers=4, dropout=0.1, text_size=TEXT_SIZE, patch_samples=PATCH_SAMPLES
    ):
        super().__init__()
        sizes = {"d_model": d_model, "num_heads": num_heads, "num_layers": num_layers, "text_size": text_size}
        sizes["patch_samples"] = patch_samples
        require_int(1, **sizes)
        if d_model % num_heads or d_model % 2:
            raise OptionError(f"d_model must be even and a multiple of {num_heads} heads, got {d_model}")
        if not 0 <= dropout < 1:
            raise OptionError(f"dropout must lie in [0, 1), got {dropout!r}")
        # Python's own numbers, so that a checkpoint holds nothing else.
        self.config = {name: int(size) for name, size in sizes.items()} | {"dropout": float(dropout)}
        self.output_size, self.patch_samples = int(d_model), int(patch_samples)
        self.tokenizer = PatchTokenizer(d_model, patch_samples, dropout)
        self.mask_token = nn.Parameter(0.02 * torch.randn(d_model))
        self.time_scale = nn.Parameter(torch.tensor(0.1))
        self.channel_code = ChannelCode(text_size, d_model)
        self.blocks = nn.ModuleList(DualBranchBlock(d_model, num_heads, dropout) for _ in range(num_layers))

    @classmethod
    def of_size(cls, size, **options):
        """An encoder of one of the ``SIZES``."""
        if size not in SIZES:
            raise OptionError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
        return cls(**SIZES[size] | options)

    def forward(self, batch, hidden=None):
        """Encode a batch.

        Parameters
        ----------
        batch : see `evlib.networks.transformer`
        hidden : (batch, patches, channels) bool, True at tokens that are not to be seen

        Returns
        -------
        (batch, patches, channels, d_model), zero at padding

        Raises
        ------
        ShapeError : tensors that do not fit each other or the encoder
        """
        patches, stats, valid = self._check(batch)
        tokens = self.tokenizer(patches.transpose(2, 3), stats)
        if hidden is not None:
            tokens = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
        places = sinusoids(tokens.shape[1], tokens.shape[3]).to(tokens)
        channels = self.channel_code(batch["channel_text"].masked_fill(~batch["channel_mask"][..., None], 0))
        tokens = tokens + self.time_scale * places[:, None] + channels[:, None]
        for block in self.blocks:
            tokens = block(tokens, batch["patch_mask"], batch["channel_mask"])
        return tokens.masked_fill(~valid[..., None], 0)

    def pooled(self, batch):
        """(batch, d_model): the mean of all valid tokens."""
        valid = batch["patch_mask"].sum(1) * batch["channel_mask"].sum(1)
        return self(batch).sum((1, 2)) / valid[:, None]

    def _check(self, batch):
        """Patches and stats without what stands at padding, and the mask of valid tokens."""
        patches, stats = batch["input"], batch["stats"]
        size, n_patches, n_samples, channels = patches.shape
        wanted = {
            "stats": (size, n_patches, channels, 2),
            "patch_mask": (size, n_patches),
            "channel_mask": (size, channels),
            "channel_text": (size, channels, self.config["text_size"]),
        }
        wrong = [
            f"{name} {tuple(batch[name].shape)}, not {shape}"
            for name, shape in wanted.items()
            if batch[name].shape != shape
        ]
        if wrong or n_samples != self.patch_samples:
            raise ShapeError(
                f"the encoder reads patches (batch, patches, {self.patch_samples}, channels), got "
                f"{tuple(patches.shape)}" + "".join(f"; {line}" for line in wrong)
            )
        if not (batch["patch_mask"].any(1) & batch["channel_mask"].any(1)).all():
            raise ShapeError("each sequence of a batch needs a valid patch and a valid channel")
        valid = batch["patch_mask"][:, :, None] & batch["channel_mask"][:, None]
        return patches.masked_fill(~valid[:, :, None], 0), stats.masked_fill(~valid[..., None], 0), valid


def summarise_tokens(tokens):
    """(batch, patches, channels, d_model) -> (batch, channels * 3 * d_model): mean, maximum and deviation over the
    patches.

    Channel by channel, for windows without padding. A mean alone forgets what came once: a step, a turn.

    >>> summarise_tokens(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).round(decimals=3)
    tensor([[2., 3., 1.]])
    """
    # The root of 0 has no slope.
    deviation = (tokens.var(1, correction=0) + 1e-6).sqrt()
    return torch.cat([tokens.mean(1), tokens.amax(1), deviation], -1).flatten(1)


class PatchFrameEncoder(nn.Module):
    """A `DualBranchEncoder` in the place of an `LSTMEncoder`: frames of a signal are its patches, channels are
    averaged.

    The same arguments, so that either can be handed to a classifier; ``hidden_size`` is the width of a token.

    Parameters
    ----------
    input_size : channels; they are told apart by their numbers
    hidden_size, num_layers : width of a token, blocks
    dropout : probability
    bidirectional : must be True, attention looks both ways
    resolution : samples in a frame

    Examples
    --------
    >>> encoder = PatchFrameEncoder(6, hidden_size=16, num_layers=1)
    >>> encoder(torch.zeros(2, 105, 6)).shape
    torch.Size([2, 11, 16])
    """

    def __init__(self, input_size, hidden_size=64, num_layers=2, dropout=0.1, bidirectional=True, resolution=10):
        super().__init__()
        require_int(1, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        require_int(2, resolution=resolution)
        if not bidirectional:
            raise OptionError("attention looks both ways: a PatchFrameEncoder needs bidirectional=True")
        self.config = {"input_size": int(input_size), "hidden_size": int(hidden_size), "num_layers": int(num_layers)}
        self.config |= {"dropout": float(dropout), "bidirectional": True, "resolution": int(resolution)}
        self.input_size, self.resolution, self.output_size = int(input_size), int(resolution), int(hidden_size)
        self.patches = DualBranchEncoder(hidden_size, FRAME_HEADS, num_layers, dropout, TEXT_SIZE, resolution)
        self.register_buffer("channel_text", HashedWords()(frame_channels(input_size)), persistent=False)

    def layers(self):
        """The parameters from output to input: the top block first, what makes tokens of samples last."""
        blocks = [list(block.parameters()) for block in reversed(self.patches.blocks)]
        inside = {id(parameter) for block in blocks for parameter in block}
        return [*blocks, [parameter for parameter in self.parameters() if id(parameter) not in inside]]

    def pooled(self, x, lengths=None):
        """(batch, time, channels) -> (batch, output_size): the mean of each sequence, padding left out."""
        lengths = check_batch(x, self.input_size, lengths)
        return pool_frames(self(x, lengths), frame_mask(lengths, x.shape[1], self.resolution))

    def forward(self, x, lengths=None):
        """(batch, time, channels) -> (batch, ceil(time / resolution), output_size); zero behind the end of a
        sequence."""
        lengths = check_batch(x, self.input_size, lengths)
        batch, time, channels = x.shape
        # Whitened signals have one scale: patches stay as they are.
        patches = to_frames(x, lengths, self.resolution)
        stats = normalise_patches(patches)[1]
        tokens = self.patches(
            {
                "input": patches,
                "stats": stats,
                "patch_mask": frame_mask(lengths, time, self.resolution),
                "channel_mask": torch.ones(batch, channels, dtype=torch.bool, device=x.device),
                "channel_text": self.channel_text.to(x.dtype).expand(batch, -1, -1),
            }
        )
        return tokens.mean(2)


def frame_channels(n):
    """What the channels of a `PatchFrameEncoder` are called: their numbers.

    >>> frame_channels(2)
    ('channel 1', 'channel 2')
    """
    return tuple(f"channel {k + 1}" for k in range(n))


class PatchTokenizer(nn.Module):
    """(..., patch_samples) and stats (..., 2) -> (..., d_model): the same convolutions for every channel.

    A patch of less than ``SHORT_PATCH`` samples has no room for convolutions: its samples are taken as they are.
    """

    def __init__(self, d_model, patch_samples, dropout):
        super().__init__()
        convolutions = (
            nn.Conv1d(1, 32, 5, stride=2, padding=2),
            nn.GroupNorm(1, 32),
            nn.GELU(),
            nn.Conv1d(32, 64, 5, stride=2, padding=2),
            nn.GroupNorm(1, 64),
            nn.GELU(),
            nn.AdaptiveAvgPool1d(TOKEN_PARTS),
            nn.Flatten(),
        )
        short = patch_samples < SHORT_PATCH
        self.convolutions = nn.Flatten() if short else nn.Sequential(*convolutions)
        features = patch_samples if short else 64 * TOKEN_PARTS
        self.of_shape = small_mlp(features + patch_samples // 2 + 1, d_model, dropout)
        # By itself, or its two numbers would be lost among the others.
        self.of_stats = small_mlp(2, d_model, dropout)

    def forward(self, patches, stats):
        parts = self.convolutions(patches.reshape(-1, 1, patches.shape[-1]))
        parts = parts.view(*patches.shape[:-1], -1)
        return self.of_shape(torch.cat([parts, log_spectrum(patches).to(parts.dtype)], -1)) + self.of_stats(
            stats.to(parts.dtype)
        )


def small_mlp(inputs, d_model, dropout):
    return nn.Sequential(nn.Linear(inputs, d_model), nn.GELU(), nn.Dropout(dropout), nn.Linear(d_model, d_model))


def log_spectrum(patches):
    """(..., samples) -> (..., samples // 2 + 1): log amplitudes of the frequencies in each normalised patch.

    >>> log_spectrum(torch.zeros(3, 64)).shape
    torch.Size([3, 33])
    """
    # In full precision: half precision has no transform of every length.
    amplitude = torch.fft.rfft(patches.float(), norm="ortho").abs()
    return (amplitude + SPECTRUM_FLOOR).log()


class ChannelCode(nn.Module):
    """The vector of a description -> what is added to the tokens of its channel."""

    def __init__(self, text_size, d_model):
        super().__init__()
        self.linear = nn.Linear(text_size, d_model)
        self.mlp = nn.Sequential(nn.Linear(text_size, d_model), nn.GELU(), nn.Linear(d_model, d_model))
        nn.init.zeros_(self.mlp[-1].weight)
        nn.init.zeros_(self.mlp[-1].bias)

    def forward(self, text):
        return self.linear(text) + self.mlp(text)


class DualBranchBlock(nn.Module):
    """Attention over the patches of a channel, over the channels of a patch, feed-forward; each added, then
    normalised."""

    def __init__(self, d_model, num_heads, dropout):
        super().__init__()
        # Dropout of attention weights would need all of them at once: it is left to what comes after.
        self.over_time = nn.MultiheadAttention(d_model, num_heads, batch_first=True)
        self.over_channels = nn.MultiheadAttention(d_model, num_heads, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * d_model, d_model)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, patch_mask, channel_mask):
        size, patches, channels, width = x.shape
        rows = x.transpose(1, 2).reshape(-1, patches, width)  # (batch * channels, patches, width)
        rows = self._attend(self.over_time, rows, patch_mask.repeat_interleave(channels, 0), 0)
        rows = rows.view(size, channels, patches, width).transpose(1, 2).reshape(-1, channels, width)
        rows = self._attend(self.over_channels, rows, channel_mask.repeat_interleave(patches, 0), 1)
        x = rows.view(size, patches, channels, width)
        return self.norms[2](x + self.dropout(self.feed_forward(x)))

    def _attend(self, attention, rows, mask, norm):
        # Without padding the attention is faster without a mask.
        padding = None if mask.all() else ~mask
        attended, _ = attention(rows, rows, rows, key_padding_mask=padding, need_weights=False)
        return self.norms[norm](rows + self.dropout(attended))


def sinusoids(n, width):
    """(n, width): sines and cosines of the place in a sequence.

    >>> sinusoids(2, 4)[0]
    tensor([0., 0., 1., 1.])
    """
    frequency = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    phase = torch.arange(n)[:, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], 1)
