"""The masked model: hide tokens, tell what was there, and know a patch again in another view.

What was there is told in three ways: the normalised shape (which an encoder can know only as far as other channels or
neighbours tell it), the log spectrum, and the stats, mean and deviation.
"""

import torch.nn.functional as F
from torch import nn

from ..patch_encoder import DualBranchEncoder
from ..patches import PATCH_SAMPLES
from ..text import TEXT_SIZE

PROJECTION = 256


class MaskedPatchModel(nn.Module):
    """A `DualBranchEncoder` with a head that rebuilds hidden tokens and one that tells patches apart.

    Parameters
    ----------
    as in `DualBranchEncoder`

    Examples
    --------
    >>> import torch
    >>> from evlib.patches import make_batch
    >>> model = MaskedPatchModel(d_model=16, num_heads=2, num_layers=1, text_size=8)
    >>> out = model(make_batch(torch.zeros(2, 100, 6), 50.0, 0.5, torch.zeros(6, 8)))
    >>> {name: tuple(value.shape) for name, value in out.items()}
    {'shape': (2, 4, 6, 64), 'stats': (2, 4, 6, 2), 'spectrum': (2, 4, 6, 33), 'projection': (2, 4, 256)}
    """

    def __init__(self, d_model=384, num_heads=8, num_layers=4, dropout=0.1, text_size=TEXT_SIZE, patch_samples=PATCH_SAMPLES):
        super().__init__()
        self.encoder = DualBranchEncoder(d_model, num_heads, num_layers, dropout, text_size, patch_samples)
        self.config = self.encoder.config
        self.parts = {"shape": patch_samples, "stats": 2, "spectrum": patch_samples // 2 + 1}
        self.rebuild = nn.Linear(d_model, sum(self.parts.values()))
        self.project = nn.Sequential(nn.Linear(d_model, 2 * PROJECTION), nn.ReLU(), nn.Linear(2 * PROJECTION, PROJECTION))

    def forward(self, batch, hidden=None):
        """Encode a batch of `evlib.patches`, some tokens hidden.

        Returns
        -------
        dict : shape, stats and spectrum (batch, patches, channels, numbers) as the model would have them, and projection
        (batch, patches, 256), of length 1, the mean over the valid channels
        """
        tokens = self.encoder(batch, hidden)
        rebuilt = self.rebuild(tokens).split(list(self.parts.values()), dim=-1)
        mean = tokens.sum(2) / batch["channel_mask"].sum(1)[:, None, None]
        return dict(zip(self.parts, rebuilt, strict=True)) | {"projection": F.normalize(self.project(mean), dim=-1)}
