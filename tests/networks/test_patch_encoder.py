"""The dual-branch encoder: padding, any number of channels, order of both axes, gradients; and as the encoder of event
models."""

import pytest
import torch

from evlib import LSTMEventClassifier, load_encoder, transfer_encoder
from evlib.motion.align import TextAlignedModel
from evlib.networks.pretext import MaskedPatchModel
from evlib.networks.transformer import (
    SIZES,
    DualBranchEncoder,
    HashedWords,
    PatchFrameEncoder,
    join_batches,
    make_batch,
    summarise_tokens,
)
from evlib.signals.errors import OptionError, ShapeError
from evlib.training.checkpoints import save_encoder

TEXT = HashedWords()([f"channel {k}" for k in range(23)])[:, :16]


def encoder(**options):
    torch.manual_seed(0)
    return DualBranchEncoder(**{"d_model": 16, "num_heads": 2, "num_layers": 2, "text_size": 16} | options).eval()


def batch_of(size=3, channels=6, seconds=4.0, patch_s=0.5, seed=0):
    x = torch.randn(size, round(50 * seconds), channels, generator=torch.Generator().manual_seed(seed))
    return make_batch(x, 50.0, patch_s, TEXT[:channels])


def test_the_same_weights_read_6_9_and_23_channels():
    one = encoder()
    outputs = {}
    with torch.no_grad():
        for channels in (6, 9, 23):
            batch = batch_of(channels=channels)
            outputs[channels] = one(batch), batch
            assert outputs[channels][0].shape == (3, 8, channels, 16)
        joined = one(join_batches([batch for _, batch in outputs.values()]))
    for k, (alone, _) in enumerate(outputs.values()):
        together = joined[3 * k : 3 * k + 3]
        torch.testing.assert_close(together[:, :, : alone.shape[2]], alone, atol=1e-5, rtol=1e-4)
        assert not together[:, :, alone.shape[2] :].any(), "padding channels are zero"


@pytest.mark.parametrize("garbage", [1e6, torch.nan, torch.inf])
@pytest.mark.parametrize("kind", [MaskedPatchModel, TextAlignedModel])
def test_garbage_at_padding_changes_nothing(garbage, kind):
    torch.manual_seed(0)
    model = kind(d_model=16, num_heads=2, num_layers=2, text_size=16).eval()
    clean = join_batches([batch_of(2, 6, 4.0), batch_of(2, 9, 2.0, seed=1)])
    valid = clean["patch_mask"][:, :, None] & clean["channel_mask"][:, None]
    dirty = {name: value.clone() for name, value in clean.items()}
    dirty["input"].masked_fill_(~valid[:, :, None], garbage)
    dirty["stats"].masked_fill_(~valid[..., None], garbage)
    dirty["channel_text"].masked_fill_(~clean["channel_mask"][..., None], garbage)
    results = []
    for batch in (clean, dirty):
        model.zero_grad()
        out = model(batch)
        out = out if torch.is_tensor(out) else torch.cat([out["projection"].flatten(), out["shape"][valid].flatten()])
        out.square().sum().backward() if kind is MaskedPatchModel else out[:, 0].sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((out.detach(), gradient))
    assert torch.equal(results[0][0], results[1][0])
    assert results[1][1].isfinite().all() and torch.equal(results[0][1], results[1][1])


def test_channels_are_a_set_and_patches_are_not():
    one, batch = encoder(), batch_of()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    mixed = batch | {
        "input": batch["input"][..., order],
        "stats": batch["stats"][:, :, order],
        "channel_text": batch["channel_text"][:, order],
    }
    with torch.no_grad():
        torch.testing.assert_close(one(mixed), one(batch)[:, :, order], atol=1e-5, rtol=1e-4)
        turned = batch | {name: batch[name].flip(1) for name in ("input", "stats")}
        assert (one(turned).flip(1) - one(batch)).abs().max() > 1e-3, "time has a direction"
        renamed = batch | {"channel_text": batch["channel_text"].flip(1)}
        assert (one(renamed) - one(batch)).abs().max() > 1e-3, "what a channel is called matters"


def test_a_hidden_token_is_not_seen():
    one, batch = encoder(), batch_of()
    hidden = torch.zeros(3, 8, 6, dtype=torch.bool)
    hidden[:, 2:4] = True
    other = {name: value.clone() for name, value in batch.items()}
    other["input"][:, 2:4] = 7.0
    other["stats"][:, 2:4] = -3.0
    with torch.no_grad():
        assert torch.equal(one(batch, hidden), one(other, hidden))
        assert not torch.equal(one(batch), one(other))


def test_both_branches_carry_information():
    """A change in one patch of one channel reaches other patches and other channels, and no other sequence."""
    one, batch = encoder(), batch_of()
    other = {name: value.clone() for name, value in batch.items()}
    other["input"][0, 5, :, 2] *= -1
    with torch.no_grad():
        change = (one(other) - one(batch)).abs().amax(-1)
    assert change[0].min() > 0 and not change[1:].any()


def test_posture_is_not_lost():
    """Two windows that differ in nothing but their mean, or their strength, have other tokens."""
    wave = torch.sin(torch.arange(200) / 5)[None, :, None].expand(-1, -1, 6)
    one = encoder()
    with torch.no_grad():
        lying, standing, strong = (one(make_batch(x, 50.0, 0.5, TEXT[:6])) for x in (wave, wave + 9.8, 5 * wave))
    assert (lying - standing).abs().max() > 1e-2 and (lying - strong).abs().max() > 1e-2


