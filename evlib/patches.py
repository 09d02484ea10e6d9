"""Patches: a signal cut into pieces of equal seconds, each at the same number of samples, normalised one by one.

Signals of any rate become patches (patches, PATCH_SAMPLES, channels). Each patch of a channel has mean 0 and standard
deviation 1; what that takes away, where a limb points and how hard it moves, is kept beside it as ``stats``: asinh of the mean
and log of the deviation (plus 0.01), which tell standing from lying and shaking from resting in m/s2 and in rad/s alike.

A batch is a dict of tensors: ``input`` (batch, patches, samples, channels), ``stats`` (batch, patches, channels, 2),
``patch_mask`` (batch, patches) and ``channel_mask`` (batch, channels), True where there is something, and
``channel_text`` (batch, channels, numbers), what the description of each channel says as a vector.
"""

import torch
import torch.nn.functional as F

from .errors import DataError, OptionError, ShapeError
from .timebase import check_rate

PATCH_SAMPLES = 64
MAX_PATCHES = 48
# Added to a deviation before its logarithm: the noise of a motion sensor at rest, in m/s2 or rad/s.
FLOOR = 0.01
ROUNDING = 1e-6


def patchify(x, sampling_rate_hz, patch_s, stride_s=None, n_samples=PATCH_SAMPLES):
    """Cut signals into patches of ``patch_s`` and interpolate each linearly to ``n_samples``; an incomplete end is left out.

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
    rate = check_rate(sampling_rate_hz)
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
        raise OptionError(f"a patch or stride of {seconds!r} s has {samples} samples at {rate:g} Hz, at least {least} are needed")
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

    ``channel_text`` (channels, numbers) : a vector for each channel, see `evlib.text`. ``normalise=False`` leaves patches as they
    are, for whitened signals, which have one scale already.
    """
    if not x.isfinite().all():
        raise DataError("the signals hold NaN or infinity: fill or cut out such samples first (validate_sessions shows where)")
    if len(channel_text) != x.shape[2]:
        raise ShapeError(f"channel_text must have a row for each of {x.shape[2]} channels, got {tuple(channel_text.shape)}")
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
    axes = {"input": (1, 3), "stats": (1, 2), "patch_mask": (1, None), "channel_mask": (None, 1), "channel_text": (None, 1)}
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
