"""Pretext models that squeeze a window through a small vector and rebuild it.

Encoder -> mean over the frames -> latent vector -> repeated over the frames -> LSTM decoder -> samples. Both models
hold, as ``encoder``, the very encoder of `LSTMEventClassifier`: to transfer is to hand it on. Padding is never seen,
and the reconstruction is zero behind the end of a sequence.
"""

import torch
from torch import nn

from ..encoders import LSTMEncoder, check_batch, length_mask
from ..errors import ShapeError
from ..options import check_whole
from ..timebase import n_frames
from ..transfer import transfer_encoder


class LSTMAutoencoder(nn.Module):
    """Rebuild a window from one latent vector.

    After the autoencoder of https://github.com/gfr10598/lstm. Differences: the LSTMs run on frames of
    ``timing_resolution_samples`` (1 gives the original's form and its 824,262 parameters); padding is masked; a transfer
    that does not fit is refused.

    Parameters
    ----------
    input_size : channels
    hidden_size : LSTM units in each direction
    num_layers : LSTM layers, of the encoder and of the decoder
    latent_size : numbers that a window is squeezed into
    dropout : probability, between the LSTM layers
    bidirectional : the encoder reads in both directions; the decoder always writes forwards
    timing_resolution_samples : samples in a frame

    Raises
    ------
    OptionError : a size below 1, a dropout outside [0, 1)

    Examples
    --------
    >>> model = LSTMAutoencoder(hidden_size=8, latent_size=4)
    >>> out = model(torch.zeros(2, 105, 6), lengths=torch.tensor([105, 80]))
    >>> out["reconstruction"].shape, out["latent"].shape
    (torch.Size([2, 105, 6]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        input_size=6,
        hidden_size=128,
        num_layers=2,
        latent_size=64,
        dropout=0.3,
        bidirectional=True,
        timing_resolution_samples=10,
    ):
        super().__init__()
        self.encoder = LSTMEncoder(input_size, hidden_size, num_layers, dropout, bidirectional, timing_resolution_samples)
        check_whole(1, latent_size=latent_size)
        # Python's own numbers, so that a checkpoint holds nothing else.
        self.config = {
            "input_size": int(input_size),
            "hidden_size": int(hidden_size),
            "num_layers": int(num_layers),
            "latent_size": int(latent_size),
            "dropout": float(dropout),
            "bidirectional": bool(bidirectional),
            "timing_resolution_samples": int(timing_resolution_samples),
        }
        self.input_size, self.latent_size = int(input_size), int(latent_size)
        self.timing_resolution_samples = int(timing_resolution_samples)
        self.to_latent = nn.Linear(self.encoder.output_size, latent_size)
        self.from_latent = nn.Linear(latent_size, hidden_size)
        self.decoder = nn.LSTM(hidden_size, hidden_size, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0)
        self.to_samples = nn.Linear(hidden_size, timing_resolution_samples * input_size)

    def forward(self, x, lengths=None):
        """Squeeze and rebuild a batch.

        Parameters
        ----------
        x : (batch, time, channels) float tensor
        lengths : (batch,) samples in each sequence, None when nothing is padded

        Returns
        -------
        dict : reconstruction (batch, time, channels), zero at padding, and latent (batch, latent_size)

        Raises
        ------
        ShapeError, DataError : as in `evlib.encoders.check_batch`
        """
        lengths = check_batch(x, self.input_size, lengths)
        latent = self.encode(x, lengths)
        return {"reconstruction": self._rebuild(latent, lengths, x.shape[1]), "latent": latent}

    def encode(self, x, lengths=None):
        """(batch, time, channels) -> (batch, latent_size)."""
        return self.to_latent(self.encoder.pooled(x, lengths))

    def decode(self, latent, n_samples):
        """(batch, latent_size) -> (batch, n_samples, channels)."""
        if latent.ndim != 2 or latent.shape[1] != self.latent_size:
            raise ShapeError(f"latent must have shape (batch, {self.latent_size}), got {tuple(latent.shape)}")
        check_whole(1, n_samples=n_samples)
        frames = n_frames(n_samples, self.timing_resolution_samples)
        states, _ = self.decoder(self.from_latent(latent)[:, None].expand(-1, frames, -1))
        return self.to_samples(states).reshape(len(latent), -1, self.input_size)[:, :n_samples]

    def get_encoder_weights(self):
        """A copy of the encoder's weights, by name."""
        return {name: weight.detach().clone() for name, weight in self.encoder.state_dict().items()}

    def transfer_encoder_to_classifier(self, classifier):
        """Hand the encoder's weights on, see `evlib.transfer.transfer_encoder`."""
        return transfer_encoder(self, classifier)

    def _rebuild(self, latent, lengths, n_samples):
        return self.decode(latent, n_samples).masked_fill(~length_mask(lengths, n_samples)[..., None], 0)


class VariationalLSTMAutoencoder(LSTMAutoencoder):
    """Rebuild a window from a draw of a Gaussian over latent vectors.

    In training the latent vector is ``mu + exp(logvar / 2) * noise``; in evaluation mode it is ``mu``, nothing is drawn.

    Parameters
    ----------
    as in `LSTMAutoencoder`

    Examples
    --------
    >>> model = VariationalLSTMAutoencoder(hidden_size=8, latent_size=4).eval()
    >>> out = model(torch.zeros(2, 105, 6))
    >>> sorted(out), torch.equal(out["latent"], out["mu"])
    (['latent', 'logvar', 'mu', 'reconstruction'], True)
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.to_logvar = nn.Linear(self.encoder.output_size, self.latent_size)

    def forward(self, x, lengths=None, generator=None):
        """As `LSTMAutoencoder.forward`; adds mu and logvar (batch, latent_size), and draws from ``generator``."""
        lengths = check_batch(x, self.input_size, lengths)
        mu, logvar, latent = self.encode(x, lengths, generator)
        return {"reconstruction": self._rebuild(latent, lengths, x.shape[1]), "latent": latent, "mu": mu, "logvar": logvar}

    def encode(self, x, lengths=None, generator=None):
        """(batch, time, channels) -> mu, log variance and latent vector, each (batch, latent_size).

        ``generator`` is a `torch.Generator` on the model's device; None draws as dropout does.
        """
        pooled = self.encoder.pooled(x, lengths)
        mu, logvar = self.to_latent(pooled), self.to_logvar(pooled)
        if not self.training:
            return mu, logvar, mu
        noise = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
        return mu, logvar, mu + (logvar / 2).exp() * noise
