"""Patches, masks and the dual-branch encoder: interpolation, exact counts, padding, any number of channels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evlib import LSTMEventClassifier, load_encoder, transfer_encoder
from evlib.motion.align import TextAlignedModel
from evlib.networks.pretext import MaskedPatchModel
from evlib.networks.transformer import (
    FLOOR,
    SIZES,
    DualBranchEncoder,
    HashedWords,
    PatchFrameEncoder,
    join_batches,
    make_batch,
    mask_tokens,
    normalise_patches,
    patchify,
    random_patches,
    span_patches,
    summarise_tokens,
)
from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.training.checkpoints import save_encoder

TEXT = HashedWords()([f"channel {k}" for k in range(23)])[:, :16]
TINY = {"d_model": 16, "num_heads": 2, "num_layers": 2, "text_size": 16}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def encoder(**options):
    return DualBranchEncoder(**TINY | options).eval().requires_grad_(False)


def batch_of(size=3, channels=6, seconds=4.0):
    return make_batch(torch.randn(size, round(50 * seconds), channels), 50.0, 0.5, TEXT[:channels])


def copy(batch):
    return {name: value.clone() for name, value in batch.items()}


# --- patches


@given(rate=st.sampled_from([20.0, 50.0, 100.0, 2000.0]), patch_s=st.floats(0.2, 2.0), n=st.sampled_from([16, 64]))
@settings(max_examples=30)
def test_patches_are_linear_interpolations_of_whole_pieces(rate, patch_s, n):
    x = torch.randn(2, round(5 * rate), 3, generator=generator(), dtype=torch.float64)
    length = int(patch_s * rate + 1e-3)
    patches = patchify(x, rate, patch_s, n_samples=n)
    assert patches.shape == (2, x.shape[1] // length, n, 3)
    place = (np.arange(n) + 0.5) * length / n - 0.5  # centres of n equal parts
    for p in range(patches.shape[1]):
        wanted = np.interp(place, np.arange(length), x[1, p * length : (p + 1) * length, 2].numpy())
        np.testing.assert_allclose(patches[1, p, :, 2].numpy(), wanted, atol=1e-9)


def test_a_patch_of_its_own_length_is_not_changed_and_strides_overlap():
    x = torch.arange(10.0)[None, :, None]
    patches = patchify(x, 10.0, 0.4, 0.2, n_samples=4)[0, :, :, 0]
    assert patches.tolist() == [[k, k + 1, k + 2, k + 3] for k in (0, 2, 4, 6)]
    assert patchify(x, 10.0, 0.3, n_samples=3).shape[1] == 3, "an incomplete end is left out"


def test_normalising_keeps_mean_and_deviation_beside_the_patch():
    x = torch.randn(4, 5, 64, 2, dtype=torch.float64) * 3 + 9.8
    patches, stats = normalise_patches(x)
    torch.testing.assert_close(patches.mean(2), torch.zeros(4, 5, 2, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(patches.std(2, correction=0), torch.ones(4, 5, 2, dtype=torch.float64))
    mean, deviation = stats[..., 0].sinh(), stats[..., 1].exp() - FLOOR
    torch.testing.assert_close(patches * deviation[:, :, None] + mean[:, :, None], x, atol=1e-5, rtol=1e-5)
    constants = torch.linspace(-20, 20, 1001).view(-1, 1, 1, 1).expand(-1, 1, 64, 1)
    assert normalise_patches(constants)[0].abs().max() == 0, "rounding errors of a constant are no shape"
    faint = 9.8 + 1e-4 * torch.randn(1, 1, 64, 1)
    assert normalise_patches(faint)[0].std().item() == pytest.approx(1.0, rel=0.05)


def test_signals_that_cannot_be_cut_are_refused():
    for seconds, words in (
        ((100,), "longer than the signals of 2 s"),
        ((0.001,), "0 samples at 50 Hz"),
        ((1.0, 0), "stride of 0 s"),
    ):
        with pytest.raises(OptionError, match=words):
            patchify(torch.zeros(1, 100, 2), 50.0, *seconds)
    with pytest.raises(ShapeError, match="without an empty axis"):
        patchify(torch.zeros(100, 2), 50.0, 1.0)
    with pytest.raises(DataError, match="NaN or infinity"):
        make_batch(torch.full((1, 100, 2), torch.nan), 50.0, 1.0, torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="a row for each of 2 channels"):
        make_batch(torch.zeros(1, 100, 2), 50.0, 1.0, torch.zeros(3, 4))


# --- masks


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 1000), st.sampled_from([0.15, 0.3, 0.5, 0.75]))
def test_masks_have_exact_counts_and_stay_inside(n_patches, n_channels, seed, ratio):
    g = generator(seed)
    patches = torch.arange(n_patches) < torch.randint(1, n_patches + 1, (6, 1), generator=g)
    channels = torch.rand(6, n_channels, generator=g) < 0.7
    channels[:, 0] = True
    wanted = (ratio * patches.sum(1)).round().clamp(min=1).minimum((patches.sum(1) - 1).clamp(min=1))
    for draw in (random_patches, span_patches):
        hidden = draw(patches, ratio, g)
        assert torch.equal(hidden.sum(1), wanted.long()) and not (hidden & ~patches).any()
    hidden, dropped = mask_tokens(patches, channels, g, shares=(0, 0, 1))
    assert (channels & ~dropped).any(1).all() and not (dropped & ~channels).any(), "never all channels"
    wanted = (0.3 * channels.sum(1)).round().long().clamp(min=1).minimum(channels.sum(1) - 1)
    assert torch.equal(dropped.sum(1), wanted) and not (hidden & ~(patches[:, :, None] & channels[:, None])).any()


@given(st.integers(6, 30), st.integers(0, 1000))
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
    assert (hidden.transpose(1, 2)[~dropped].sum(1) == 2).all(), "15 % of ten patches, rounded"
    hidden, dropped = mask_tokens(patches, channels, generator())
    assert 0.1 < dropped.any(1).float().mean() < 0.3, "a fifth of the sequences loses channels"
    assert torch.equal(hidden, mask_tokens(patches, channels, generator())[0])
    for wrong in ({"ratio": 0.0}, {"ratio": 1.0}, {"shares": (1, 1, 1)}, {"shares": (1, 0)}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            mask_tokens(patches, channels, generator(), **wrong)


# --- the encoder


def test_the_same_weights_read_6_9_and_23_channels():
    one, batches = encoder(), [batch_of(channels=channels) for channels in (6, 9, 23)]
    for batch, together in zip(batches, one(join_batches(batches)).split(3), strict=True):
        alone = one(batch)
        assert alone.shape == (3, 8, batch["input"].shape[3], 16)
        torch.testing.assert_close(together[:, :, : alone.shape[2]], alone, atol=1e-5, rtol=1e-4)
        assert not together[:, :, alone.shape[2] :].any(), "channels of padding are zero"


@pytest.mark.parametrize("garbage", [1e6, torch.nan, torch.inf])
@pytest.mark.parametrize("kind", [MaskedPatchModel, TextAlignedModel])
def test_garbage_at_padding_changes_nothing(garbage, kind):
    model = kind(**TINY).eval()
    clean = join_batches([batch_of(2, 6, 4.0), batch_of(2, 9, 2.0)])
    valid = clean["patch_mask"][:, :, None] & clean["channel_mask"][:, None]
    dirty = copy(clean)
    dirty["input"].masked_fill_(~valid[:, :, None], garbage)
    dirty["stats"].masked_fill_(~valid[..., None], garbage)
    dirty["channel_text"].masked_fill_(~clean["channel_mask"][..., None], garbage)
    results = []
    for batch in (clean, dirty):
        model.zero_grad()
        out = model(batch)
        out = out if torch.is_tensor(out) else torch.cat([out["projection"].flatten(), out["shape"][valid].flatten()])
        (out[:, 0] if kind is TextAlignedModel else out.square()).sum().backward()
        results.append([out, *(p.grad for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_channels_are_a_set_and_patches_are_a_sequence():
    one, batch, order = encoder(), batch_of(), torch.tensor([3, 0, 5, 1, 4, 2])
    out = one(batch)
    mixed = {"stats": batch["stats"][:, :, order], "channel_text": batch["channel_text"][:, order]}
    mixed |= {"input": batch["input"][..., order]}
    torch.testing.assert_close(one(batch | mixed), out[:, :, order], atol=1e-5, rtol=1e-4)
    turned = one(batch | {name: batch[name].flip(1) for name in ("input", "stats")}).flip(1)
    assert (turned - out).abs().max() > 1e-3, "time has a direction"
    renamed = one(batch | {"channel_text": batch["channel_text"].flip(1)})
    assert (renamed - out).abs().max() > 1e-3, "the description of a channel matters"


def test_a_hidden_token_is_not_seen():
    one, batch = encoder(), batch_of()
    hidden = torch.zeros(3, 8, 6, dtype=torch.bool)
    hidden[:, 2:4] = True
    other = copy(batch)
    other["input"][:, 2:4], other["stats"][:, 2:4] = 7.0, -3.0
    assert torch.equal(one(batch, hidden), one(other, hidden)) and not torch.equal(one(batch), one(other))


def test_both_branches_carry_information():
    """A change in one patch of one channel reaches other patches and other channels, and no other sequence."""
    one, batch = encoder(), batch_of()
    other = copy(batch)
    other["input"][0, 5, :, 2] *= -1
    change = (one(other) - one(batch)).abs().amax(-1)
    assert change[0].min() > 0 and not change[1:].any()


@pytest.mark.parametrize("kind", [MaskedPatchModel, TextAlignedModel])
def test_gradients_reach_every_parameter(kind):
    model, batch = kind(**TINY), batch_of()
    # The last layer of a channel's code begins at zero: the one before it learns from the second step on.
    late = {"encoder.channel_code.mlp.0.weight", "encoder.channel_code.mlp.0.bias"}
    if kind is MaskedPatchModel:
        out = model(batch, torch.rand(3, 8, 6) < 0.5).values()
    else:
        out = [torch.einsum("if,jkf->ijk", model(batch), model.prototypes(TEXT[:5])) * model.log_scale.exp()]
        late |= {"encoder.mask_token"}  # nothing is hidden from an aligned model
    sum((value * torch.randn_like(value)).sum() for value in out).backward()
    assert {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()} == late


def test_sizes_are_those_of_the_original():
    sizes = [(SIZES[name]["d_model"], SIZES[name]["num_layers"]) for name in ("tiny", "small-deep", "large")]
    assert sizes == [(192, 4), (384, 8), (512, 12)]
    assert 9e6 < sum(p.numel() for p in DualBranchEncoder(**SIZES["small"]).parameters()) < 21e6


@pytest.mark.parametrize(
    ("options", "words"),
    [({"d_model": 15}, "even"), ({"num_heads": 3}, "multiple of 3"), ({"dropout": 1.0}, "dropout")],
)
def test_impossible_encoders_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        encoder(**options)


@pytest.mark.parametrize("name", ["input", "stats", "channel_text", "patch_mask"])
def test_batches_that_do_not_fit_are_refused(name):
    batch = batch_of()
    wrong = {
        "input": (batch["input"][:, :, :32], "input must have shape"),
        "stats": (batch["stats"][:, :4], "stats must have shape"),
        "channel_text": (batch["channel_text"][..., :4], "channel_text must have shape"),
        "patch_mask": (torch.zeros_like(batch["patch_mask"]), "a valid patch"),
    }
    with pytest.raises(ShapeError, match=wrong[name][1]):
        encoder()(batch | {name: wrong[name][0]})


def test_an_encoder_of_frames_goes_into_a_file_and_into_the_classifier(tmp_path):
    one, x = PatchFrameEncoder(6, 16, 1, dropout=0.0).eval(), torch.randn(2, 200, 6)
    save_encoder(tmp_path / "encoder.pth", one, {"pretext": "masked"})
    read, metadata = load_encoder(tmp_path / "encoder.pth")
    assert torch.equal(read(x), one(x)) and metadata["pretext"] == "masked"
    classifier = LSTMEventClassifier(6, 16, 1, 4, dropout=0.0, encoder="dual-branch").eval()
    transfer_encoder(read, classifier)
    assert torch.equal(classifier.encoder(x), one(x)) and classifier(x).timing_logits.shape == (2, 20, 4)
    with pytest.raises(OptionError, match="cannot be loaded into a LSTMEncoder"):
        transfer_encoder(read, LSTMEventClassifier(6, 16, 1, 4))
    with pytest.raises(OptionError, match="encoder must be one of lstm, dual-branch"):
        LSTMEventClassifier(encoder="transformer")
    with pytest.raises(OptionError, match="needs bidirectional=True"):
        PatchFrameEncoder(6, bidirectional=False)


def test_a_summary_has_a_gradient_everywhere():
    tokens = torch.ones(2, 3, 4, 5, requires_grad=True)
    summarise_tokens(tokens).square().sum().backward()
    assert tokens.grad.isfinite().all(), "equal patches, as of a sensor at rest, have no deviation"
    one = torch.randn(2, 1, 4, 5)
    summary = summarise_tokens(one).view(2, 4, 3, 5)
    assert torch.equal(summary[:, :, 0], one[:, 0]) and summary.isfinite().all()
