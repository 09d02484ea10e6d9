"""Patches and masks: interpolation against NumPy, what normalising keeps, exact counts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evlib.networks.transformer import (
    FLOOR,
    join_batches,
    make_batch,
    mask_tokens,
    normalise_patches,
    patchify,
    random_channels,
    random_patches,
    span_patches,
)
from evlib.signals.errors import DataError, OptionError, ShapeError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(rate=st.sampled_from([20.0, 50.0, 100.0, 2000.0]), patch_s=st.floats(0.2, 2.0), n=st.sampled_from([16, 64]))
@settings(max_examples=30, deadline=None)
def test_patches_are_linear_interpolations_of_whole_pieces(rate, patch_s, n):
    x = torch.randn(2, round(5 * rate), 3, generator=generator(), dtype=torch.float64)
    length = int(patch_s * rate + 1e-3)
    patches = patchify(x, rate, patch_s, n_samples=n)
    assert patches.shape == (2, x.shape[1] // length, n, 3)
    place = (np.arange(n) + 0.5) * length / n - 0.5  # centres of n equal parts, align_corners=False
    for p in range(patches.shape[1]):
        piece = x[1, p * length : (p + 1) * length, 2].numpy()
        expected = np.interp(place, np.arange(length), piece)
        np.testing.assert_allclose(patches[1, p, :, 2].numpy(), expected, atol=1e-9)


def test_a_patch_of_its_own_length_is_not_changed_and_strides_overlap():
    x = torch.arange(10.0)[None, :, None]
    assert patchify(x, 10.0, 0.4, 0.2, n_samples=4)[0, :, :, 0].tolist() == [
        [k, k + 1, k + 2, k + 3] for k in (0, 2, 4, 6)
    ]
    assert patchify(x, 10.0, 0.3, n_samples=3).shape[1] == 3, "an incomplete end is left out"


def test_normalising_keeps_posture_and_strength_beside_the_patch():
    x = torch.randn(4, 5, 64, 2, generator=generator(), dtype=torch.float64) * 3 + 9.8
    patches, stats = normalise_patches(x)
    torch.testing.assert_close(patches.mean(2), torch.zeros(4, 5, 2, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(patches.std(2, correction=0), torch.ones(4, 5, 2, dtype=torch.float64))
    mean, deviation = stats[..., 0].sinh(), stats[..., 1].exp() - FLOOR
    torch.testing.assert_close(patches * deviation[:, :, None] + mean[:, :, None], x, atol=1e-5, rtol=1e-5)
    constants = torch.linspace(-20, 20, 1001).view(-1, 1, 1, 1).expand(-1, 1, 64, 1)
    assert normalise_patches(constants)[0].abs().max() == 0, (
        "a constant patch has no shape, whatever rounding makes of it"
    )
    faint = 9.8 + 1e-4 * torch.randn(1, 1, 64, 1, generator=generator())
    assert normalise_patches(faint)[0].std().item() == pytest.approx(1.0, rel=0.05), "a faint one has"


def test_what_cannot_be_cut_is_refused():
    x = torch.zeros(1, 100, 2)
    with pytest.raises(OptionError, match="longer than the signals of 2 s"):
        patchify(x, 50.0, 100)
    with pytest.raises(OptionError, match="0 samples at 50 Hz"):
        patchify(x, 50.0, 0.001)
    with pytest.raises(OptionError, match="stride of 0 s"):
        patchify(x, 50.0, 1.0, 0)
    with pytest.raises(ShapeError, match="without an empty axis"):
        patchify(x[0], 50.0, 1.0)
    with pytest.raises(DataError, match="NaN or infinity"):
        make_batch(x * torch.nan, 50.0, 1.0, torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="a row for each of 2 channels"):
        make_batch(x, 50.0, 1.0, torch.zeros(3, 4))


def test_joined_batches_hold_each_batch_in_its_corner():
    text = torch.randn(9, 4, generator=generator())
    parts = [make_batch(torch.randn(2, 100, c), 50.0, s, text[:c]) for c, s in ((6, 1.0), (9, 0.5))]
    joined = join_batches(parts)
    for part, rows in zip(parts, (slice(0, 2), slice(2, 4)), strict=True):
        n, c = part["input"].shape[1], part["input"].shape[3]
        assert torch.equal(joined["input"][rows, :n, :, :c], part["input"])
        assert torch.equal(joined["channel_text"][rows, :c], part["channel_text"])
        assert joined["patch_mask"][rows].sum() == 2 * n and joined["channel_mask"][rows].sum() == 2 * c


masks = st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(0, 1000))


def valid_masks(n_patches, n_channels, seed):
    """Some sequences of other lengths and channels, each with at least one of both."""
    g = generator(seed)
    patches = torch.arange(n_patches) < torch.randint(1, n_patches + 1, (6, 1), generator=g)
    channels = torch.rand(6, n_channels, generator=g) < 0.7
    channels[:, 0] = True
    return patches, channels


@given(masks, st.sampled_from([0.15, 0.3, 0.5, 0.75]))
@settings(max_examples=60, deadline=None)
def test_masks_have_exact_counts_and_stay_inside(sizes, ratio):
    patches, channels = valid_masks(*sizes)
    valid = patches.sum(1)
    wanted = (ratio * valid).round().clamp(min=1).minimum((valid - 1).clamp(min=1))
    for draw in (random_patches, span_patches):
        hidden = draw(patches, ratio, generator(sizes[2]))
        assert torch.equal(hidden.sum(1), wanted.long()) and not (hidden & ~patches).any()
    dropped = random_channels(channels, 0.3, generator(sizes[2]))
    assert (channels & ~dropped).any(1).all() and not (dropped & ~channels).any()
    assert torch.equal(dropped.sum(1), (0.3 * channels.sum(1)).round().long().clamp(min=1).minimum(channels.sum(1) - 1))


@given(st.integers(6, 30), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_spans_are_runs(n, seed):
    hidden = span_patches(torch.ones(8, n, dtype=torch.bool), 0.5, generator(seed))
    for row in hidden.numpy():
        edges = np.flatnonzero(np.diff(np.r_[0, row.astype(int), 0]))
        runs = edges[1::2] - edges[::2]
        # Only the last span may be cut; runs of other spans have at least two patches.
        assert (runs == 1).sum() <= 1 and runs.sum() == round(n * 0.5)


def test_kinds_of_masks():
    patches, channels = torch.ones(200, 10, dtype=torch.bool), torch.ones(200, 6, dtype=torch.bool)
    hidden, dropped = mask_tokens(patches, channels, generator(), shares=(0, 0, 1))
    assert (dropped.sum(1) == 2).all() and (hidden.transpose(1, 2)[dropped]).all()
    kept = hidden.transpose(1, 2)[~dropped]
    assert (kept.sum(1) == 2).all(), "15 % of ten patches, rounded"
    hidden, dropped = mask_tokens(patches, channels, generator())
    assert 0.1 < dropped.any(1).float().mean() < 0.3, "a fifth of the sequences loses channels"
    again, _ = mask_tokens(patches, channels, generator())
    assert torch.equal(hidden, again)
    for wrong in ({"ratio": 0.0}, {"ratio": 1.0}, {"shares": (1, 1, 1)}, {"shares": (1, 0)}):
        with pytest.raises(OptionError):
            mask_tokens(patches, channels, generator(), **wrong)
