"""Both stages of training: exact losses, what is chosen, resuming, saving, mixed precision, and that something is
learnt."""

import copy
import logging
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from evlib.motion.train import OVERLAP, align_motion, fit_motion, load_motion_model, pretrain_motion
from evlib.motion.windows import make_motion
from evlib.networks.pretext import MaskedPatchModel
from evlib.networks.transformer import MAX_PATCHES, SIZES, HashedWords, log_spectrum, make_batch
from evlib.signals.errors import DataError, OptionError
from evlib.training.batches import MotionBatches
from evlib.training.checkpoints import save_checkpoint
from evlib.training.masked import TEMPERATURE, MaskedPretextLoss, masked_losses, reconstruction_loss
from evlib.training.windows import Windows

TEXT = HashedWords()
KINDS = ("walking", "running", "sitting", "lying")


@pytest.fixture(autouse=True, scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "nano", {"d_model": 16, "num_heads": 2, "num_layers": 1})
        yield


def people(name="phone", seed=0, **options):
    return make_motion(name, **{"n_people": 3, "windows_per_activity": 4, "activities": KINDS, "seed": seed} | options)


def train(sets=None, **options):
    options = {"text": TEXT, "max_epochs": 2, "batch_size": 16} | options
    return pretrain_motion(sets or [people()], [people(seed=1)], 0.64, **options)


@pytest.fixture(scope="module")
def first(small):
    sets = [people(), people("watch", 2, places=("wrist",), magnetometer=True, sampling_rate_hz=100.0)]
    return train(sets, max_epochs=6, contrastive_weight=0.5)


def one_batch(**options):
    return MotionBatches([people()], TEXT, 0.64, 8, **{"mask_ratio": 0.5} | options)[0]


def perfect_prediction(batch):
    """What a model predicts that knows everything."""
    patches = batch["input"].transpose(2, 3)
    view = torch.eye(8 * 4)[:, :20].reshape(8, 4, 20)
    return {"shape": patches, "stats": batch["stats"], "spectrum": log_spectrum(patches), "projection": view}


def test_a_perfect_prediction_costs_nothing_and_only_hidden_tokens_count():
    batch = one_batch()
    perfect = perfect_prediction(batch)
    assert reconstruction_loss(perfect, batch) == 0
    counted = batch["hidden"] & ~batch["dropped"][:, None]
    wrong = {name: torch.where(counted[..., None], perfect[name], torch.nan) for name in ("shape", "stats", "spectrum")}
    assert reconstruction_loss(wrong, batch) == 0, "tokens that were seen or dropped do not count"
    off = perfect | {"stats": perfect["stats"] + 2.0}
    assert reconstruction_loss(off, batch).item() == pytest.approx(4.0)
    off = perfect | {"shape": perfect["shape"] + 2.0}
    assert reconstruction_loss(off, batch, {"shape": 0.5}).item() == pytest.approx(2.0)


def test_the_raw_loss_chooses_and_the_running_means_only_move_in_training():
    batch, loss = one_batch(), MaskedPretextLoss(contrastive_weight=0.5)
    torch.manual_seed(0)
    model = MaskedPatchModel(16, 2, 1)
    losses = masked_losses(model, loss, batch)
    raw = losses["reconstruction_loss"] + 0.5 * losses["contrastive_loss"]
    torch.testing.assert_close(losses["raw_loss"], raw.detach())
    assert losses["total_loss"].item() == pytest.approx(1.5), "each divided by itself at the first step"
    assert losses["raw_loss/phone"] == losses["raw_loss"] and loss.monitor == "raw_loss"
    before = loss.running_mean.clone()
    masked_losses(model.eval(), loss.eval(), batch)
    assert torch.equal(loss.running_mean, before)
    masked_losses(model.train(), loss.train(), one_batch(seed=5))
    assert not torch.equal(loss.running_mean, before)
    with pytest.raises(OptionError, match="not both 0"):
        MaskedPretextLoss(reconstruction_weight=0.0, contrastive_weight=0.0)


