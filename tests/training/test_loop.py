"""Training, checkpoints and resuming."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from evlib.networks.classifier import LSTMEventClassifier
from evlib.networks.encoders import LSTMEncoder
from evlib.networks.losses import AutoencoderLoss, EventTimingLoss, VariationalAutoencoderLoss
from evlib.networks.pretext import ContrastiveLSTM, LSTMAutoencoder, VariationalLSTMAutoencoder
from evlib.signals.errors import DataError, OptionError
from evlib.studies.sequences import SimilarLengths
from evlib.training.checkpoints import (
    latest_checkpoint,
    load,
    load_checkpoint,
    load_encoder,
    save_encoder,
)
from evlib.training.data import (
    ContrastiveDataset,
    EventDataset,
    SyntheticEventDataset,
    UnsupervisedDataset,
    collate_fn_contrastive,
    collate_fn_supervised,
    collate_fn_unsupervised,
)
from evlib.training.loop import ContrastiveTrainer, SupervisedTrainer, UnsupervisedTrainer, supervised_losses, train

EVENTS = 3


def make_model(**options):
    torch.manual_seed(3)
    return LSTMEventClassifier(**{"hidden_size": 16, "num_events": EVENTS, **options})


def make_loader(split="train", n=8, shuffle=True):
    dataset = SyntheticEventDataset(n, 150, num_events=EVENTS, noise_std=0.05, split=split)
    return DataLoader(dataset, batch_size=4, shuffle=shuffle and split == "train", collate_fn=collate_fn_supervised)


def make_trainer(tmp_path, model=None, lr=1e-2, scheduler=None):
    model = make_model() if model is None else model
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    scheduler = scheduler and scheduler(optimizer)
    return SupervisedTrainer(
        model, EventTimingLoss(), optimizer, device="cpu", log_dir=tmp_path / "runs", scheduler=scheduler
    )


def fit(trainer, tmp_path, *loaders, **options):
    return trainer.fit(*loaders, **{"save_dir": tmp_path / "checkpoints", "progress_bar": False, **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two epochs with a validation set: the folder and the trainer."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer(folder)
    fit(trainer, folder, make_loader(), make_loader("val"), num_epochs=2, save_freq=1)
    return folder, trainer


def test_importing_the_trainer_does_not_import_fabric():
    code = "import sys, evlib.training.loop; sys.exit('lightning_fabric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_defect_17_a_run_leaves_checkpoints_of_plain_types_that_rebuild_the_model_alone(trained):
    folder, trainer = trained
    assert [epoch["epoch"] for epoch in trainer.history] == [1, 2] and trainer.model.training
    losses = {
        f"{stage}_{name}_loss" for stage in ("train", "val") for name in ("total", "event", "timing", "refractory")
    }
    assert set(trainer.history[0]) == losses | {"epoch", "lr"}
    names = {"best_model.pth", "checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == names
    assert list((folder / "runs").rglob("events.out.tfevents*"))
    checkpoint = torch.load(folder / "checkpoints" / "checkpoint_epoch_2.pth")
    assert {"epoch", "model_state_dict", "optimizer_state_dict", "global_step", "val_loss"} <= checkpoint.keys()
    assert checkpoint["epoch"] == 2 and checkpoint["global_step"] == 4
    assert checkpoint["val_loss"] == trainer.history[-1]["val_total_loss"]
    model, _ = load_checkpoint(folder / "checkpoints" / "checkpoint_epoch_2.pth")
    assert model.config == trainer.model.config and not model.training
    assert_equal_weights(model, trainer.model)


@pytest.mark.parametrize("with_scheduler", [False, True])
def test_defect_17_resuming_equals_never_having_stopped(tmp_path, with_scheduler):
    """Dropout, shuffling, Adam's moments, the scheduler and early stopping all go on where they were."""
    scheduler = (lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0)) if with_scheduler else None
    loaders = make_loader(), make_loader("val")
    options = {"save_freq": 2, "patience": 3}
    whole = make_trainer(tmp_path, scheduler=scheduler)
    fit(whole, tmp_path, *loaders, num_epochs=4, **options)
    first = make_trainer(tmp_path, scheduler=scheduler)
    fit(first, tmp_path, *loaders, num_epochs=2, **{**options, "save_dir": tmp_path / "half"})
    torch.manual_seed(99)
    second = make_trainer(tmp_path, make_model(dropout=0.3), scheduler=scheduler)
    resume_from = tmp_path / "half" / "checkpoint_epoch_2.pth"
    fit(second, tmp_path, *loaders, num_epochs=4, resume_from=resume_from, **options)
    assert second.history == whole.history
    assert_equal_weights(whole.model, second.model)
    # Nothing is left to do: nothing is changed.
    assert fit(second, tmp_path, *loaders, num_epochs=2, resume_from=resume_from) == whole.history[:2]


