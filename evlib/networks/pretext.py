"""Pretext models that squeeze a window through a small vector and rebuild it.

Encoder -> mean over the frames -> latent vector -> repeated over the frames -> LSTM decoder -> samples. Both models
hold, as ``encoder``, the very encoder of `LSTMEventClassifier`: to transfer is to hand it on. Padding is never seen,
and the reconstruction is zero behind the end of a sequence.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..signals.clock import n_frames
from ..signals.errors import OptionError, ShapeError, require_int
from .encoders import LSTMEncoder, check_batch, frame_mask, length_mask, transfer_encoder
from .frames import STRETCH, FrameEncoder
from .losses import nt_xent
from .transformer import PATCH_SAMPLES, TEXT_SIZE, DualBranchEncoder


class LSTMAutoencoder(nn.Module):
    """Rebuild a window from one latent vector.

    After the autoencoder of https://github.com/gfr10598/lstm. Differences: the LSTMs run on frames of
    ``timing_resolution_samples`` (1 gives the original's form and its 824,262 parameters); padding is masked; a
    transfer that does not fit is refused.

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
        self.encoder = LSTMEncoder(
            input_size, hidden_size, num_layers, dropout, bidirectional, timing_resolution_samples
        )
        require_int(1, latent_size=latent_size)
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
        self.decoder = nn.LSTM(
            hidden_size, hidden_size, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0
        )
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
        ShapeError, DataError : as in `evlib.networks.encoders.check_batch`
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
        require_int(1, n_samples=n_samples)
        frames = n_frames(n_samples, self.timing_resolution_samples)
        states, _ = self.decoder(self.from_latent(latent)[:, None].expand(-1, frames, -1))
        return self.to_samples(states).reshape(len(latent), -1, self.input_size)[:, :n_samples]

    def get_encoder_weights(self):
        """A copy of the encoder's weights, by name."""
        return {name: weight.detach().clone() for name, weight in self.encoder.state_dict().items()}

    def transfer_encoder_to_classifier(self, classifier):
        """Hand the encoder's weights on, see `evlib.networks.encoders.transfer_encoder`."""
        return transfer_encoder(self, classifier)

    def _rebuild(self, latent, lengths, n_samples):
        return self.decode(latent, n_samples).masked_fill(~length_mask(lengths, n_samples)[..., None], 0)


class VariationalLSTMAutoencoder(LSTMAutoencoder):
    """Rebuild a window from a draw of a Gaussian over latent vectors.

    In training the latent vector is ``mu + exp(logvar / 2) * noise``; in evaluation mode it is ``mu``, nothing is
    drawn.

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
        return {
            "reconstruction": self._rebuild(latent, lengths, x.shape[1]),
            "latent": latent,
            "mu": mu,
            "logvar": logvar,
        }

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


# --- The contrastive pretext model: two views of one window shall lie close together, views of different windows ap


class ContrastiveOutput(NamedTuple):
    """Projections z (batch, projection_size) of length 1, and mean states h (batch, features), of both views."""

    z1: torch.Tensor
    h1: torch.Tensor
    z2: torch.Tensor
    h2: torch.Tensor


class ContrastiveLSTM(nn.Module):
    """The classifier's encoder, a mean over the frames and a small projection, for `evlib.networks.losses.nt_xent`.

    The projection is thrown away after training: `transfer_encoder_to_classifier` hands the encoder on.

    After the contrastive model of https://github.com/gfr10598/lstm (SimCLR, https://arxiv.org/abs/2002.05709).
    Differences: the LSTM runs on frames of ``timing_resolution_samples`` (1 gives the original's form and its 616,768
    parameters); padding is masked; a transfer that does not fit is refused.

    Parameters
    ----------
    input_size : channels
    hidden_size : LSTM units in each direction
    num_layers : LSTM layers
    projection_size : numbers in which two views are compared
    temperature : of the softmax over similarities; `ContrastiveTrainer` passes it to the loss
    dropout : probability, between the LSTM layers
    bidirectional : read in both directions
    timing_resolution_samples : samples in a frame

    Raises
    ------
    OptionError : a size below 1, a dropout outside [0, 1), a temperature that is not positive

    Examples
    --------
    >>> model = ContrastiveLSTM(hidden_size=8, projection_size=4)
    >>> z1, h1, z2, h2 = model(torch.zeros(3, 200, 6), torch.ones(3, 180, 6))
    >>> z1.shape, h2.shape
    (torch.Size([3, 4]), torch.Size([3, 16]))
    """

    def __init__(
        self,
        input_size=6,
        hidden_size=128,
        num_layers=2,
        projection_size=64,
        temperature=0.07,
        dropout=0.3,
        bidirectional=True,
        timing_resolution_samples=10,
    ):
        super().__init__()
        self.encoder = LSTMEncoder(
            input_size, hidden_size, num_layers, dropout, bidirectional, timing_resolution_samples
        )
        require_int(1, projection_size=projection_size)
        if not temperature > 0:
            raise OptionError(f"temperature must be positive, got {temperature!r}")
        # Python's own numbers, so that a checkpoint holds nothing else.
        self.config = {
            "input_size": int(input_size),
            "hidden_size": int(hidden_size),
            "num_layers": int(num_layers),
            "projection_size": int(projection_size),
            "temperature": float(temperature),
            "dropout": float(dropout),
            "bidirectional": bool(bidirectional),
            "timing_resolution_samples": int(timing_resolution_samples),
        }
        self.input_size, self.temperature = int(input_size), float(temperature)
        self.timing_resolution_samples = int(timing_resolution_samples)
        features = self.encoder.output_size
        self.projection = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, projection_size))

    def forward(self, x1, x2, lengths1=None, lengths2=None):
        """Embed two views of the same windows.

        Parameters
        ----------
        x1, x2 : (batch, time, channels) float tensors; the views may differ in time
        lengths1, lengths2 : (batch,) samples in each sequence, None when nothing is padded

        Returns
        -------
        ContrastiveOutput : z1, h1, z2, h2

        Raises
        ------
        ShapeError, DataError : as in `evlib.networks.encoders.check_batch`
        """
        h1, h2 = self.get_embeddings(x1, lengths1), self.get_embeddings(x2, lengths2)
        return ContrastiveOutput(
            F.normalize(self.projection(h1), dim=1), h1, F.normalize(self.projection(h2), dim=1), h2
        )

    def get_embeddings(self, x, lengths=None):
        """(batch, features): the mean state of each sequence, in the model's present mode."""
        return self.encoder.pooled(x, lengths)

    def get_encoder_weights(self):
        """A copy of the encoder's weights, by name."""
        return {name: weight.detach().clone() for name, weight in self.encoder.state_dict().items()}

    def transfer_encoder_to_classifier(self, classifier):
        """Hand the encoder's weights on, see `evlib.networks.encoders.transfer_encoder`."""
        return transfer_encoder(self, classifier)


# --- The masked model: hide tokens, tell what was there, and know a patch again in another view.


PROJECTION = 256


class MaskedPatchModel(nn.Module):
    """A `DualBranchEncoder` with a head that rebuilds hidden tokens and one that tells patches apart.

    Parameters
    ----------
    as in `DualBranchEncoder`

    Examples
    --------
    >>> import torch
    >>> from evlib.networks.transformer import make_batch
    >>> model = MaskedPatchModel(d_model=16, num_heads=2, num_layers=1, text_size=8)
    >>> out = model(make_batch(torch.zeros(2, 100, 6), 50.0, 0.5, torch.zeros(6, 8)))
    >>> {name: tuple(value.shape) for name, value in out.items()}
    {'shape': (2, 4, 6, 64), 'stats': (2, 4, 6, 2), 'spectrum': (2, 4, 6, 33), 'projection': (2, 4, 256)}
    """

    def __init__(
        self, d_model=384, num_heads=8, num_layers=4, dropout=0.1, text_size=TEXT_SIZE, patch_samples=PATCH_SAMPLES
    ):
        super().__init__()
        self.encoder = DualBranchEncoder(d_model, num_heads, num_layers, dropout, text_size, patch_samples)
        self.config = self.encoder.config
        self.parts = {"shape": patch_samples, "stats": 2, "spectrum": patch_samples // 2 + 1}
        self.rebuild = nn.Linear(d_model, sum(self.parts.values()))
        self.project = nn.Sequential(
            nn.Linear(d_model, 2 * PROJECTION), nn.ReLU(), nn.Linear(2 * PROJECTION, PROJECTION)
        )

    def forward(self, batch, hidden=None):
        """Encode a batch of `evlib.networks.transformer`, some tokens hidden.

        Returns
        -------
        dict : shape, stats and spectrum (batch, patches, channels, numbers) as the model would have them, and
            projection
        (batch, patches, 256), of length 1, the mean over the valid channels
        """
        tokens = self.encoder(batch, hidden)
        rebuilt = self.rebuild(tokens).split(list(self.parts.values()), dim=-1)
        mean = tokens.sum(2) / batch["channel_mask"].sum(1)[:, None, None]
        return dict(zip(self.parts, rebuilt, strict=True)) | {"projection": F.normalize(self.project(mean), dim=-1)}


# --- Pretext models of the frame network's encoder: what can be asked of signal without labels.


# Numbers that a stretch of frames must pass through, and the weight of the variational model's divergence.
LATENT_SIZE, KL_WEIGHT = 16, 0.001
# Share of stretches that are hidden from the masked model.
MASK_RATIO = 0.3
# Of a window the contrastive model compares so many stretches, those with the most energy; and its temperature.
COMPARED, TEMPERATURE = 8, 0.2
# Views: spread of log channel gains, of what channels take from each other, of noise (background has 1), of silent
# channels.
VIEW_GAIN, VIEW_MIX, VIEW_NOISE, VIEW_DROPOUT = 0.3, 0.2, 0.5, 0.1


class FramePretext(nn.Module):
    """What the pretext models share: an encoder, and the targets (B, S, STRETCH * channels * bands) of each stretch."""

    def __init__(self, input_size, hidden_size=48, resolution=10):
        super().__init__()
        self.encoder = FrameEncoder(input_size, hidden_size, resolution)
        self.config = self.encoder.config
        self.n_targets = self.encoder.front.of_energy.in_channels * STRETCH

    def stretches(self, frames):
        """(B, F, H) -> (B, S, STRETCH * H); frames beyond the last whole stretch are left out."""
        whole = max(frames.shape[1] // STRETCH, 1) * STRETCH
        frames = nn.functional.pad(frames, (0, 0, 0, max(whole - frames.shape[1], 0)))[:, :whole]
        return frames.unflatten(1, (-1, STRETCH)).flatten(2)

    @torch.no_grad()
    def targets(self, x):
        mask = frame_mask(torch.full((len(x),), x.shape[1]), x.shape[1], self.encoder.resolution)
        relative, _ = self.encoder.front.relative_energy(x.transpose(1, 2), mask)
        return self.stretches(relative.flatten(1, 2).transpose(1, 2))


class FrameAutoencoder(FramePretext):
    """Tells every stretch from a few numbers that the encoder says of it."""

    variational = False

    def __init__(self, input_size, hidden_size=48, resolution=10):
        super().__init__(input_size, hidden_size, resolution)
        width = self.encoder.output_size * STRETCH
        self.to_latent = nn.Linear(width, LATENT_SIZE * (1 + self.variational))
        self.decode = nn.Sequential(
            nn.Linear(LATENT_SIZE, 4 * hidden_size), nn.GELU(), nn.Linear(4 * hidden_size, self.n_targets)
        )

    def losses(self, x):
        latent = self.to_latent(self.stretches(self.encoder(x)))
        losses = {}
        if self.variational:
            mean, log_variance = latent.chunk(2, -1)
            latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
            losses["kl_loss"] = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1).mean()
        losses["reconstruction_loss"] = nn.functional.mse_loss(self.decode(latent), self.targets(x))
        total = losses["reconstruction_loss"] + KL_WEIGHT * losses.get("kl_loss", 0.0)
        return {"total_loss": total} | losses


class VariationalFrameAutoencoder(FrameAutoencoder):
    """The same from a distribution over those numbers."""

    variational = True


class FrameMasked(FramePretext):
    """Tells stretches of signal that it did not hear from those around them."""

    def __init__(self, input_size, hidden_size=48, resolution=10):
        super().__init__(input_size, hidden_size, resolution)
        self.tell = nn.Linear(self.encoder.output_size * STRETCH, self.n_targets)

    def losses(self, x):
        n = max(x.shape[1] // (self.encoder.resolution * STRETCH), 1)
        hidden = torch.rand(len(x), n, device=x.device) < MASK_RATIO
        hidden[:, 0] |= ~hidden.any(1)
        shown = hidden.repeat_interleave(STRETCH * self.encoder.resolution, 1)
        shown = nn.functional.pad(shown, (0, max(x.shape[1] - shown.shape[1], 0)))[:, : x.shape[1]]
        told = self.tell(self.stretches(self.encoder(torch.where(shown[..., None], torch.randn_like(x), x))))
        error = (told - self.targets(x)).square().mean(-1)
        return {"total_loss": (error * hidden).sum() / hidden.sum()}


class FrameContrastive(FramePretext):
    """Knows a stretch again in another view of its window, among the stretches of all windows."""

    def __init__(self, input_size, hidden_size=48, resolution=10):
        super().__init__(input_size, hidden_size, resolution)
        self.project = nn.Sequential(
            nn.Linear(self.encoder.output_size * STRETCH, 2 * hidden_size),
            nn.ReLU(),
            nn.Linear(2 * hidden_size, hidden_size),
        )

    def losses(self, x):
        loud = self.targets(x).mean(-1)
        chosen = loud.topk(min(COMPARED, loud.shape[1]), 1).indices[..., None]
        views = [self.stretches(self.encoder(view(x))) for _ in range(2)]
        first, second = (self.project(v.take_along_dim(chosen, 1).flatten(0, 1)) for v in views)
        return {"total_loss": nt_xent(first, second, TEMPERATURE)}


def view(x):
    """What another sensor might have heard, (B, T, C): gains, a little of each channel in the others, noise, a silent
    channel."""
    batch, _, channels = x.shape
    mix = (
        torch.diag_embed((VIEW_GAIN * torch.randn(batch, channels)).exp())
        + VIEW_MIX * torch.randn(batch, channels, channels) / channels**0.5
    )
    if channels > 1:
        mix = mix * (torch.rand(batch, 1, channels) >= VIEW_DROPOUT)
    return x @ mix.to(x) + VIEW_NOISE * torch.rand(batch, 1, 1).to(x) * torch.randn_like(x)


PRETEXT_MODELS = {
    "autoencoder": FrameAutoencoder,
    "variational": VariationalFrameAutoencoder,
    "contrastive": FrameContrastive,
    "masked": FrameMasked,
}
