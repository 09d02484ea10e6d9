"""Training by Lightning, checkpoints and resuming."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from evlib.datasets import EventDataset, SyntheticEventDataset, collate_fn_supervised
from evlib.errors import DataError, OptionError
from evlib.losses import EventTimingLoss
from evlib.models import LSTMEventClassifier
from evlib.training import SupervisedTrainer, load_checkpoint, read_checkpoint, supervised_losses

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
    return SupervisedTrainer(model, EventTimingLoss(), optimizer, device="cpu", log_dir=tmp_path / "runs", scheduler=scheduler)


def fit(trainer, tmp_path, *loaders, **options):
    return trainer.fit(*loaders, **{"save_dir": tmp_path / "checkpoints", "progress_bar": False, **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two epochs with a validation set: the folder and the trainer."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer(folder)
    fit(trainer, folder, make_loader(), make_loader("val"), num_epochs=2, save_freq=1)
    return folder, trainer


def test_importing_the_trainer_does_not_import_lightning():
    code = "import sys, evlib.training; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_history_and_files_of_a_run(trained):
    folder, trainer = trained
    assert [epoch["epoch"] for epoch in trainer.history] == [1, 2]
    names = {f"{stage}_{loss}_loss" for stage in ("train", "val") for loss in ("total", "event", "timing", "refractory")}
    assert set(trainer.history[0]) == names | {"epoch", "lr"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        "best_model.pth", "checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth",
    }  # fmt: skip
    assert list((folder / "runs").rglob("events.out.tfevents*"))


def test_defect_17_a_checkpoint_is_the_documented_dictionary_of_plain_types(trained):
    folder, trainer = trained
    checkpoint = torch.load(folder / "checkpoints" / "checkpoint_epoch_2.pth")
    assert {"epoch", "model_state_dict", "optimizer_state_dict", "global_step", "val_loss"} <= checkpoint.keys()
    assert {"config", "scheduler", "rng", "history", "model_class", "format"} <= checkpoint.keys()
    assert checkpoint["epoch"] == 2 and checkpoint["global_step"] == 4
    assert checkpoint["val_loss"] == trainer.history[-1]["val_total_loss"]


def test_defect_17_a_checkpoint_rebuilds_its_model_alone(trained):
    folder, trainer = trained
    model, checkpoint = load_checkpoint(folder / "checkpoints" / "checkpoint_epoch_2.pth")
    assert model.config == trainer.model.config and not model.training
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)


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
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], weight), name
    # Nothing is left to do: nothing is changed.
    assert fit(second, tmp_path, *loaders, num_epochs=2, resume_from=resume_from) == whole.history[:2]


def test_resuming_goes_on_with_the_loader_s_own_generator(tmp_path):
    dataset = make_loader().dataset

    def loader():
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


def test_best_is_not_last_when_validation_worsens(tmp_path):
    """Validation labels contradict the training labels: the better the fit, the worse the validation."""
    train = make_loader(shuffle=False)
    data = train.dataset
    wrong = EventDataset(data.data, 1 - data.event_labels, np.full_like(data.event_timings, np.nan))
    val = DataLoader(wrong, batch_size=8, collate_fn=collate_fn_supervised)
    trainer = make_trainer(tmp_path, make_model(dropout=0.0))
    history = fit(trainer, tmp_path, train, val, num_epochs=12, save_freq=12, patience=4)
    val_losses = [epoch["val_total_loss"] for epoch in history]
    best, _ = load_checkpoint(tmp_path / "checkpoints" / "best_model.pth")
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "best_model.pth")
    assert checkpoint["epoch"] == 1 + int(np.argmin(val_losses)) < len(history)
    assert checkpoint["val_loss"] == min(val_losses)
    assert len(history) < 12, "patience must end the training"
    assert not torch.equal(best.event_head[1].weight, trainer.model.event_head[1].weight)


def test_without_validation_the_training_loss_decides(tmp_path):
    trainer = make_trainer(tmp_path)
    history = fit(trainer, tmp_path, make_loader(), num_epochs=2)
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "best_model.pth")
    assert checkpoint["val_loss"] is None and checkpoint["monitor"] == "train_total_loss"
    assert checkpoint["epoch"] == 1 + int(np.argmin([epoch["train_total_loss"] for epoch in history]))


def test_one_batch_is_overfitted():
    batch = next(iter(make_loader(n=4, shuffle=False)))
    model, loss_fn = make_model(dropout=0.0), EventTimingLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        losses = supervised_losses(model, loss_fn, batch)
        losses["total_loss"].backward()
        optimizer.step()
    assert losses["total_loss"] < 0.05
    detections, timings, _ = model.predict_events(batch["input"], lengths=batch["lengths"])
    assert torch.equal(detections, batch["event_labels"])
    assert (timings - batch["event_timings"]).abs().nan_to_num().max() < 2


def test_every_parameter_gets_a_gradient_from_the_loss():
    model = make_model()
    supervised_losses(model, EventTimingLoss(), next(iter(make_loader())))["total_loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    still = {name for name, parameter in model.named_parameters() if not parameter.grad.any()}
    assert still <= {"timing_head.4.bias"}, "a softmax does not see a constant; nothing else may stand still"


def test_defect_5_lengths_reach_the_model_and_padding_no_loss():
    dataset = make_loader().dataset
    windows = [window[:length] for window, length in zip(dataset.data, [150, 140, 150, 145, 150, 150, 150, 150], strict=True)]
    items = EventDataset(windows, dataset.event_labels, dataset.event_timings)
    batch = collate_fn_supervised([items[i] for i in range(8)])
    model, loss_fn = make_model().eval(), EventTimingLoss()
    clean = supervised_losses(model, loss_fn, batch)
    padding = torch.arange(150) >= batch["lengths"][:, None]
    dirty = supervised_losses(model, loss_fn, {**batch, "input": batch["input"].masked_fill(padding[..., None], torch.nan)})
    for name, value in clean.items():
        torch.testing.assert_close(dirty[name], value, rtol=0, atol=0)


def test_mixed_precision_runs(tmp_path):
    history = fit(make_trainer(tmp_path), tmp_path, make_loader(), num_epochs=1, precision="bf16-mixed")
    assert np.isfinite(history[0]["train_total_loss"])


def test_lightning_is_quiet_but_for_its_progress_bar(tmp_path):
    """In a process of its own, as importing Lightning sets the level of its logger."""
    code = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_training import fit, make_loader, make_trainer
folder = Path(sys.argv[2])
fit(make_trainer(folder), folder, make_loader(), num_epochs=1)
print("with a progress bar", flush=True)
fit(make_trainer(folder), folder, make_loader(), num_epochs=1, progress_bar=True)
"""
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    printed = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
    without, bar = printed.split("with a progress bar\n")
    assert without == "" and "train_total_loss" in bar
    assert not any(word in bar for word in ("Tip", "GPU available", "Warning", "stopped"))


