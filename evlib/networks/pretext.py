"""Pretext models: what an encoder can learn from recordings without labels, by one of four pretexts.

- *autoencoder*: reconstruct the signal from a few numbers;
- *variational*: reconstruct it from a draw of a distribution over those numbers;
- *contrastive*: recognise a window, or a stretch of it, in another view of the same signal;
- *masked*: predict hidden parts from those around them.

The models of the original work on windows and hold, as ``encoder``, the encoder of `LSTMEventClassifier`;
`MaskedPatchModel` holds a transformer over patches. The models of `PRETEXT_MODELS` train the encoder of the frame
network on stretches of frames. After training only the encoder is kept. Padding changes nothing.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..signals.clock import n_frames
from ..signals.errors import require_int, require_positive
from .encoders import LSTMEncoder, check_batch, keep_arguments, length_mask, require_shape, transfer_encoder, two_layers
from .frames import STRETCH, FrameEncoder
from .losses import masked_mean, nt_xent
from .transformer import DualBranchEncoder

# --- Pretexts on windows.


class WindowPretext(nn.Module):
    """Base of the pretexts on windows: the transfer of their encoder, which is that of a classifier."""

    encoder: LSTMEncoder

    def transfer_encoder_to_classifier(self, classifier):
        """Copy the encoder's weights into a classifier, see `evlib.networks.encoders.transfer_encoder`."""
        return transfer_encoder(self, classifier)