@pytest.mark.parametrize("sampler", [False, True])
def test_resuming_goes_on_with_the_loader_s_own_generator(tmp_path, sampler):
    dataset = make_loader().dataset

    def loader():
        if sampler:
            batches = SimilarLengths(range(1, len(dataset) + 1), 2, 2, seed=5)
            return DataLoader(dataset, batch_sampler=batches, collate_fn=collate_fn_supervised)
        generator = torch.Generator().manual_seed(5)
        return DataLoader(dataset, batch_size=2, shuffle=True, collate_fn=collate_fn_supervised, generator=generator)

    whole, first, second = (make_trainer(tmp_path) for _ in range(3))
    fit(whole, tmp_path, loader(), num_epochs=2)
    fit(first, tmp_path, loader(), num_epochs=1, save_freq=1)
    fit(second, tmp_path, loader(), num_epochs=2, resume_from=tmp_path / "checkpoints" / "checkpoint_epoch_1.pth")
    assert second.history == whole.history


def test_training_is_seeded_and_leaves_global_random_state_alone(tmp_path):
    losses = []
    for seed in (0, 0, 1):
        trainer = make_trainer(tmp_path)
        torch.manual_seed(len(losses))
        states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        losses.append(fit(trainer, tmp_path, make_loader(), num_epochs=1, seed=seed)[0]["train_total_loss"])
        assert torch.equal(states[0], torch.get_rng_state())
        assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert losses[0] == losses[1] != losses[2]


def train_supervised(model, train_loader, val_loader, num_epochs, **options):
    optimizer, loss = torch.optim.Adam(model.parameters(), lr=1e-2), EventTimingLoss()
    options = {"loss_fn": loss, "num_epochs": num_epochs, "progress": False} | options
    return train(
        model, lambda m, batch: supervised_losses(m, loss, batch), train_loader, val_loader, optimizer, **options
    )


def test_train_ends_with_the_best_weights_wherever_they_are(tmp_path):
    """Labels of validation contradict those of training: the better the fit, the worse the validation."""
    loader = make_loader(shuffle=False)
    data = loader.dataset
    wrong = EventDataset(data.data, 1 - data.event_labels, np.full_like(data.event_timings, np.nan))
    val = DataLoader(wrong, batch_size=8, collate_fn=collate_fn_supervised)
    folder = tmp_path / "kept"
    in_memory, first, second = (make_model(dropout=0.0) for _ in range(3))
    assert len(train_supervised(make_model(dropout=0.0), loader, val, 12, patience=4)) < 12
    history = train_supervised(in_memory, loader, val, 6)
    assert train_supervised(first, loader, val, 6, save_dir=folder, save_freq=1) == history
    best, checkpoint = load_checkpoint(folder / "best_model.pth")
    assert_equal_weights(in_memory, best)
    assert_equal_weights(first, best)
    least = [epoch["val_total_loss"] for epoch in history]
    assert checkpoint["epoch"] == 1 + np.argmin(least) < len(history) and checkpoint["val_loss"] == min(least)
    assert not first.training
    # Without validation the training loss decides.
    history = train_supervised(make_model(), loader, None, 2, save_dir=tmp_path / "blind")
    blind = load(tmp_path / "blind" / "best_model.pth")
    assert blind["val_loss"] is None and blind["monitor"] == "train_total_loss"
    assert blind["epoch"] == 1 + np.argmin([epoch["train_total_loss"] for epoch in history])
    # Nothing gets better after it is resumed: the checkpoint holds the best, whatever is beside it.
    (folder / "best_model.pth").unlink()
    train_supervised(second, loader, val, 8, resume_from=folder / "checkpoint_epoch_6.pth")
    assert_equal_weights(second, best)


