"""A transformer over patches of many channels: attention over time and over channels in turn.

Batches are those of `evlib.patches`. Weights know nothing of how many patches or channels there are: a channel says what it
is by the vector of its description. Whatever stands at padding, even NaN, changes nothing.
"""

import math

import torch
from torch import nn

from .encoders import check_batch
from .errors import OptionError, ShapeError
from .options import check_whole
from .patches import PATCH_SAMPLES
from .timebase import n_frames

# Width, heads and blocks. "nano" is for a CPU; the others are those of the original.
SIZES = {
    "nano": {"d_model": 64, "num_heads": 4, "num_layers": 2},
    "tiny": {"d_model": 192, "num_heads": 8, "num_layers": 4},
    "small": {"d_model": 384, "num_heads": 8, "num_layers": 4},
    "small-deep": {"d_model": 384, "num_heads": 8, "num_layers": 8},
    "medium": {"d_model": 512, "num_heads": 8, "num_layers": 8},
    "large": {"d_model": 512, "num_heads": 8, "num_layers": 12},
}
TEXT_SIZE = 384
# Parts of a patch that the convolutions keep apart: one would forget where in the patch something was.
TOKEN_PARTS = 4
# Added to amplitudes before their logarithm, where white noise has 1.
SPECTRUM_FLOOR = 0.1


class DualBranchEncoder(nn.Module):
    """Tokens of patches, then blocks of attention over time, attention over channels and a feed-forward network.

    After the IMU activity recognition encoder (TSFM). Differences: mean and deviation of a patch go into its token; the
    convolutions keep four parts of a patch apart; the vectors of descriptions come from outside.

    Parameters
    ----------
    d_model, num_heads, num_layers : width of a token, attention heads, blocks; see ``SIZES`` and `of_size`
    dropout : probability, in the tokens and the blocks
    text_size : numbers in the vector of a description
    patch_samples : samples in a patch

    Raises
    ------
    OptionError : sizes below 1, heads that do not divide the width, a dropout outside of [0, 1), an unknown size

    Examples
    --------
    >>> from evlib.patches import make_batch
    >>> encoder = DualBranchEncoder.of_size("nano", text_size=8)
    >>> encoder(make_batch(torch.zeros(2, 100, 6), 50.0, 0.5, torch.zeros(6, 8))).shape
    torch.Size([2, 4, 6, 64])
    """

    def __init__(
        self, d_model=384, num_heads=8, num_layers=4, dropout=0.1, text_size=TEXT_SIZE, patch_samples=PATCH_SAMPLES
    ):
        super().__init__()
        sizes = {"d_model": d_model, "num_heads": num_heads, "num_layers": num_layers, "text_size": text_size}
        sizes["patch_samples"] = patch_samples
        check_whole(1, **sizes)
        if d_model % num_heads or d_model % 2:
            raise OptionError(f"d_model must be even and a multiple of {num_heads} heads, got {d_model}")
        if not 0 <= dropout < 1:
            raise OptionError(f"dropout must lie in [0, 1), got {dropout!r}")
        # Python's own numbers, so that a checkpoint holds nothing else.
        self.config = {name: int(size) for name, size in sizes.items()} | {"dropout": float(dropout)}
        self.output_size, self.patch_samples = int(d_model), int(patch_samples)
        self.tokenizer = PatchTokenizer(d_model, patch_samples, dropout)
        self.mask_token = nn.Parameter(0.02 * torch.randn(d_model))
        self.time_scale = nn.Parameter(torch.tensor(0.1))
        self.channel_code = ChannelCode(text_size, d_model)
        self.blocks = nn.ModuleList(DualBranchBlock(d_model, num_heads, dropout) for _ in range(num_layers))

    @classmethod
    def of_size(cls, size, **options):
        """An encoder of one of the ``SIZES``."""
        if size not in SIZES:
            raise OptionError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
        return cls(**SIZES[size] | options)

    def forward(self, batch, hidden=None):
        """Encode a batch.

        Parameters
        ----------
        batch : see `evlib.patches`
        hidden : (batch, patches, channels) bool, True at tokens that are not to be seen

        Returns
        -------
        (batch, patches, channels, d_model), zero at padding

        Raises
        ------
        ShapeError : tensors that do not fit each other or the encoder
        """
        patches, stats, valid = self._check(batch)
        tokens = self.tokenizer(patches.transpose(2, 3), stats)
        if hidden is not None:
            tokens = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
        places = sinusoids(tokens.shape[1], tokens.shape[3]).to(tokens)
        channels = self.channel_code(batch["channel_text"].masked_fill(~batch["channel_mask"][..., None], 0))
        tokens = tokens + self.time_scale * places[:, None] + channels[:, None]
        for block in self.blocks:
            tokens = block(tokens, batch["patch_mask"], batch["channel_mask"])
        return tokens.masked_fill(~valid[..., None], 0)

    def pooled(self, batch):
        """(batch, d_model): the mean of all valid tokens."""
        valid = batch["patch_mask"].sum(1) * batch["channel_mask"].sum(1)
        return self(batch).sum((1, 2)) / valid[:, None]

    def _check(self, batch):
        """Patches and stats without what stands at padding, and the mask of valid tokens."""
        patches, stats, text = batch["input"], batch["stats"], batch["channel_text"]
        size, n_patches, n_samples, channels = patches.shape
        wanted = {
            "stats": (size, n_patches, channels, 2),
            "patch_mask": (size, n_patches),
            "channel_mask": (size, channels),
            "channel_text": (size, channels, self.config["text_size"]),
        }
        wrong = [f"{name} {tuple(batch[name].shape)}, not {shape}" for name, shape in wanted.items() if batch[name].shape != shape]
        if wrong or n_samples != self.patch_samples:
            raise ShapeError(
                f"the encoder reads patches (batch, patches, {self.patch_samples}, channels), got {tuple(patches.shape)}"
                + "".join(f"; {line}" for line in wrong)
            )
        if not (batch["patch_mask"].any(1) & batch["channel_mask"].any(1)).all():
            raise ShapeError("each sequence of a batch needs a valid patch and a valid channel")
        valid = batch["patch_mask"][:, :, None] & batch["channel_mask"][:, None]
        del text
        return patches.masked_fill(~valid[:, :, None], 0), stats.masked_fill(~valid[..., None], 0), valid


