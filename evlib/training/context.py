"""Training the context network on examples, with Lightning: AdamW, one learning-rate cycle, early stopping."""

import numpy as np
import torch
from torch.nn import functional as F

from ..networks.context import ContextLSTM, context_features, relative_evidence
from ..networks.threads import few_threads

# Candidates in one training sequence: about ten seconds of a noisy recording, forty of a quiet one.
CROP = 192
BATCH = 16
PEAK_LEARNING_RATE = 4e-3
STEPS_PER_EPOCH = 50
PATIENCE_EPOCHS = 6


class ExampleCrops(torch.utils.data.IterableDataset):
    """Random crops of example sequences, ``STEPS_PER_EPOCH`` batches an epoch; the crops follow from the seed."""

    def __init__(self, sequences, shares, seed):
        self.sequences, self.shares, self.seed = sequences, shares / shares.sum(), seed
        self.epoch = 0

    def __iter__(self):
        rng = np.random.default_rng([7, self.seed, self.epoch])
        self.epoch += 1
        for _ in range(STEPS_PER_EPOCH):
            chosen = rng.choice(len(self.sequences), BATCH, p=self.shares)
            crops = []
            for k in chosen:
                length = len(self.sequences[k]["llr"])
                start = int(rng.integers(0, max(1, length - CROP + 1)))
                crops.append({name: value[start : start + CROP] for name, value in self.sequences[k].items()})
            lengths = torch.tensor([len(crop["llr"]) for crop in crops])
            batch = {
                name: torch.nn.utils.rnn.pad_sequence([crop[name] for crop in crops], batch_first=True)
                for name in crops[0]
            }
            yield batch | {"lengths": lengths}


def as_sequence(examples, rate, prior_logit):
    """Examples as tensors: features (n, F), llr relative to the prior (n,), type, target and weight (n,)."""
    found = examples.candidates
    return {
        "features": torch.from_numpy(context_features(found, rate, prior_logit)),
        "llr": torch.from_numpy(relative_evidence(found.llr, prior_logit)),
        "type": torch.from_numpy(found.type.astype(np.int64)),
        "target": torch.from_numpy(examples.target),
        "weight": torch.from_numpy(examples.weight),
    }


def in_crops(sequence):
    """A whole sequence as one batch of crops in a row: far faster than one long sequence."""
    crops = {name: torch.split(value, CROP) for name, value in sequence.items()}
    lengths = torch.tensor([len(crop) for crop in crops["llr"]])
    return {name: torch.nn.utils.rnn.pad_sequence(parts, batch_first=True) for name, parts in crops.items()} | {
        "lengths": lengths
    }


def sequence_loss(network, batch):
    """Weighted binary cross-entropy of a batch; padding and unknown truth have no weight."""
    logit = network(batch["features"], batch["llr"], batch["type"], batch.get("lengths"))
    loss = F.binary_cross_entropy_with_logits(logit, batch["target"], reduction="none")
    return (loss * batch["weight"]).sum() / batch["weight"].sum().clamp(min=1.0)


def train_context(
    train,
    development,
    n_types,
    rate,
    prior_logit,
    *,
    shares,
    hidden_size,
    seed,
    max_epochs,
    progress,
    logger=False,
    time_embedding=None,
):
    """Train a :class:`ContextLSTM`; the weights with the least development loss are kept.

    ``train``, ``development``: lists of Examples; ``shares``: how often each training sequence is drawn;
    ``time_embedding``: how the network is told of times, see there.
    Returns the network (in eval mode) and the history, a list of {"epoch", "train_loss", "development_loss"}.
    """
    import lightning

    from .loop import quiet_lightning

    sequences = [as_sequence(examples, rate, prior_logit) for examples in train]
    shares = np.array(
        [share * (seq["weight"].sum() > 0) for share, seq in zip(shares, sequences, strict=True)], dtype=float
    )
    held_out = [
        in_crops(as_sequence(examples, rate, prior_logit)) for examples in development if len(examples.candidates)
    ]

    class Task(lightning.LightningModule):
        def __init__(self, network):
            super().__init__()
            self.network, self.history = network, []

        def training_step(self, batch):
            loss = sequence_loss(self.network, batch)
            self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=BATCH)
            return loss

        def validation_step(self, batch):
            self.log("development_loss", sequence_loss(self.network, batch), prog_bar=True, batch_size=1)

        def on_train_epoch_end(self):
            values = self.trainer.callback_metrics
            self.history.append(
                {"epoch": self.current_epoch} | {k: float(values[k]) for k in ("train_loss", "development_loss")}
            )

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), PEAK_LEARNING_RATE, weight_decay=1e-3)
            cycle = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, PEAK_LEARNING_RATE, total_steps=max_epochs * STEPS_PER_EPOCH
            )
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    best = _KeepBest()
    # Initial weights and dropout come from this seed; the caller's generator is left as it was.
    with few_threads(), quiet_lightning(), torch.random.fork_rng():
        torch.manual_seed(seed)
        task = Task(ContextLSTM(n_types, hidden_size, time_embedding=time_embedding))
        trainer = lightning.Trainer(
            max_epochs=max_epochs,
            accelerator="cpu",
            gradient_clip_val=1.0,
            callbacks=[
                best.callback(lightning),
                lightning.pytorch.callbacks.EarlyStopping("development_loss", patience=PATIENCE_EPOCHS),
            ],
            enable_progress_bar=progress,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=logger,
            num_sanity_val_steps=0,
        )
        crops = torch.utils.data.DataLoader(ExampleCrops(sequences, shares, seed), batch_size=None)
        trainer.fit(task, crops, torch.utils.data.DataLoader(held_out, batch_size=None))
    network = task.network
    network.load_state_dict(best.state)
    return network.eval(), task.history


class _KeepBest:
    """Holds a copy of the weights with the least development loss: a file would outlive the call."""

    def __init__(self):
        self.loss, self.state = float("inf"), None

    def callback(self, lightning):
        keeper = self

        class Keep(lightning.Callback):
            def on_validation_end(self, trainer, module):
                loss = float(trainer.callback_metrics["development_loss"])
                if keeper.state is None or loss < keeper.loss:
                    keeper.loss = loss
                    keeper.state = {k: v.detach().clone() for k, v in module.network.state_dict().items()}

        return Keep()