def test_defect_5_lengths_reach_the_model_and_padding_no_loss():
    dataset = make_loader().dataset
    windows = [
        window[:length] for window, length in zip(dataset.data, [150, 140, 150, 145, 150, 150, 150, 150], strict=True)
    ]
    items = EventDataset(windows, dataset.event_labels, dataset.event_timings)
    batch = collate_fn_supervised([items[i] for i in range(8)])
    model, loss_fn = make_model().eval(), EventTimingLoss()
    clean = supervised_losses(model, loss_fn, batch)
    padding = torch.arange(150) >= batch["lengths"][:, None]
    dirty = supervised_losses(
        model, loss_fn, {**batch, "input": batch["input"].masked_fill(padding[..., None], torch.nan)}
    )
    for name, value in clean.items():
        torch.testing.assert_close(dirty[name], value, rtol=0, atol=0)


def test_only_the_progress_bar_is_printed(tmp_path, capfd):
    fit(make_trainer(tmp_path), tmp_path, make_loader(), num_epochs=1)
    assert capfd.readouterr() == ("", "")
    fit(make_trainer(tmp_path), tmp_path, make_loader(), num_epochs=1, progress_bar=True)
    out, bar = capfd.readouterr()
    assert out == "" and "epoch 1 of 1" in bar and "train_total_loss" in bar


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_hostile_checkpoint_is_refused_and_runs_nothing(tmp_path):
    path, trace = tmp_path / "hostile.pth", tmp_path / "trace"
    torch.save({"epoch": Hostile(trace)}, path)
    with pytest.raises(DataError, match="might run code"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps({"epoch": Hostile(trace)}, protocol=2))
    with pytest.raises(DataError, match="is not a checkpoint"):
        load_checkpoint(path)
    assert not trace.exists()


def test_files_that_are_no_checkpoints_are_refused(trained, tmp_path):
    folder, _ = trained
    good = folder / "checkpoints" / "best_model.pth"
    path = tmp_path / "bad.pth"
    with pytest.raises(DataError, match="no checkpoint at"):
        load(path)
    for content in (good.read_bytes()[:5000], b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match="truncated"):
            load(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="must hold model_state_dict"):
        load(path)
    checkpoint = torch.load(good)
    for change, words in (
        ({"format": 99}, "format 99"),
        ({"model_class": "Module"}, "cannot rebuild"),
        ({"model_class": None}, "cannot rebuild"),
        ({"config": None}, "cannot rebuild"),
        ({"config": {"hidden": 3}}, "do not fit"),
    ):
        torch.save(checkpoint | change, path)
        with pytest.raises(DataError, match=words):
            load_checkpoint(path)
    with pytest.raises(DataError, match="do not fit"):
        load_checkpoint(good, make_model(hidden_size=8))


def test_trainers_that_cannot_work_are_refused(tmp_path, trained):
    model = make_model()
    with pytest.raises(OptionError, match="not the model's"):
        SupervisedTrainer(model, EventTimingLoss(), torch.optim.Adam(make_model().parameters()))
    with pytest.raises(OptionError, match="10 in the model but 5 in the loss"):
        SupervisedTrainer(model, EventTimingLoss(timing_resolution_samples=5), torch.optim.Adam(model.parameters()))
    trainer = make_trainer(tmp_path)
    with pytest.raises(OptionError, match="num_epochs"):
        fit(trainer, tmp_path, make_loader(), num_epochs=0)
    with pytest.raises(DataError, match="collate_fn_supervised"):
        fit(trainer, tmp_path, DataLoader(make_loader().dataset, batch_size=4), num_epochs=1)
    scheduled = make_trainer(tmp_path, scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1))
    with pytest.raises(DataError, match="both have a scheduler"):
        fit(scheduled, tmp_path, make_loader(), resume_from=trained[0] / "checkpoints" / "best_model.pth")


