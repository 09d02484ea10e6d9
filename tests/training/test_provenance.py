"""A training goes on from a checkpoint of the same run only, and no model of another run is lost."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from evlib import LSTMAutoencoder, LSTMEventClassifier
from evlib.networks.losses import AutoencoderLoss, EventTimingLoss
from evlib.networks.pretext import ContrastiveLSTM
from evlib.networks.seeds import seeded
from evlib.signals.errors import DataError, EvlibError, OptionError
from evlib.studies.sequences import SimilarLengths
from evlib.training import checkpoints
from evlib.training.checkpoints import latest_checkpoint, load, save
from evlib.training.data import (
    ContrastiveDataset,
    SyntheticEventDataset,
    UnsupervisedDataset,
    collate_fn_contrastive,
    collate_fn_supervised,
)
from evlib.training.loop import ContrastiveTrainer, SupervisedTrainer, UnsupervisedTrainer
from evlib.training.provenance import fingerprint

SIZES = {"hidden_size": 8, "num_layers": 1}


def run(kind, folder, epochs=1, seed=0, data=0, lr=1e-2, batch=4, weight=1.0, dropout=0.0, **options):
    """One of the trainers on a little data; each argument makes another run."""
    with seeded(3):
        x = np.random.default_rng(data).normal(size=(8, 40, 6)).astype(np.float32)
        if kind == "supervised":
            model, loss = (
                LSTMEventClassifier(**SIZES, num_events=3, dropout=dropout),
                EventTimingLoss(timing_weight=weight),
            )
            loader = DataLoader(
                SyntheticEventDataset(8, 100, num_events=3, seed=data), batch, collate_fn=collate_fn_supervised
            )
        elif kind == "unsupervised":
            model, loss = LSTMAutoencoder(**SIZES, dropout=dropout), AutoencoderLoss()
            loader = DataLoader(UnsupervisedDataset(x), batch)
        else:
            model, loss = ContrastiveLSTM(**SIZES, dropout=dropout, temperature=0.1 * weight), None
            loader = DataLoader(ContrastiveDataset(x, shaken, seed=data), batch, collate_fn=collate_fn_contrastive)
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        trainers = {"supervised": SupervisedTrainer, "unsupervised": UnsupervisedTrainer}
        common = (model, optimizer) if kind == "contrastive" else (model, loss, optimizer)
        trainer = trainers.get(kind, ContrastiveTrainer)(*common, device="cpu", log_dir=folder / "runs")
    options = {"save_dir": folder, "save_freq": 1, "progress_bar": False, "seed": seed} | options
    trainer.fit(loader, num_epochs=epochs, **options)
    return trainer


def shaken(window, generator=None):
    return window + 0.1 * torch.randn(window.shape, generator=generator)


KINDS = ("supervised", "unsupervised", "contrastive")


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_same_run_is_resumed(kind, tmp_path):
    run(kind, tmp_path, 1)
    whole = run(kind, tmp_path / "whole", 2)
    changes = [{"seed": 1}, {"data": 1}, {"lr": 1e-3}, {"batch": 2}, {"dropout": 0.5}]
    changes += [{"weight": 2.0}] if kind != "unsupervised" else []
    for change in changes:
        with pytest.raises(OptionError, match="had other settings"):
            run(kind, tmp_path, 2, resume_from=True, **change)
    resumed = run(kind, tmp_path, 2, resume_from=True)
    assert resumed.history == whole.history
    assert load(tmp_path / "best_model.pth")["run"] == load(tmp_path / "whole" / "best_model.pth")["run"]


def test_a_new_run_moves_the_models_of_an_earlier_one(tmp_path, caplog):
    for seed in range(3):
        run("unsupervised", tmp_path, 1, seed)
    assert len(caplog.records) == 2 and "are now in" in caplog.text
    seeds = [
        load(path)["run"]["seed"]
        for path in (
            tmp_path / "earlier_run_1" / "best_model.pth",
            tmp_path / "earlier_run_2" / "checkpoint_epoch_1.pth",
        )
    ]
    assert seeds == [0, 1] and load(tmp_path / "best_model.pth")["run"]["seed"] == 2
    # Nor does a run that goes on elsewhere replace what is there.
    run("unsupervised", tmp_path, 2, 1, resume_from=tmp_path / "earlier_run_2" / "checkpoint_epoch_1.pth")
    assert load(tmp_path / "earlier_run_3" / "best_model.pth")["run"]["seed"] == 2


@pytest.mark.parametrize("lost", ["best_model.pth", "checkpoint_epoch_2.pth"])
def test_a_run_that_ended_between_two_files_goes_on(lost, tmp_path, monkeypatch):
    """Whichever of the two files of epoch 2 was not written."""
    whole = run("unsupervised", tmp_path / "whole", 3)
    written = []

    def dying(path, *arguments, **more):
        if path.name == lost and (lost != "best_model.pth" or written):
            raise KeyboardInterrupt
        written.append(path.name)
        save(path, *arguments, **more)

    monkeypatch.setattr(checkpoints, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        run("unsupervised", tmp_path, 3)
    monkeypatch.undo()
    assert whole.history[1]["train_total_loss"] < whole.history[0]["train_total_loss"], "epoch 2 must be better"
    assert run("unsupervised", tmp_path, 3, resume_from=True).history == whole.history
    best, other = (load(folder / "best_model.pth") for folder in (tmp_path, tmp_path / "whole"))
    for name, value in other["model_state_dict"].items():
        assert torch.equal(best["model_state_dict"][name], value)


def test_a_run_that_has_its_best_model_alone_goes_on_from_it(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    run("unsupervised", tmp_path, 1, save_freq=None)
    assert latest_checkpoint(tmp_path).name == "best_model.pth"
    resumed = run("unsupervised", tmp_path, 2, resume_from=True)
    assert resumed.history == run("unsupervised", tmp_path / "whole", 2).history


DAMAGE = {
    "no epoch": {"epoch": None},
    "another epoch": {"epoch": 3},
    "epoch of text": {"epoch": "1"},
    "no steps": {"global_step": -1},
    "history of text": {"history": ["a"]},
    "history of nothing": {"history": []},
    "rng of text": {"rng": {"torch": "a", "cuda": [], "loader": None}},
    "rng of numbers": {"rng": {"torch": torch.zeros(3), "cuda": [], "loader": None}},
    "no rng": {"rng": {}},
    "best of another model": {"best_state_dict": {"a": torch.zeros(1)}},
    "best of text": {"best_state_dict": "a"},
    "optimizer of text": {"optimizer_state_dict": "a"},
    "optimizer of nothing": {"optimizer_state_dict": {"state": {}, "param_groups": []}},
    "run of text": {"run": "a"},
    "run of nothing": {"run": None},
    "weights that are not finite": {"model_state_dict": None},
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_state_of_a_training_is_refused(kind, tmp_path):
    trainer = run("unsupervised", tmp_path, 1)
    path = tmp_path / "checkpoint_epoch_1.pth"
    content = torch.load(path, weights_only=True)
    change = dict(DAMAGE[kind])
    if "model_state_dict" in change:
        change["model_state_dict"] = {name: value * torch.nan for name, value in content["model_state_dict"].items()}
    torch.save(content | change, path)
    with pytest.raises(EvlibError, match="checkpoint_epoch_1"):
        run("unsupervised", tmp_path, 2, resume_from=True)
    for key in ("rng", "history", "run", "best_state_dict"):
        torch.save({name: value for name, value in content.items() if name != key}, path)
        with pytest.raises(DataError, match="no state of a training"):
            run("unsupervised", tmp_path, 2, resume_from=True)
    assert len(trainer.history) == 1


x = torch.arange(24.0).reshape(4, 6)
DATA = {
    "tensor": lambda x: x,
    "array": lambda x: x.numpy(),
    "list of dicts": lambda x: [{"input": row} for row in x],
    "dataset": lambda x: TensorDataset(x, x),
    "loader": lambda x: DataLoader(TensorDataset(x), 2, shuffle=True),
    "sampler": lambda x: DataLoader(list(x), batch_sampler=SimilarLengths([1, 2, 3, 4], 2, 1)),
    "strings": lambda x: [str(float(value)) for value in x.flatten()],
    "objects": lambda x: np.array([str(float(value)) for value in x.flatten()], dtype=object),
    "half precision": lambda x: x.bfloat16(),
}


@pytest.mark.parametrize("kind", DATA)
def test_a_fingerprint_is_one_of_the_content(kind):
    make, state = DATA[kind], torch.get_rng_state()
    assert fingerprint(make(x)) == fingerprint(make(x.clone()))
    changed = x.clone()
    changed[2, 3] += 1
    others = [fingerprint(make(other)) for other in (changed, x.flip(0), x[:3])]
    assert len({fingerprint(make(x)), *others}) == 4
    data = make(x)
    before = fingerprint(data)
    if isinstance(data, DataLoader):
        list(data)
    assert fingerprint(data) == before
    torch.set_rng_state(state)


def test_a_fingerprint_of_large_data_reads_a_part(monkeypatch):
    monkeypatch.setattr("evlib.training.provenance.MOST_BYTES", 1000)
    large = np.random.default_rng(0).normal(size=(5000, 3))
    assert fingerprint(large) == fingerprint(large.copy()) != fingerprint(large * 2)
    assert fingerprint(large) != fingerprint(large[:-1])
