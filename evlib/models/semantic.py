"""Signals in the space of words: an encoder, attention pooling, and prototypes for any label.

A signal becomes one unit vector; a label's frozen text vector becomes K unit vectors. A label that was never trained on has
prototypes too, so a signal can be given any label (zero-shot).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..alignment import LOGIT_SCALE
from ..options import check_whole
from ..patch_encoder import DualBranchEncoder
from ..patches import PATCH_SAMPLES
from ..text import TEXT_SIZE


class TextAlignedModel(nn.Module):
    """A `DualBranchEncoder` whose pooled tokens live where the words of labels do.

    After the semantic alignment of TSFM. Differences: one attention pooling over all tokens; prototypes are a text vector
    and a learned step away from it, so that they exist for words never seen.

    Parameters
    ----------
    d_model ... patch_samples : as in `DualBranchEncoder`
    num_prototypes : of each label
    num_queries : of the attention pooling

    Examples
    --------
    >>> from evlib.patches import make_batch
    >>> model = TextAlignedModel(d_model=16, num_heads=2, num_layers=1, text_size=8, num_prototypes=3)
    >>> batch = make_batch(torch.zeros(2, 100, 6), 50.0, 0.5, torch.zeros(6, 8))
    >>> model(batch).shape, model.prototypes(torch.eye(8)[:5]).shape, model.scores(batch, torch.eye(8)[:5]).shape
    (torch.Size([2, 8]), torch.Size([5, 3, 8]), torch.Size([2, 5]))
    """

    def __init__(
        self,
        d_model=384,
        num_heads=8,
        num_layers=4,
        dropout=0.1,
        text_size=TEXT_SIZE,
        patch_samples=PATCH_SAMPLES,
        num_prototypes=3,
        num_queries=4,
    ):
        super().__init__()
        check_whole(1, num_prototypes=num_prototypes, num_queries=num_queries)
        self.encoder = DualBranchEncoder(d_model, num_heads, num_layers, dropout, text_size, patch_samples)
        self.config = self.encoder.config | {"num_prototypes": int(num_prototypes), "num_queries": int(num_queries)}
        self.queries = nn.Parameter(0.02 * torch.randn(num_queries, d_model))
        self.pooling = nn.MultiheadAttention(d_model, num_heads, batch_first=True)
        self.to_text = nn.Sequential(
            nn.LayerNorm(num_queries * d_model),
            nn.Linear(num_queries * d_model, d_model),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(d_model, text_size),
        )
        self.steps = nn.ModuleList(nn.Linear(text_size, text_size) for _ in range(num_prototypes))
        for step in self.steps:
            # Half the text's length in a direction of its own: the prototypes begin near the words, but apart.
            nn.init.normal_(step.bias, std=0.5 / math.sqrt(text_size))
            nn.init.zeros_(step.weight)
        self.log_scale = nn.Parameter(torch.tensor(math.log(LOGIT_SCALE)))

    def forward(self, batch):
        """A batch of `evlib.patches` -> (batch, text_size) unit vectors."""
        tokens = self.encoder(batch)
        valid = batch["patch_mask"][:, :, None] & batch["channel_mask"][:, None]
        queries = self.queries.expand(len(tokens), -1, -1)
        padding = ~valid.flatten(1)
        pooled, _ = self.pooling(
            queries, tokens.flatten(1, 2), tokens.flatten(1, 2), key_padding_mask=padding, need_weights=False
        )
        return F.normalize(self.to_text(pooled.flatten(1)), dim=1)

    def prototypes(self, text):
        """(labels, text_size) vectors of words -> (labels, K, text_size) unit vectors."""
        text = F.normalize(text, dim=1)
        return F.normalize(torch.stack([text + step(text) for step in self.steps], 1), dim=2)

    def scores(self, batch, text):
        """(batch, labels): similarity of each signal with the nearest prototype of each label."""
        return torch.einsum("if,jkf->ijk", self(batch), self.prototypes(text)).amax(2)
