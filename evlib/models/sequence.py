"""Models of sequences: a value for each step (heart rate), or a class for the whole (audio clips, event sequences).

Sizes, ``dropout``, ``bidirectional`` and ``cell`` are those of `LSTMEncoder`; ``lengths`` (batch,) say what is valid.
"""

import torch
from torch import nn

from ..encoders import LSTMEncoder, check_batch, length_mask, pool_frames
from ..errors import OptionError
from ..options import check_whole
from ..time_embeddings import balance_loss, make_time_embedding


class HeartRateLSTM(nn.Module):
    """One value for each step, (batch, time, input_size) -> (batch, time, 1); 204,417 parameters by default.

    As in the second version of an LSTM study of workouts. It reads forwards, so padding changes nothing. The output is
    ``center + scale`` times the network's: with the mean and spread of the targets it starts from the mean, not from 0.

    >>> HeartRateLSTM()(torch.zeros(2, 50, 11)).shape
    torch.Size([2, 50, 1])
    """

    def __init__(
        self, input_size=11, hidden_size=128, num_layers=2, dropout=0.3, bidirectional=False, cell="lstm", center=0.0, scale=1.0
    ):
        super().__init__()
        self.encoder = LSTMEncoder(input_size, hidden_size, num_layers, dropout, bidirectional, resolution=1, cell=cell)
        self.head = nn.Linear(self.encoder.output_size, 1)
        self.config = {name: value for name, value in self.encoder.config.items() if name != "resolution"}
        self.config |= {"center": float(center), "scale": float(scale)}

    def forward(self, x, lengths=None):
        return self.config["center"] + self.config["scale"] * self.head(self.encoder(x, lengths))


class LSTMClassifier(nn.Module):
    """One class for the whole sequence, (batch, time, input_size) -> logits (batch, num_classes).

    The head reads the last valid state (backwards, the state at the first step), or with ``pooling="mean"`` the mean state.

    >>> LSTMClassifier(input_size=40, hidden_size=128, num_layers=2, num_classes=10)(torch.randn(16, 100, 40)).shape
    torch.Size([16, 10])
    """

    def __init__(self, input_size, hidden_size, num_layers, num_classes, dropout=0.3, bidirectional=False, pooling="last"):
        super().__init__()
        check_whole(2, num_classes=num_classes, hidden_size=hidden_size)
        if pooling not in ("last", "mean"):
            raise OptionError(f"pooling must be last or mean, got {pooling!r}")
        self.encoder = LSTMEncoder(input_size, hidden_size, num_layers, dropout, bidirectional, resolution=1)
        hidden = nn.Linear(self.encoder.output_size, hidden_size // 2)
        self.head = nn.Sequential(
            nn.Dropout(dropout), hidden, nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_size // 2, num_classes)
        )
        self.config = {name: value for name, value in self.encoder.config.items() if name not in ("resolution", "cell")}
        self.config |= {"num_classes": int(num_classes), "pooling": pooling}

    def forward(self, x, lengths=None):
        mean = self.config["pooling"] == "mean"
        return self.head(self.encoder.pooled(x, lengths) if mean else last_state(self.encoder, x, lengths))


class TimeLSTM(nn.Module):
    """One class for a sequence of events, from an embedding of their times: logits (batch, num_classes).

    ``embedding`` is a name in `evlib.time_embeddings.TIME_EMBEDDINGS`, ``size`` and ``options`` are its. ``forward`` takes times
    (batch, n) and features (batch, n, 1); of a mixture of experts it returns the balance loss as a second value.

    >>> TimeLSTM("sincos")(torch.arange(5.0)[None], torch.ones(1, 5, 1), torch.tensor([5])).shape
    torch.Size([1, 10])
    """

    def __init__(self, embedding="table", hidden_size=128, num_layers=2, dropout=0.2, num_classes=10, size=32, **options):
        super().__init__()
        check_whole(2, num_classes=num_classes)
        self.embedding = make_time_embedding(embedding, size=size, **options)
        self.encoder = LSTMEncoder(size, hidden_size, num_layers, dropout, bidirectional=False, resolution=1)
        self.head = nn.Linear(hidden_size, num_classes)
        sizes = {name: self.encoder.config[name] for name in ("hidden_size", "num_layers", "dropout")}
        self.config = sizes | {"embedding": embedding, "num_classes": num_classes, "size": size, **options}

    def forward(self, events, features, lengths):
        lengths = torch.as_tensor(lengths, device=events.device)
        valid = length_mask(lengths, events.shape[1])
        embedded = self.embedding(events.masked_fill(~valid, 0), features.masked_fill(~valid[..., None], 0))
        embedded, *probability = embedded if isinstance(embedded, tuple) else (embedded,)
        logits = self.head(last_state(self.encoder, embedded, lengths))
        return (logits, balance_loss(probability[0], valid)) if probability else logits


def last_state(encoder, x, lengths=None):
    """(batch, time, features) -> (batch, output_size): the state at the end of each sequence, backwards at its start."""
    lengths = check_batch(x, encoder.input_size, lengths)
    states = encoder(x, lengths)
    last = pool_frames(states, length_mask(lengths, x.shape[1]), "last")
    half = encoder.output_size // 2
    return torch.cat([last[:, :half], states[:, 0, half:]], dim=1) if encoder.config["bidirectional"] else last