@pytest.mark.parametrize(("level", "pieces"), [("patch", 4), ("window", 1)])
def test_pieces_of_one_session_are_no_negatives(level, pieces):
    """All projections equal: log(1 + the number of pieces of other sessions in both views)."""
    batch, loss = one_batch(), MaskedPretextLoss(0.0, 1.0, level=level)
    equal = perfect_prediction(batch) | {"projection": torch.ones(8, 4, 20)}
    for source, others in ((batch["source"], 7), (torch.arange(8) // 4, 4)):
        found = loss(equal, equal, batch | {"source": source})["contrastive_loss"]
        assert found.item() == pytest.approx(math.log(1 + 2 * others * pieces), abs=1e-5)


def test_windows_are_found_again_by_the_means_of_their_patches():
    batch, loss = one_batch(), MaskedPretextLoss(0.0, 1.0, level="window")
    own = perfect_prediction(batch) | {"projection": torch.eye(8, 20)[:, None].expand(8, 4, 20)}
    found = loss(own, own | {"projection": own["projection"].flip(1)}, batch)["contrastive_loss"]
    assert found.item() == pytest.approx(math.log(1 + 2 * 7 * math.exp(-1 / TEMPERATURE)), abs=1e-5)


def test_neighbours_train_as_well():
    model = train(neighbours=1, contrastive_weight=1.0, max_epochs=4)
    raw = [epoch["val_raw_loss"] for epoch in model.history]
    assert min(raw) < raw[0] and model.metadata["neighbours"] == 1


def test_training_without_labels_lowers_the_raw_loss_of_each_data_set(first):
    raw = [epoch["val_raw_loss"] for epoch in first.history]
    assert min(raw) < 0.9 * raw[0]
    logged = set().union(*map(dict.keys, first.history))
    assert {"train_raw_loss/phone", "train_raw_loss/watch", "val_raw_loss/phone"} <= logged
    assert first.metadata["text_encoder"] == "hashed words"
    assert first.metadata["data_sets"] == {"phone": 48, "watch": 48}


def test_the_same_seed_gives_the_same_weights_and_resuming_goes_on_exactly(tmp_path):
    options = {"max_epochs": 4, "contrastive_weight": 0.3}
    whole = train(save_dir=tmp_path / "whole", **options)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    again = train(**options)
    assert torch.equal(before, torch.random.get_rng_state()), "no global state is touched"
    (tmp_path / "parts").mkdir()
    shutil.copy(tmp_path / "whole" / "checkpoint_epoch_2.pth", tmp_path / "parts")
    resumed = train(save_dir=tmp_path / "parts", resume=True, **options)
    for other in (again, resumed):
        assert [e["val_raw_loss"] for e in other.history] == [e["val_raw_loss"] for e in whole.history]
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, other.model.state_dict()[name]), name
    for wrong in ({"lr": 0.0}, {"lr": -1.0}, {"alpha": math.nan}):
        with pytest.raises(OptionError, match="learning rate above 0"):
            train(**wrong)
    with pytest.raises(OptionError, match="resume=True needs save_dir"):
        train(resume=True)
    for changed in ({"seed": 5}, {"mask_ratio": 0.3}, {"neighbours": 2}, {"lr": 1e-4}):
        with pytest.raises(OptionError, match=f"had other settings: .*{next(iter(changed))}"):
            train(save_dir=tmp_path / "whole", resume=True, **options | changed)
    with pytest.raises(OptionError, match="had other settings: .*data"):
        train([people(seed=7)], save_dir=tmp_path / "whole", resume=True, **options)
    with pytest.raises(OptionError, match="a new one needs another folder"):
        train(save_dir=tmp_path / "whole", **options)


def test_words_recognise_activities_after_alignment(first, tmp_path):
    sets, judge = [people()], people(seed=7)
    aligned = align_motion(first, sets, [people(seed=1)], max_epochs=40, batch_size=16, lr=5e-3)
    predicted = np.array(KINDS)[aligned.scores(judge, KINDS).argmax(1)]
    assert np.mean(predicted == judge.labels) > 0.7, "chance is 0.25"
    assert aligned.vectors(judge).shape == (48, 384) and aligned.metadata["labels"] == sorted(KINDS)
    assert {"val_alignment_loss", "val_usage", "train_alignment_loss/phone"} <= aligned.history[-1].keys()
    aligned.save(tmp_path / "aligned.pth")
    read = load_motion_model(tmp_path / "aligned.pth")
    assert np.array_equal(read.scores(judge, KINDS), aligned.scores(judge, KINDS)) and read.patch_s == 0.64
    frozen = align_motion(first, sets, [people(seed=1)], max_epochs=1, freeze=True)
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(frozen.encoder.state_dict()[name], value), "a frozen encoder stays as it was"
    with pytest.raises(OptionError, match="need a model that was aligned"):
        first.scores(judge, KINDS)


def test_the_same_weights_embed_6_9_and_23_channels(first):
    many = people("many", places=("waist", "wrist", "ankle", "chest"))
    for one in (people(), people(places=("wrist",), magnetometer=True), many.with_channels(many.channels[:23])):
        assert first.embed(one).shape == (48, 16)
        assert first.embed(one, channels=True).shape == (48, 3 * 16 * len(one.channels))


def test_an_embedding_is_read_from_overlapping_patches(first):
    """Against patches that are cut one by one, a quarter of 0.64 s from one to the next."""
    one = people()[:3]
    cuts = [one.x[:, start : start + 32] for start in range(0, one.x.shape[1] - 31, 8)]
    text = TEXT(one.descriptions)
    parts = [make_batch(torch.from_numpy(cut), 50.0, 0.64, text) for cut in cuts]
    batch = parts[0] | {name: torch.cat([part[name] for part in parts], 1) for name in ("input", "stats", "patch_mask")}
    with torch.no_grad():
        tokens = first.encoder.eval()(batch)
    wanted = torch.cat([tokens.mean(1), tokens.amax(1), tokens.std(1, correction=0)], -1).flatten(1)
    assert len(cuts) > 4
    np.testing.assert_allclose(first.embed(one, channels=True), wanted, atol=1e-3)
    mean = first.encoder(next(first.batches(one)))[0].mean((0, 1)).detach()
    np.testing.assert_allclose(first.embed(one)[0], mean, atol=1e-5)


def test_patches_overlap_less_where_there_is_no_room_for_more(first):
    one = people()[:2]
    whole = next(replace(first, patch_s=one.duration_s).batches(one, OVERLAP))
    assert whole["input"].shape[1] == 1
    for rate, patch_s, time in ((20.0, 0.4, 147), (25.0, 0.32, 138), (50.0, 0.06, 60), (20.0, 0.15, 40)):
        some = Windows("a", np.zeros((2, time, 6)), rate, one.channels)
        some.x[0, -int(patch_s * rate + 1e-3) :] = 5.0
        batch = next(replace(first, patch_s=patch_s).batches(some, OVERLAP))
        assert batch["input"].shape[1] <= MAX_PATCHES
        assert (batch["stats"][0] != batch["stats"][1]).any(), "the end of a window is read"
    with pytest.raises(OptionError, match="more than 48"):
        replace(first, patch_s=0.19).embed(Windows("a", np.zeros((2, 180, 6)), 20.0, one.channels))


def test_an_untrained_twin_differs_in_its_weights_alone(first):
    trained, blank, again = (model.embed(people()) for model in (first, first.untrained(3), first.untrained(3)))
    assert blank.shape == trained.shape and not np.allclose(blank, trained) and np.array_equal(blank, again)


def test_mixed_precision_trains_too():
    mixed = train(precision="bf16-mixed", max_epochs=1, contrastive_weight=0.5)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in mixed.model.state_dict().values())