def test_a_training_that_diverges_says_so(tmp_path):
    trainer = make_trainer(tmp_path, lr=1e30)
    with pytest.raises(DataError, match="diverged|no longer finite"):
        fit(trainer, tmp_path, make_loader(), num_epochs=3)


# --- pretraining -------------------------------------------------------------------------------------------------

PRETEXTS = ["autoencoder", "variational", "contrastive"]
pretexts = pytest.mark.parametrize("pretext", PRETEXTS)


def shaken(x, generator=None):
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def pretext_windows(n=8, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(60 - 5 * (i % 3), 2)) for i in range(n)]


def pretext_trainer(tmp_path, pretext, dropout=0.3):
    """A tiny trainer of each kind; the variational one is warming up all the time."""
    kind = {"autoencoder": LSTMAutoencoder, "variational": VariationalLSTMAutoencoder, "contrastive": ContrastiveLSTM}[
        pretext
    ]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = kind(input_size=2, hidden_size=8, dropout=dropout)
        if pretext == "variational":  # far from collapse
            torch.nn.init.normal_(model.to_latent.weight, std=10.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {"device": "cpu", "log_dir": tmp_path / "runs"}
    if pretext == "contrastive":
        return ContrastiveTrainer(model, optimizer, **options)
    loss_fn = AutoencoderLoss() if pretext == "autoencoder" else VariationalAutoencoderLoss(warmup_steps=20)
    return UnsupervisedTrainer(model, loss_fn, optimizer, **options)


def pretext_loaders(pretext, **options):
    loaders = []
    for learn in (True, False):
        data = pretext_windows(seed=int(not learn))
        if pretext == "contrastive":
            dataset, collate = ContrastiveDataset(data, shaken, train=learn), collate_fn_contrastive
        else:
            dataset, collate = UnsupervisedDataset(data), collate_fn_unsupervised
        loaders.append(DataLoader(dataset, batch_size=4, shuffle=learn, collate_fn=collate, **options))
    return loaders


def assert_equal_weights(model, other):
    for name, weight in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight), name


@pretexts
def test_pretraining_validates_logs_and_writes_checkpoints_that_rebuild_it(tmp_path, pretext):
    trainer = pretext_trainer(tmp_path, pretext)
    history = fit(trainer, tmp_path, *pretext_loaders(pretext), num_epochs=2, save_freq=1)
    losses = {
        "autoencoder": {"total_loss", "reconstruction_loss"},
        "variational": {"total_loss", "reconstruction_loss", "kl_loss", "full_loss", "active_units"},
        "contrastive": {"total_loss"},
    }[pretext]
    assert set(history[0]) == {f"{stage}_{loss}" for stage in ("train", "val") for loss in losses} | {"epoch", "lr"}
    assert list((tmp_path / "runs").rglob("events.out.tfevents*"))
    model, checkpoint = load_checkpoint(latest_checkpoint(tmp_path / "checkpoints"))
    assert checkpoint["epoch"] == 2 and model.config == trainer.model.config
    assert_equal_weights(model, trainer.model)


@pretexts
def test_pretraining_resumes_as_if_it_had_never_stopped(tmp_path, pretext):
    """Dropout, the variational draw, the warm-up, the views and early stopping all go on where they were."""
    whole, first, second = (pretext_trainer(tmp_path, pretext) for _ in range(3))
    options = {"save_freq": 1, "patience": 3}
    fit(whole, tmp_path, *pretext_loaders(pretext), num_epochs=4, **options)
    fit(first, tmp_path, *pretext_loaders(pretext), num_epochs=2, **{**options, "save_dir": tmp_path / "half"})
    fit(
        second,
        tmp_path,
        *pretext_loaders(pretext),
        num_epochs=4,
        resume_from=latest_checkpoint(tmp_path / "half"),
        **options,
    )
    assert second.history == whole.history
    assert_equal_weights(whole.model, second.model)