def test_gradients_reach_every_parameter():
    for kind, options in ((MaskedPatchModel, {}), (TextAlignedModel, {"num_prototypes": 3})):
        model = kind(d_model=16, num_heads=2, num_layers=2, text_size=16, **options)
        batch = batch_of()
        if kind is MaskedPatchModel:
            out = model(batch, torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(0)) < 0.5)
            sum((value * torch.randn_like(value)).sum() for value in out.values()).backward()
            missing = set()
        else:
            similarity = torch.einsum("if,jkf->ijk", model(batch), model.prototypes(TEXT[:5]))
            (similarity * model.log_scale.exp() * torch.randn_like(similarity)).sum().backward()
            missing = {"encoder.mask_token"}  # nothing is hidden in the second stage
        without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        # The last layer of a channel's code begins at zero: the one before it learns from the second step on.
        assert without == missing | {"encoder.channel_code.mlp.0.weight", "encoder.channel_code.mlp.0.bias"}, without


def test_sizes_and_refusals():
    assert (
        SIZES["tiny"]["d_model"] == 192
        and SIZES["small-deep"]["num_layers"] == 8
        and SIZES["large"]["num_layers"] == 12
    )
    small = DualBranchEncoder.of_size("small")
    assert 9e6 < sum(p.numel() for p in small.parameters()) < 21e6
    for options, words in (
        ({"d_model": 15}, "even"),
        ({"num_heads": 3}, "multiple of 3"),
        ({"dropout": 1.0}, "dropout"),
    ):
        with pytest.raises(OptionError, match=words):
            encoder(**options)
    with pytest.raises(OptionError, match="size must be one of nano"):
        DualBranchEncoder.of_size("huge")
    batch = batch_of()
    for name, wrong, words in (
        ("input", batch["input"][:, :, :32], "patches"),
        ("stats", batch["stats"][:, :4], "stats"),
        ("channel_text", batch["channel_text"][..., :4], "channel_text"),
        ("patch_mask", torch.zeros_like(batch["patch_mask"]), "a valid patch"),
    ):
        with pytest.raises(ShapeError, match=words):
            encoder()(batch | {name: wrong})


def frames(**options):
    torch.manual_seed(0)
    return PatchFrameEncoder(6, **{"hidden_size": 16, "num_layers": 1, "dropout": 0.0} | options).eval()


def test_as_an_encoder_of_frames_padding_changes_nothing():
    one, x = frames(), torch.randn(3, 200, 6, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([200, 120, 57])
    dirty = x.clone()
    for row, length in zip(dirty, lengths, strict=True):
        row[length:] = torch.nan
    with torch.no_grad():
        assert torch.equal(one(x, lengths), one(dirty, lengths))
        torch.testing.assert_close(one(x, lengths)[1, :12], one(x[1:2, :120])[0], atol=1e-5, rtol=1e-4)
        assert one(x, lengths).shape == (3, 20, 16) and not one(x, lengths)[2, 6:].any()


def test_an_encoder_of_frames_goes_into_the_classifier_and_into_a_file(tmp_path):
    one = frames()
    save_encoder(tmp_path / "encoder.pth", one, {"pretext": "masked"})
    read, metadata = load_encoder(tmp_path / "encoder.pth")
    x = torch.randn(2, 200, 6)
    with torch.no_grad():
        assert torch.equal(read(x), one(x)) and metadata["pretext"] == "masked"
    classifier = LSTMEventClassifier(6, 16, 1, 4, dropout=0.0, encoder="dual-branch").eval()
    assert transfer_encoder(read, classifier).n_parameters == sum(p.numel() for p in one.parameters())
    with torch.no_grad():
        assert torch.equal(classifier.encoder(x), one(x))
    assert classifier(x).timing_logits.shape == (2, 20, 4)
    with pytest.raises(OptionError, match="cannot be loaded into a LSTMEncoder"):
        transfer_encoder(read, LSTMEventClassifier(6, 16, 1, 4))
    with pytest.raises(OptionError, match="encoder must be one of lstm, dual-branch"):
        LSTMEventClassifier(encoder="transformer")
    with pytest.raises(OptionError, match="looks both ways"):
        PatchFrameEncoder(6, bidirectional=False)


def test_a_classifier_overfits_one_batch():
    torch.manual_seed(0)
    model = LSTMEventClassifier(6, 16, 1, 4, dropout=0.0, encoder="dual-branch")
    x, y = torch.randn(8, 100, 6), torch.eye(4).repeat(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x).event_logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


def test_a_summary_has_a_slope_everywhere():
    tokens = torch.ones(2, 3, 4, 5, requires_grad=True)
    summary = summarise_tokens(tokens)
    assert summary.shape == (2, 4 * 3 * 5)
    summary.square().sum().backward()
    assert tokens.grad.isfinite().all(), "equal patches, as of a sensor at rest, have no deviation"
    one = torch.randn(2, 1, 4, 5)
    assert (
        torch.equal(summarise_tokens(one).view(2, 4, 3, 5)[:, :, 0], one[:, 0])
        and summarise_tokens(one).isfinite().all()
    )