class PatchTokenizer(nn.Module):
    """(..., patch_samples) and stats (..., 2) -> (..., d_model): the same convolutions for every channel."""

    def __init__(self, d_model, patch_samples, dropout):
        super().__init__()
        # Short patches are not thinned out.
        stride = 2 if patch_samples >= 32 else 1
        self.convolutions = nn.Sequential(
            nn.Conv1d(1, 32, 5, stride, padding=2),
            nn.GroupNorm(1, 32),
            nn.GELU(),
            nn.Conv1d(32, 64, 5, stride, padding=2),
            nn.GroupNorm(1, 64),
            nn.GELU(),
            nn.AdaptiveAvgPool1d(TOKEN_PARTS),
            nn.Flatten(),
        )
        self.of_shape = small_mlp(64 * TOKEN_PARTS + patch_samples // 2 + 1, d_model, dropout)
        # By itself, or its two numbers would be lost among the others.
        self.of_stats = small_mlp(2, d_model, dropout)

    def forward(self, patches, stats):
        parts = self.convolutions(patches.reshape(-1, 1, patches.shape[-1]))
        parts = parts.view(*patches.shape[:-1], -1)
        return self.of_shape(torch.cat([parts, log_spectrum(patches).to(parts.dtype)], -1)) + self.of_stats(stats.to(parts.dtype))


def small_mlp(inputs, d_model, dropout):
    return nn.Sequential(nn.Linear(inputs, d_model), nn.GELU(), nn.Dropout(dropout), nn.Linear(d_model, d_model))


def log_spectrum(patches):
    """(..., samples) -> (..., samples // 2 + 1): log amplitudes of the frequencies in each normalised patch.

    >>> log_spectrum(torch.zeros(3, 64)).shape
    torch.Size([3, 33])
    """
    # In full precision: half precision has no transform of every length.
    amplitude = torch.fft.rfft(patches.float(), norm="ortho").abs()
    return (amplitude + SPECTRUM_FLOOR).log()


class ChannelCode(nn.Module):
    """The vector of a description -> what is added to the tokens of its channel."""

    def __init__(self, text_size, d_model):
        super().__init__()
        self.linear = nn.Linear(text_size, d_model)
        self.mlp = nn.Sequential(nn.Linear(text_size, d_model), nn.GELU(), nn.Linear(d_model, d_model))
        nn.init.zeros_(self.mlp[-1].weight)
        nn.init.zeros_(self.mlp[-1].bias)

    def forward(self, text):
        return self.linear(text) + self.mlp(text)


class DualBranchBlock(nn.Module):
    """Attention over the patches of a channel, over the channels of a patch, feed-forward; each added, then normalised."""

    def __init__(self, d_model, num_heads, dropout):
        super().__init__()
        options = {"dropout": dropout, "batch_first": True}
        self.over_time = nn.MultiheadAttention(d_model, num_heads, **options)
        self.over_channels = nn.MultiheadAttention(d_model, num_heads, **options)
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * d_model, d_model)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, patch_mask, channel_mask):
        size, patches, channels, width = x.shape
        rows = x.transpose(1, 2).reshape(-1, patches, width)  # (batch * channels, patches, width)
        rows = self._attend(self.over_time, rows, patch_mask.repeat_interleave(channels, 0), 0)
        rows = rows.view(size, channels, patches, width).transpose(1, 2).reshape(-1, channels, width)
        rows = self._attend(self.over_channels, rows, channel_mask.repeat_interleave(patches, 0), 1)
        x = rows.view(size, patches, channels, width)
        return self.norms[2](x + self.dropout(self.feed_forward(x)))

    def _attend(self, attention, rows, mask, norm):
        # Without padding the attention is faster without a mask.
        padding = None if mask.all() else ~mask
        attended, _ = attention(rows, rows, rows, key_padding_mask=padding, need_weights=False)
        return self.norms[norm](rows + self.dropout(attended))


def sinusoids(n, width):
    """(n, width): sines and cosines of the place in a sequence.

    >>> sinusoids(2, 4)[0]
    tensor([0., 0., 1., 1.])
    """
    frequency = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    phase = torch.arange(n)[:, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], 1)
