"""Pretext models of the frame network's encoder: what can be asked of signal without labels.

Each holds a FrameEncoder as ``encoder`` and tells the losses of a batch of windows (B, T, C). What is to be told is the log
energy in the bands of the front end, relative to its level: these filters are not learned, so the target does not move.
"""

import torch
from torch import nn

from ..encoders import frame_mask
from ..frame_encoder import STRETCH, FrameEncoder
from ..losses import nt_xent

# Numbers that a stretch of frames must pass through, and the weight of the variational model's divergence.
LATENT_SIZE, KL_WEIGHT = 16, 0.001
# Share of stretches that are hidden from the masked model.
MASK_RATIO = 0.3
# Of a window the contrastive model compares so many stretches, those with the most energy; and its temperature.
COMPARED, TEMPERATURE = 8, 0.2
# Views: spread of log channel gains, of what channels take from each other, of noise (background has 1), of silent channels.
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
            nn.Linear(self.encoder.output_size * STRETCH, 2 * hidden_size), nn.ReLU(), nn.Linear(2 * hidden_size, hidden_size)
        )

    def losses(self, x):
        loud = self.targets(x).mean(-1)
        chosen = loud.topk(min(COMPARED, loud.shape[1]), 1).indices[..., None]
        views = [self.stretches(self.encoder(view(x))) for _ in range(2)]
        first, second = (self.project(v.take_along_dim(chosen, 1).flatten(0, 1)) for v in views)
        return {"total_loss": nt_xent(first, second, TEMPERATURE)}


def view(x):
    """What another sensor might have heard, (B, T, C): gains, a little of each channel in the others, noise, a silent channel."""
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
