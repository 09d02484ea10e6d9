"""Training the context network on examples of candidates whose truth is known."""

import numpy as np
import torch
from torch.nn import functional as F

from ..networks.context import ContextLSTM, context_features, relative_evidence
from ..networks.seeds import seeded
from ..signals.streams import stream
from .loop import train

# Candidates in one training sequence: about ten seconds of a noisy recording, forty of a quiet one. Crops in a batch.
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

    def __len__(self):
        return STEPS_PER_EPOCH

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        rng = stream("context crops", self.seed, self.epoch)
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
    examples,
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
    time_embedding=None,
):
    """Train a :class:`ContextLSTM` with AdamW and one cycle of the learning rate.

    Parameters
    ----------
    examples, development : lists of Examples
    n_types : number of event types
    rate : Hz
    prior_logit : log odds that a candidate is an event before it is looked at
    shares : how often each training sequence is drawn, relative to the others
    time_embedding : of the times between events, see `ContextLSTM`

    Returns
    -------
    ContextLSTM with the weights of the least development loss (in eval mode), history
    """
    sequences = [as_sequence(one, rate, prior_logit) for one in examples]
    shares = np.array(
        [share * (seq["weight"].sum() > 0) for share, seq in zip(shares, sequences, strict=True)], dtype=float
    )
    held_out = [in_crops(as_sequence(one, rate, prior_logit)) for one in development if len(one.candidates)]
    loaders = (
        torch.utils.data.DataLoader(data, batch_size=None) for data in (ExampleCrops(sequences, shares, seed), held_out)
    )
    # Initial weights and dropout come from this seed; the caller's generator is left as it was.
    with seeded(seed):
        network = ContextLSTM(n_types, hidden_size, time_embedding=time_embedding)
        optimizer = torch.optim.AdamW(network.parameters(), PEAK_LEARNING_RATE, weight_decay=1e-3)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, PEAK_LEARNING_RATE, total_steps=max_epochs * STEPS_PER_EPOCH
        )
        history = train(
            network,
            # Every batch counts alike, whatever its size.
            lambda network, batch: {"total_loss": (sequence_loss(network, batch), 1)},
            *loaders,
            optimizer,
            num_epochs=max_epochs,
            scheduler=cycle,
            step_every_batch=True,
            patience=PATIENCE_EPOCHS,
            progress=progress,
            seed=None,
        )
    return network, history
