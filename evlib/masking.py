"""Which tokens of a batch a masked autoencoder does not see: exact counts, drawn from a ``torch.Generator``.

A token is one patch of one channel. Three kinds of masks, drawn for each sequence by itself: patches at random, spans of
neighbouring patches, and whole channels together with a few patches. Only valid patches and channels are counted.
"""

import torch

from .errors import OptionError
from .options import check_whole

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
    kind = torch.multinomial(torch.tensor(shares, dtype=torch.float64), len(patch_mask), replacement=True, generator=generator)
    kind = kind.to(patch_mask.device)[:, None]
    beside = random_patches(patch_mask, PATCHES_BESIDE, generator)
    patches = torch.where(kind == 0, random_patches(patch_mask, ratio, generator), span_patches(patch_mask, ratio, generator))
    patches = torch.where(kind == 2, beside, patches)
    dropped = random_channels(channel_mask, CHANNEL_DROPOUT, generator) & (kind == 2)
    hidden = (patches[:, :, None] | dropped[:, None]) & patch_mask[:, :, None] & channel_mask[:, None]
    return hidden, dropped


def random_patches(patch_mask, ratio, generator):
    """(batch, patches) bool: ``ratio`` of the valid patches of each sequence, rounded, at least 1, and never all of several."""
    return _lowest(_uniform(patch_mask, generator), patch_mask, _count(patch_mask, ratio))


def random_channels(channel_mask, ratio, generator):
    """(batch, channels) bool: ``ratio`` of the valid channels, rounded, at least 1, and never all."""
    count = _count(channel_mask, ratio).minimum(channel_mask.sum(1) - 1)
    return _lowest(_uniform(channel_mask, generator), channel_mask, count)


def span_patches(patch_mask, ratio, generator, span=SPAN_PATCHES):
    """(batch, patches) bool: as many as `random_patches` hides, in spans of ``span`` neighbours (the last may be cut).

    Spans lie at random places, whole; patches are hidden in the order in which spans reach them, up to the count.
    """
    check_whole(1, shortest_span=span[0], longest_span=span[1])
    size, n = patch_mask.shape
    length = torch.randint(span[0], span[1] + 1, (size, n), generator=generator, device=generator.device).to(patch_mask.device)
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