def test_a_batch_of_one_session_has_nothing_to_contrast():
    batch, loss = one_batch(), MaskedPretextLoss(0.0, 1.0)
    perfect = perfect_prediction(batch)
    assert loss(perfect, perfect, batch | {"source": torch.zeros(8)})["raw_loss"] == 0
    alone = replace(people(), sources=np.repeat("one", 48))
    with pytest.raises(DataError, match="phone: windows of one session are not contrasted"):
        train([alone])


def test_files_that_hold_no_model_of_motion_are_refused(first, tmp_path):
    with pytest.raises(DataError):
        load_motion_model(tmp_path / "nothing.pth")
    for metadata in (None, {}, {"text_encoder": None}, {"text_encoder": ["hashed words"]}):
        save_checkpoint(tmp_path / "other.pth", first.model, metadata, patch_s=0.64)
        with pytest.raises(DataError, match="holds no model of motion"):
            load_motion_model(tmp_path / "other.pth")
    first.save(tmp_path / "first.pth")

    class Other(HashedWords):
        name = "other words"

    with pytest.raises(OptionError, match="trained with the text encoder 'hashed words', not 'other words'"):
        load_motion_model(tmp_path / "first.pth", Other())
    lost = replace(first, model=copy.deepcopy(first.model))
    with torch.no_grad():
        next(lost.model.parameters()).fill_(torch.nan)
    lost.save(tmp_path / "lost.pth")
    with pytest.raises(DataError, match="hold NaN or infinity"):
        load_motion_model(tmp_path / "lost.pth")