def test_mixed_precision_runs(tmp_path):
    trainer, loaders = pretext_trainer(tmp_path, "variational"), pretext_loaders("variational")
    history = fit(trainer, tmp_path, *loaders, num_epochs=1, precision="bf16-mixed")
    assert np.isfinite(history[0]["val_total_loss"])


def test_bare_tensors_padded_batches_and_labelled_ones_give_the_same_reconstruction_loss(tmp_path):
    data = np.random.default_rng(0).normal(size=(4, 60, 2))
    labelled = EventDataset(data, np.zeros((4, 1)), np.zeros((4, 1)))
    loaders = [
        DataLoader(UnsupervisedDataset(data), batch_size=4),
        DataLoader(UnsupervisedDataset(data), batch_size=4, collate_fn=collate_fn_unsupervised),
        DataLoader(labelled, batch_size=4, collate_fn=collate_fn_supervised),
    ]
    histories = [fit(pretext_trainer(tmp_path, "autoencoder"), tmp_path, loader, num_epochs=1) for loader in loaders]
    assert histories[0] == histories[1] == histories[2]


def test_workers_see_the_epoch(tmp_path):
    """Also those that live on from one epoch to the next: the losses are those of a run without workers."""
    histories = []
    for options in ({}, {"num_workers": 1}, {"num_workers": 1, "persistent_workers": True}):
        trainer = pretext_trainer(tmp_path, "contrastive", dropout=0.0)
        dataset = ContrastiveDataset(pretext_windows(), shaken)
        loader = DataLoader(dataset, batch_size=4, collate_fn=collate_fn_contrastive, **options)
        histories.append([epoch["train_total_loss"] for epoch in fit(trainer, tmp_path, loader, num_epochs=3)])
    assert histories[0] == histories[1] == histories[2]


def test_the_best_variational_epoch_is_not_the_one_with_the_least_warm_up(tmp_path):
    """While the divergence gains weight the total grows; the loss with the whole weight falls and is the one that
    counts."""
    trainer = pretext_trainer(tmp_path, "variational")
    torch.nn.init.constant_(trainer.model.to_latent.bias, 3.0)
    trainer.loss_fn = VariationalAutoencoderLoss(kl_weight=20.0, warmup_steps=12)
    history = fit(trainer, tmp_path, pretext_loaders("variational")[0], num_epochs=6)
    total, full = ([epoch[f"train_{name}_loss"] for epoch in history] for name in ("total", "full"))
    assert np.argmin(total) == 0 and np.argmin(full) > 0, "the case must tell them apart"
    checkpoint = load(tmp_path / "checkpoints" / "best_model.pth")
    assert checkpoint["epoch"] == 1 + np.argmin(full) and checkpoint["monitor"] == "train_full_loss"


def test_a_collapsed_posterior_is_reported(tmp_path):
    trainer = pretext_trainer(tmp_path, "variational")
    torch.nn.init.zeros_(trainer.model.to_latent.weight)
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    with pytest.warns(UserWarning, match="collapsed"):
        fit(trainer, tmp_path, *pretext_loaders("variational"), num_epochs=1)
    trainer = pretext_trainer(tmp_path, "variational")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        fit(trainer, tmp_path, *pretext_loaders("variational"), num_epochs=1)


def test_batches_that_do_not_fit_the_trainer_are_refused(tmp_path):
    with pytest.raises(DataError, match="collate_fn_unsupervised"):
        fit(pretext_trainer(tmp_path, "autoencoder"), tmp_path, pretext_loaders("contrastive")[0], num_epochs=1)
    with pytest.raises(DataError, match="collate_fn_contrastive"):
        fit(pretext_trainer(tmp_path, "contrastive"), tmp_path, pretext_loaders("autoencoder")[0], num_epochs=1)
    fit(pretext_trainer(tmp_path, "autoencoder"), tmp_path, pretext_loaders("autoencoder")[0], num_epochs=1)
    trainer = pretext_trainer(tmp_path, "autoencoder")
    trainer.loss_fn = VariationalAutoencoderLoss()
    best = tmp_path / "checkpoints" / "best_model.pth"
    with pytest.raises(OptionError, match="other settings: loss 'Var.*', was 'AutoencoderLoss'"):
        fit(trainer, tmp_path, pretext_loaders("autoencoder")[0], num_epochs=2, resume_from=best)


