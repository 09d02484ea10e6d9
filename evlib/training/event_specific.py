"""Training event-specific models for continuous detection, on windows of hybrid recordings."""

import numpy as np
import torch

from ..networks.event_specific import EventSpecificClassifier
from ..networks.losses import EventSpecificLoss
from ..networks.seeds import seeded
from ..signals.recording import cut
from ..signals.streams import stream
from .data import EventDataset, collate_fn_supervised
from .loop import supervised_losses, train

N_WINDOWS, N_DEVELOPMENT_WINDOWS = 6144, 1024
BATCH = 64
# The loss stays on a plateau before 16 types are told apart: smaller steps or more dropout would not leave it.
LEARNING_RATE, DROPOUT = 5e-3, 0.1
PATIENCE_EPOCHS = 6


def train_classifier(
    draw,
    development_draw,
    n_types,
    window,
    resolution,
    bank,
    *,
    keep_templates=True,
    hidden_size=64,
    seed=0,
    max_epochs=12,
    n_windows=None,
    progress=True,
):
    """Train an :class:`EventSpecificClassifier` on windows of hybrid recordings; the best weights are kept.

    Parameters
    ----------
    draw, development_draw : () -> signal (n, C), Events: a new hybrid recording at each call
    window, resolution : samples in a window and in a frame
    bank : TemplateBank that the model's templates start from
    keep_templates : False gives them the bank's size only, and lets them start from noise
    n_windows : windows in an epoch; default 6144

    Returns
    -------
    classifier (in eval mode), history
    """
    training = windows_of(draw, n_windows or N_WINDOWS, window, stream("windows for training", seed))
    development = windows_of(development_draw, N_DEVELOPMENT_WINDOWS, window, stream("windows for development", seed))
    with seeded(seed):
        sizes = {"hidden_size": hidden_size, "timing_resolution_samples": resolution, "dropout": DROPOUT}
        sizes |= {"template_length": bank.length, "before": bank.before}
        model = EventSpecificClassifier(training.data[0].shape[1], num_events=n_types, **sizes)
        if keep_templates:
            model.template_bank.load_templates(bank.templates)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max_epochs)
    # A type occurs at most once in a window: there is no second event for the refractory term to hold off.
    loss = EventSpecificLoss(refractory_weight=0.0, timing_resolution_samples=resolution)
    loaders = [
        torch.utils.data.DataLoader(part, BATCH, shuffle=shuffle, collate_fn=collate_fn_supervised)
        for part, shuffle in ((training, True), (development, False))
    ]
    history = train(
        model,
        lambda model, batch: supervised_losses(model, loss, batch),
        *loaders,
        optimizer,
        num_epochs=max_epochs,
        loss_fn=loss,
        scheduler=schedule,
        patience=PATIENCE_EPOCHS,
        progress=progress,
        seed=seed,
    )
    return model, history


def windows_of(draw, n_windows, window, rng):
    """Windows at random places of hybrid recordings, with the events whose onset lies in them."""
    data, labels, timings, n = [], [], [], 0
    while n < n_windows:
        signal, events = draw()
        count = min(n_windows - n, max(1, len(signal) // window))
        start = np.sort(rng.integers(0, len(signal) - window, count))
        label, timing = np.zeros((count, len(events.names))), np.full((count, len(events.names)), np.nan)
        time = events.time_samples
        first, last = np.searchsorted(time, start), np.searchsorted(time, start + window - 1)
        for k in range(int((last - first).max(initial=0))):
            row = np.flatnonzero(first + k < last)
            event = first[row] + k
            label[row, events.type[event]] = 1
            timing[row, events.type[event]] = time[event] - start[row]
        data.append(cut(signal, start, window))
        labels.append(label)
        timings.append(timing)
        n += count
    return EventDataset(*(np.concatenate(parts) for parts in (data, labels, timings)))