def test_options_that_make_no_sense_are_refused():
    for name, wrong in (("size", "huge"), ("max_epochs", 0), ("mask_ratio", 1.0)):
        with pytest.raises(OptionError, match=name):
            train(**{name: wrong})


@pytest.fixture(scope="module")
def both(small):
    """Both stages, by the front door."""
    options = {"size": "nano", "text": TEXT, "batch_size": 16, "contrastive_weight": 0.0}
    return fit_motion(people(n_people=5), 0.64, epochs=(2, 40), aligning_lr=5e-3, **options)


def test_the_front_door_recognises_other_people_in_any_unit_and_at_other_rates(both, caplog):
    judge = people(seed=7)
    home = np.mean(both.predict(judge) == judge.labels)
    assert home > 0.7, "chance is 0.25"
    counted = replace(judge, x=judge.x / np.repeat([9.80665, np.pi / 180], 3), units=())
    said = replace(counted, units=("g",) * 3 + ("deg/s",) * 3)
    for one in (said, counted):
        assert np.array_equal(both.predict(one), both.predict(judge))
    assert "are taken to be in g" in caplog.text
    for hz in (25.0, 100.0):
        assert np.mean(both.predict(judge.resample(hz)) == judge.labels) > home - 0.1
    assert set(both.predict(judge, ["walking", "lying"])) <= {"walking", "lying"}
    single = both.scores(judge, ["walking", "strolling", "lying"])
    several = both.scores(judge, {"walking": ["strolling"], "lying": []})
    np.testing.assert_allclose(several, np.stack([single[:, :2].max(1), single[:, 2]], 1))
    with pytest.raises(OptionError, match="labels must be a list"):
        both.predict(judge, "walking")


def test_without_gravity_somebody_is_told(both, caplog):
    judge = people(seed=7)
    with caplog.at_level(logging.WARNING):
        both.predict(replace(judge, x=judge.x - judge.x.mean(axis=1, keepdims=True)))
    assert "without gravity, so postures cannot be told apart" in caplog.text


def test_people_are_held_out_whole(monkeypatch):
    """Nobody is in both parts; without names the last windows are held out; a single person cannot be."""
    parts = []

    def stop(train, development, *_, **__):
        parts.append((train[0], development[0]))
        raise InterruptedError

    monkeypatch.setattr("evlib.motion.train.pretrain_motion", stop)
    some = people(n_people=6)
    for one in (some, replace(some, groups=())):
        with pytest.raises(InterruptedError):
            fit_motion(one)
    (learn, check), (first, last) = parts
    assert not set(learn.groups) & set(check.groups) and len(learn) + len(check) == len(some)
    assert len(set(check.groups)) == 1 and np.array_equal(last.x, some.x[len(first) :])
    for wrong, message in (
        (replace(some, groups=np.repeat("me", len(some))), "windows of two people at least"),
        (replace(some, labels=()), "words are learned from labels"),
    ):
        with pytest.raises(DataError, match=message):
            fit_motion(wrong)


def test_a_single_data_set_belongs_into_brackets(first):
    for call in (
        lambda: pretrain_motion(people(), [people()], 0.64),
        lambda: align_motion(first, people(), [people()]),
    ):
        with pytest.raises(DataError, match=r"train must be a list of Windows \(put a single one into brackets"):
            call()
    with pytest.raises(DataError, match="development must be a list of Windows .got ndarray"):
        pretrain_motion([people()], people().x, 0.64)