class LSTMAutoencoder(WindowPretext):
    """Reconstruct a window from one latent vector.

    Encoder -> mean over the frames -> latent vector -> repeated over the frames -> LSTM decoder -> samples.

    After the autoencoder of https://github.com/gfr10598/lstm. Differences: the LSTMs run on frames of
    ``timing_resolution_samples`` (1 gives the original's form and its 824,262 parameters); padding is masked, and the
    reconstruction is zero there; a transfer that does not fit is refused.

    Parameters
    ----------
    input_size : channels
    hidden_size : LSTM units in each direction
    num_layers : LSTM layers, of the encoder and of the decoder
    latent_size : numbers in the latent vector
    dropout : probability, between the LSTM layers
    bidirectional : the encoder reads in both directions; the decoder always runs forwards
    timing_resolution_samples : samples in a frame

    Raises
    ------
    OptionError : a size below 1, a dropout outside [0, 0.99]

    Examples
    --------
    >>> model = LSTMAutoencoder(hidden_size=8, latent_size=4)
    >>> out = model(torch.zeros(2, 105, 6), lengths=torch.tensor([105, 80]))
    >>> out["reconstruction"].shape, out["latent"].shape
    (torch.Size([2, 105, 6]), torch.Size([2, 4]))
    """

    @keep_arguments
    def __init__(
        self,
        input_size: int = 6,
        hidden_size: int = 128,
        num_layers: int = 2,
        latent_size: int = 64,
        dropout: float = 0.3,
        bidirectional: bool = True,
        timing_resolution_samples: int = 10,
    ):
        super().__init__()
        require_int(1, latent_size=latent_size)
        self.encoder = LSTMEncoder(
            input_size, hidden_size, num_layers, dropout, bidirectional, timing_resolution_samples
        )
        self.latent_size, dropout = latent_size, dropout if num_layers > 1 else 0.0
        self.to_latent = nn.Linear(self.encoder.output_size, latent_size)
        self.from_latent = nn.Linear(latent_size, hidden_size)
        self.decoder = nn.LSTM(hidden_size, hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.to_samples = nn.Linear(hidden_size, timing_resolution_samples * input_size)

    def forward(self, x: Tensor, lengths=None) -> dict[str, Tensor]:
        """Encode and reconstruct a batch.

        Parameters
        ----------
        x : (batch, time, channels) float tensor
        lengths : (batch,) samples in each sequence, None when nothing is padded

        Returns
        -------
        dict : reconstruction (batch, time, channels), zero at padding, and latent (batch, latent_size)

        Raises
        ------
        ShapeError, DataError : as in `evlib.networks.encoders.check_batch`
        """
        latent = self.encode(x, lengths)
        return {"reconstruction": self._reconstruct(latent, x, lengths), "latent": latent}

    def encode(self, x: Tensor, lengths=None):
        """(batch, time, channels) -> (batch, latent_size)."""
        return self.to_latent(self.encoder.pooled(x, lengths))

    def decode(self, latent: Tensor, seq_len: int) -> Tensor:
        """(batch, latent_size) -> (batch, seq_len, channels)."""
        require_shape(("batch", self.latent_size), latent=latent)
        require_int(1, seq_len=seq_len)
        frames = n_frames(seq_len, self.encoder.resolution)
        states, _ = self.decoder(self.from_latent(latent)[:, None].expand(-1, frames, -1))
        return self.to_samples(states).reshape(len(latent), -1, self.encoder.input_size)[:, :seq_len]

    def _reconstruct(self, latent, x, lengths):
        mask = length_mask(check_batch(x, self.encoder.input_size, lengths), x.shape[1])
        return self.decode(latent, x.shape[1]).masked_fill(~mask[..., None], 0)


class VariationalLSTMAutoencoder(LSTMAutoencoder):
    """Reconstruct a window from a draw of a Gaussian over latent vectors.

    In training the latent vector is ``mu + exp(logvar / 2) * noise``; in evaluation mode it is ``mu``.

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

    def forward(self, x: Tensor, lengths=None) -> dict[str, Tensor]:
        """As `LSTMAutoencoder.forward`; adds mu and logvar (batch, latent_size)."""
        mu, logvar, latent = self.encode(x, lengths)
        reconstruction = self._reconstruct(latent, x, lengths)
        return {"reconstruction": reconstruction, "latent": latent, "mu": mu, "logvar": logvar}

    def encode(self, x: Tensor, lengths=None):
        """(batch, time, channels) -> mu, log variance and latent vector, each (batch, latent_size).

        The draw comes from PyTorch's global generator, as that of dropout does.
        """
        pooled = self.encoder.pooled(x, lengths)
        mu, logvar = self.to_latent(pooled), self.to_logvar(pooled)
        return mu, logvar, draw_latent(mu, logvar) if self.training else mu


def draw_latent(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A draw of the Gaussian of this mean and log variance."""
    return mean + (log_variance / 2).exp() * torch.randn_like(mean)


class ContrastiveOutput(NamedTuple):
    """Projections z (batch, projection_size) of length 1, and mean states h (batch, features), of both views.

    Read it by attribute or by key, or unpack it; without a second view z2 and h2 are None and no keys.
    """

    z1: Tensor
    h1: Tensor
    z2: Tensor | None = None
    h2: Tensor | None = None

    def __contains__(self, key):
        return isinstance(key, str) and getattr(self, key, None) is not None and key in self._fields

    def __getitem__(self, key):
        return getattr(self, key) if isinstance(key, str) and key in self._fields else tuple.__getitem__(self, key)


class ContrastiveLSTM(WindowPretext):
    """The classifier's encoder, a mean over the frames and a small projection, for `evlib.networks.losses.nt_xent`.

    The projection serves the training only: `transfer_encoder_to_classifier` copies the encoder.

    After the contrastive model of https://github.com/gfr10598/lstm (SimCLR, https://arxiv.org/abs/2002.05709).
    Differences: the LSTM runs on frames of ``timing_resolution_samples`` (1 gives the original's form and its 616,768
    parameters); padding is masked; a transfer that does not fit is refused.

    Parameters
    ----------
    input_size : channels
    hidden_size : LSTM units in each direction
    num_layers : LSTM layers
    projection_size : numbers by which two views are compared
    temperature : of the softmax over similarities; `ContrastiveTrainer` passes it to the loss
    dropout : probability, between the LSTM layers
    bidirectional : read in both directions
    timing_resolution_samples : samples in a frame

    Raises
    ------
    OptionError : a size below 1, a dropout outside [0, 0.99], a temperature that is not positive

    Examples
    --------
    >>> model = ContrastiveLSTM(hidden_size=8, projection_size=4)
    >>> z1, h1, z2, h2 = model(torch.zeros(3, 200, 6), torch.ones(3, 180, 6))
    >>> z1.shape, h2.shape
    (torch.Size([3, 4]), torch.Size([3, 16]))
    """

    @keep_arguments
    def __init__(
        self,
        input_size: int = 6,
        hidden_size: int = 128,
        num_layers: int = 2,
        projection_size: int = 64,
        temperature: float = 0.07,
        dropout: float = 0.3,
        bidirectional: bool = True,
        timing_resolution_samples: int = 10,
    ):
        super().__init__()
        require_int(1, projection_size=projection_size)
        require_positive(temperature=temperature)
        self.encoder = LSTMEncoder(
            input_size, hidden_size, num_layers, dropout, bidirectional, timing_resolution_samples
        )
        self.temperature, features = temperature, self.encoder.output_size
        self.projection = two_layers(features, features, projection_size, nn.ReLU())

    def forward(self, x1: Tensor, x2: Tensor | None = None, lengths1=None, lengths2=None) -> ContrastiveOutput:
        """Embed two views of the same windows, or one.

        Parameters
        ----------
        x1, x2 : (batch, time, channels) float tensors; the views may differ in time
        lengths1, lengths2 : (batch,) samples in each sequence, None when nothing is padded

        Raises
        ------
        ShapeError, DataError : as in `evlib.networks.encoders.check_batch`
        """
        views = [(x1, lengths1)] + ([] if x2 is None else [(x2, lengths2)])
        states = [self.encoder.pooled(x, lengths) for x, lengths in views]
        return ContrastiveOutput(*(part for h in states for part in (F.normalize(self.projection(h), dim=1), h)))


# Numbers by which `MaskedPatchModel` compares two views of a patch.
PROJECTION = 256


class MaskedPatchModel(nn.Module):
    """A `DualBranchEncoder` with one head that predicts hidden tokens and one that compares patches.

    Parameters
    ----------
    as in `DualBranchEncoder`

    Examples
    --------
    >>> from evlib.networks.transformer import make_batch
    >>> model = MaskedPatchModel(d_model=16, num_heads=2, num_layers=1, text_size=8)
    >>> out = model(make_batch(torch.zeros(2, 100, 6), 50.0, 0.5, torch.zeros(6, 8)))
    >>> {name: tuple(value.shape) for name, value in out.items()}
    {'shape': (2, 4, 6, 64), 'stats': (2, 4, 6, 2), 'spectrum': (2, 4, 6, 33), 'projection': (2, 4, 256)}
    """

    def __init__(self, *args, **options):
        super().__init__()
        self.encoder = DualBranchEncoder(*args, **options)
        self.config, width, samples = self.encoder.config, self.encoder.output_size, self.encoder.patch_samples
        self.parts = {"shape": samples, "stats": 2, "spectrum": samples // 2 + 1}
        self.rebuild = nn.Linear(width, sum(self.parts.values()))
        self.project = two_layers(width, 2 * PROJECTION, PROJECTION, nn.ReLU())

    def forward(self, batch: dict[str, Tensor], hidden: Tensor | None = None) -> dict[str, Tensor]:
        """Encode a batch of `evlib.networks.transformer`, with some tokens hidden.

        Returns
        -------
        dict : the predicted shape, stats and spectrum (batch, patches, channels, numbers), and projection (batch,
            patches, 256), of length 1, of the mean over the valid channels
        """
        tokens = self.encoder(batch, hidden)
        predicted = self.rebuild(tokens).split(list(self.parts.values()), dim=-1)
        mean = tokens.sum(2) / batch["channel_mask"].sum(1)[:, None, None]
        return dict(zip(self.parts, predicted, strict=True)) | {"projection": F.normalize(self.project(mean), dim=-1)}


# --- Pretexts of the frame network's encoder, on stretches of frames.


# Numbers between encoder and decoder for each stretch, and the weight of the divergence beside the reconstruction.
LATENT_SIZE, KL_WEIGHT = 16, 0.001
# Share of stretches that are hidden from the masked model.
MASK_RATIO = 0.3
# Stretches of a window that the contrastive model compares, those with the most energy; temperature of the softmax.
COMPARED, TEMPERATURE = 8, 0.2
# Views: standard deviation of the log gain of a channel and of the crosstalk between channels; largest noise, where
# background has 1; probability of a silent channel.
VIEW_GAIN, VIEW_MIX, VIEW_NOISE, VIEW_DROPOUT = 0.3, 0.2, 0.5, 0.1


class FramePretext(nn.Module):
    """Base of the pretexts on frames: an encoder, and the relative band energies of each stretch as targets.

    A subclass adds its heads in ``build`` and computes ``losses`` of signals (batch, time, channels).
    """

    def __init__(self, input_size, hidden_size=48, resolution=10):
        super().__init__()
        self.encoder = FrameEncoder(input_size, hidden_size, resolution)
        self.config = self.encoder.config
        targets = self.encoder.front.of_energy.in_channels * STRETCH
        self.build(self.encoder.output_size * STRETCH, hidden_size, targets)

    def stretches(self, frames):
        """(B, F, H) -> (B, S, STRETCH * H); frames after the last whole stretch are left out."""
        whole = max(frames.shape[1] // STRETCH, 1) * STRETCH
        frames = F.pad(frames, (0, 0, 0, max(whole - frames.shape[1], 0)))[:, :whole]
        return frames.unflatten(1, (-1, STRETCH)).flatten(2)

    def encoded(self, x):
        """(B, T, C) -> features (B, S, STRETCH * features of a frame)."""
        return self.stretches(self.encoder(x))

    @torch.no_grad()
    def targets(self, x):
        """(B, T, C) -> log energies relative to their level, (B, S, STRETCH * channels * bands)."""
        mask = torch.ones(len(x), n_frames(x.shape[1], self.encoder.resolution), dtype=torch.bool, device=x.device)
        relative, _ = self.encoder.front.relative_energy(x.transpose(1, 2), mask)
        return self.stretches(relative.flatten(1, 2).transpose(1, 2))


class FrameAutoencoder(FramePretext):
    """Reconstructs every stretch from a few numbers."""

    variational = False

    def build(self, features, hidden_size, targets):
        self.to_latent = nn.Linear(features, LATENT_SIZE * (2 if self.variational else 1))
        self.decode = two_layers(LATENT_SIZE, 4 * hidden_size, targets, nn.GELU())

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        latent, losses = self.to_latent(self.encoded(x)), {}
        if self.variational:
            mean, log_variance = latent.chunk(2, -1)
            latent = draw_latent(mean, log_variance) if self.training else mean
            losses["kl_loss"] = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1).mean()
        losses["reconstruction_loss"] = F.mse_loss(self.decode(latent), self.targets(x))
        return {"total_loss": losses["reconstruction_loss"] + KL_WEIGHT * losses.get("kl_loss", 0.0)} | losses


class VariationalFrameAutoencoder(FrameAutoencoder):
    """Reconstructs every stretch from a draw of a distribution over a few numbers."""

    variational = True


class FrameMasked(FramePretext):
    """Predicts hidden stretches, which are replaced by noise, from those around them."""

    def build(self, features, hidden_size, targets):
        self.predict = nn.Linear(features, targets)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        samples = STRETCH * self.encoder.resolution
        hidden = torch.rand(len(x), max(x.shape[1] // samples, 1), device=x.device) < MASK_RATIO
        hidden[:, 0] |= ~hidden.any(1)
        noisy = hidden.repeat_interleave(samples, 1)
        noisy = F.pad(noisy, (0, x.shape[1] - noisy.shape[1]))[..., None]
        predicted = self.predict(self.encoded(torch.where(noisy, torch.randn_like(x), x)))
        return {"total_loss": masked_mean((predicted - self.targets(x)).square().mean(-1), hidden)}


class FrameContrastive(FramePretext):
    """Recognises a stretch in another view of its window, among the stretches of all windows."""

    def build(self, features, hidden_size, targets):
        self.project = two_layers(features, 2 * hidden_size, hidden_size, nn.ReLU())

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        energy = self.targets(x).mean(-1)
        chosen = energy.topk(min(COMPARED, energy.shape[1]), 1).indices[..., None]
        views = [self.encoded(view(x)).take_along_dim(chosen, 1).flatten(0, 1) for _ in range(2)]
        first, second = map(self.project, views)
        return {"total_loss": nt_xent(first, second, TEMPERATURE)}


def view(x: Tensor) -> Tensor:
    """Signals (B, T, C) as other sensors might record them: other gains, crosstalk, noise, a silent channel."""
    batch, _, channels = x.shape
    gain = (VIEW_GAIN * torch.randn(batch, channels)).exp()
    mix = torch.diag_embed(gain) + VIEW_MIX * torch.randn(batch, channels, channels) / channels**0.5
    if channels > 1:
        mix = mix * (torch.rand(batch, 1, channels) >= VIEW_DROPOUT)
    return x @ mix.to(x) + VIEW_NOISE * torch.rand(batch, 1, 1).to(x) * torch.randn_like(x)


PRETEXT_MODELS = {
    "autoencoder": FrameAutoencoder,
    "variational": VariationalFrameAutoencoder,
    "contrastive": FrameContrastive,
    "masked": FrameMasked,
}