# --- files of training, and encoders on their own ------------------------------------------------------------------


def test_the_latest_checkpoint_is_that_of_the_largest_epoch(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for name in ("checkpoint_epoch_9", "checkpoint_epoch_10", "best_model", ".checkpoint_epoch_11.half"):
        (tmp_path / f"{name}.pth").touch()
    assert latest_checkpoint(tmp_path).name == "checkpoint_epoch_10.pth"


@pytest.mark.parametrize("options", [{}, {"cell": "gru", "resolution": 1, "bidirectional": False}])
def test_an_encoder_comes_back_with_its_card(tmp_path, options):
    encoder = LSTMEncoder(3, 8, **options)
    metadata = {"sampling_rate_hz": np.float64(2000), "channels": ["x", "y", "z"], "units": None, "seed": np.int64(4)}
    save_encoder(tmp_path / "encoder.pth", encoder, metadata)
    again, read = load_encoder(tmp_path / "encoder.pth")
    assert read == {"sampling_rate_hz": 2000.0, "channels": ["x", "y", "z"], "units": None, "seed": 4}
    assert again.config == encoder.config and not again.training
    assert_equal_weights(encoder, again)


def test_encoder_files_that_cannot_be_used_are_refused(tmp_path, trained):
    path, trace = tmp_path / "encoder.pth", tmp_path / "trace"
    with pytest.raises(DataError, match="no encoder file at"):
        load_encoder(path)
    with pytest.raises(DataError, match="holds a LSTMEventClassifier, which evlib cannot rebuild"):
        load_encoder(trained[0] / "checkpoints" / "best_model.pth")
    save_encoder(path, LSTMEncoder(3, 8), {})
    good = torch.load(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="truncated"):
        load_encoder(path)
    for change, words in [
        ({"config": {**good["config"], "hidden_size": 9}}, "do not fit"),
        ({"config": {**good["config"], "hidden_size": 0}}, "do not fit"),
        ({"metadata": Hostile(trace)}, "might run code"),
    ]:
        torch.save({**good, **change}, path)
        with pytest.raises(DataError, match=words):
            load_encoder(path)
    assert not trace.exists()
    path.write_bytes(whole)
    with pytest.raises(OptionError, match="the metadata must be"):
        save_encoder(path, LSTMEncoder(3, 8), {"data": {1, 2}})
    with pytest.raises(OptionError, match="has no encoder"):
        save_encoder(path, torch.nn.Linear(2, 2), {})
    assert path.read_bytes() == whole, "a refusal leaves the old file as it was"


TWO_PROCESSES = """
import os
import sys
import torch
from torch.utils.data import DataLoader
from evlib.training.loop import train

n = int(sys.argv[1])
torch.manual_seed(0)
model, x = torch.nn.Linear(3, 1), torch.randn(64, 3)
items = [{"input": row, "target": row.sum(0, keepdim=True)} for row in x]
sizes = []

def losses(model, batch):
    sizes.append(len(batch["input"]))
    return {"total_loss": torch.nn.functional.mse_loss(model(batch["input"]), batch["target"])}

optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
history = train(model, losses, DataLoader(items, 16 // n), None, optimizer, num_epochs=3, devices=n, progress=False)
if os.environ.get("LOCAL_RANK", "0") == "0":
    with open(sys.argv[2], "w") as file:
        print(*(round(row["train_total_loss"], 5) for row in history), sum(sizes), file=file)
"""


@pytest.mark.slow
def test_two_processes_lose_what_one_does(tmp_path):
    """Two processes with half of each batch have the loss curve of one with whole batches."""
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    for n in "12":
        subprocess.run([sys.executable, script, n, tmp_path / n], capture_output=True, check=True)
    one, two = ((tmp_path / n).read_text().split() for n in "12")
    assert one[3] == "192" and two[3] == "96", "three epochs of 64 items, or of half of them in each process"
    assert two[:3] == one[:3]