def test_a_model_in_evaluation_mode_is_trained_with_dropout(tmp_path):
    trainer = make_trainer(tmp_path, make_model().eval())
    fit(trainer, tmp_path, make_loader(), num_epochs=1)
    assert trainer.model.training


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
    with pytest.raises(DataError, match="might run code"):
        load_checkpoint(path)
    assert not trace.exists()


def test_files_that_are_no_checkpoints_are_refused(trained, tmp_path):
    folder, _ = trained
    good = folder / "checkpoints" / "best_model.pth"
    path = tmp_path / "bad.pth"
    with pytest.raises(DataError, match="cannot read"):
        read_checkpoint(path)
    path.write_bytes(good.read_bytes()[:5000])
    with pytest.raises(DataError, match="truncated|checkpoint"):
        read_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="truncated|checkpoint"):
        read_checkpoint(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="must hold epoch"):
        read_checkpoint(path)
    checkpoint = torch.load(good)
    torch.save({**checkpoint, "format": 99}, path)
    with pytest.raises(DataError, match="format 99"):
        read_checkpoint(path)
    for change in ({"model_class": "Module"}, {"model_class": "annotations"}, {"model_class": None}, {"config": None}):
        torch.save({**checkpoint, **change}, path)
        with pytest.raises(DataError, match="cannot rebuild"):
            load_checkpoint(path)
    torch.save({**checkpoint, "config": {"hidden": 3}}, path)
    with pytest.raises(DataError, match="do not fit"):
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
