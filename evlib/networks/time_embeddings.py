"""Time embeddings: times (batch, steps) and features (batch, steps, 1) to vectors (batch, steps, size).

Times are first multiplied by ``time_scale``. A mixture of experts also returns the probability of each expert.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..signals.errors import DataError, OptionError, require_choice, require_int, require_number
from .losses import masked_mean

# Harmonics of the Fourier part, intervals of the spline grid, points of the grid of the change in time.
HARMONICS, GRID, RSWAF_GRID = 5, 5, 8


class NoTime(nn.Module):
    """Control: the same vector at every step, so that only the length of a sequence can be learned from."""

    def __init__(self, size=32):
        super().__init__()
        self.vector = nn.Parameter(torch.randn(size) / math.sqrt(size))

    def forward(self, times, features=None):
        return self.vector.expand(*times.shape, -1)


class FeaturesOnly(nn.Module):
    """Control: a linear map of the features, without any time."""

    def __init__(self, size=32):
        super().__init__()
        self.linear = nn.Linear(1, size)

    def forward(self, times, features):
        return self.linear(features)


class TableEmbedding(nn.Module):
    """A learnable vector for each whole time 0 to ``n_times`` - 1."""

    def __init__(self, size=32, n_times=784):
        super().__init__()
        self.table = nn.Embedding(n_times, size)

    def forward(self, times, features=None):
        last = self.table.num_embeddings - 1
        if not ((times >= 0) & (times < last + 1)).all():
            raise DataError(f"the table has times from 0 to {last}, got {times.min():g}..{times.max():g}")
        return self.table(times.long())


class SinCosEmbedding(nn.Module):
    """Sines (even places) and cosines (odd places) of the time at frequencies from 1 down to almost 1/10,000; nothing
    is learned.

    >>> SinCosEmbedding(4)(torch.zeros(1, 1))
    tensor([[[0., 1., 0., 1.]]])
    """

    def __init__(self, size=32, time_scale=1 / 784):
        super().__init__()
        if size % 2:
            raise OptionError(f"size must be even, a sine and a cosine for each frequency, got {size!r}")
        frequency = torch.exp(-torch.arange(size // 2) * (math.log(1e4) / (size // 2)))
        self.register_buffer("frequency", time_scale * frequency)

    def forward(self, times, features=None):
        angle = times[..., None] * self.frequency
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class LeTE(nn.Module):
    """Learnable time embedding: part Fourier series, part splines, of learned linear maps of the time.

    Chen et al., ICML 2025 (arXiv 2505.00887); here all weights are initialised. ``p`` is the share of the Fourier part;
    ``layer_norm`` normalises the vector, ``scale`` gives each of its numbers a factor. ``slope_rate`` is the learning
    rate of the slopes relative to the other weights: where times are large (unscaled, to 784), a step of Adam at the
    rate 1 turns the phases of the latest times by whole circles, and the layers after it cannot follow. 0 keeps the
    slopes as they are.
    """

    def __init__(self, size=32, p=0.5, layer_norm=True, scale=True, time_scale=1 / 784, slope_rate=1.0):
        super().__init__()
        require_number(0, 1, p=p)
        if slope_rate != 0:  # single precision resolves no slower steps
            require_number(1e-4, 1, slope_rate=slope_rate)
        n_fourier = int(p * size)
        n_spline = size - n_fourier
        self.time_scale, self.slope_rate = time_scale, slope_rate
        # The parameter is the slope divided by the rate: the same slope at the start, but smaller steps.
        rate = slope_rate or 1.0
        self.slope = nn.ParameterList(10 ** -torch.linspace(0, 9, n) / rate for n in (n_fourier, n_spline))
        self.slope.requires_grad_(slope_rate > 0)
        self.offset = nn.ParameterList(torch.zeros(n) for n in (n_fourier, n_spline))
        width = 1 / math.sqrt(max(n_fourier, 1) * HARMONICS)
        self.series = nn.Parameter(width * torch.randn(2 * HARMONICS * n_fourier, n_fourier))
        self.constant = nn.Parameter(torch.zeros(n_fourier))
        self.base = nn.Linear(n_spline, n_spline, bias=False)
        self.spline = nn.Parameter((2 * torch.rand(n_spline * (GRID + 3), n_spline) - 1) * 0.01)
        self.norm = nn.LayerNorm(size) if layer_norm else nn.Identity()
        self.scale = nn.Parameter(torch.ones(size)) if scale else 1.0

    def forward(self, times, features=None):
        times = self.time_scale * (self.slope_rate or 1.0) * times[..., None]
        fourier, spline = (times * slope + offset for slope, offset in zip(self.slope, self.offset, strict=True))
        angle = fourier[..., None] * torch.arange(1, HARMONICS + 1, device=times.device)
        fourier = torch.cat([angle.cos(), angle.sin()], dim=-1).flatten(-2) @ self.series + self.constant
        spline = self.base(spline.tanh()) + cubic_splines(spline).flatten(-2) @ self.spline
        return self.norm(torch.cat([fourier, spline], dim=-1)) * self.scale


def cubic_splines(x: Tensor, grid: int = GRID) -> Tensor:
    """The cubic B-splines on [-1, 1] in ``grid`` intervals: (...) -> (..., grid + 3), zero far outside.

    >>> cubic_splines(torch.tensor([-1.0, 0.3])).sum(-1).round(decimals=3)  # they add up to 1
    tensor([1., 1.])
    """
    width = 2 / grid
    center = torch.arange(-1, grid + 2, device=x.device) * width - 1
    u = ((x[..., None] - center) / width).abs()
    return torch.where(u < 1, 2 / 3 - u**2 + u**3 / 2, (2 - u).clamp(min=0) ** 3 / 6)


class KMOTE(nn.Module):
    """A mixture of four experts with ``n_terms`` each: Fourier series, splines, Gaussian bumps, wavelets.

    At each step the ``top`` likeliest are used. Returns the vectors and the router's probabilities (batch, steps, 4).
    """

    def __init__(self, size=32, n_terms=10, top=2, time_scale=1 / 784):
        super().__init__()
        require_number(1, 4, top=top)
        self.top, self.time_scale = top, time_scale
        self.router = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
        # Times of 0 to 1 become -1 to 1, the range of the experts' terms.
        self.slope, self.offset = nn.Parameter(torch.full((4,), 2.0)), nn.Parameter(torch.full((4,), -1.0))
        self.frequency = nn.Parameter(math.pi * torch.arange(1, n_terms + 1) + 0.1 * torch.randn(n_terms))
        self.phase = nn.Parameter(2 * math.pi * torch.rand(n_terms))
        self.center = nn.Parameter(torch.linspace(-1, 1, n_terms).repeat(2, 1))
        self.log_width = nn.Parameter(torch.full((2, n_terms), math.log(2 / n_terms)))
        terms = (n_terms, n_terms + 4, n_terms, n_terms)
        self.weight = nn.ParameterList(torch.randn(n, size) / math.sqrt(n) for n in terms)
        self.norm = nn.LayerNorm(size)

    def forward(self, times, features=None):
        times = self.time_scale * times
        x = times[..., None] * self.slope + self.offset
        bump, wavelet = ((x[..., 2:, None] - self.center) / self.log_width.exp()).unbind(-2)
        experts = (
            (self.frequency * x[..., :1] + self.phase).cos() @ self.weight[0],
            torch.cat([cubic_splines(x[..., 1], self.weight[1].shape[0] - 4), F.silu(x[..., 1:2])], dim=-1)
            @ self.weight[1],
            (-0.5 * bump**2).exp() @ F.softplus(self.weight[2]),
            ((1 - wavelet**2) * (-0.5 * wavelet**2).exp()) @ self.weight[3],
        )
        logits = self.router(2 * times[..., None] - 1)
        if self.training:
            logits = logits + 0.01 * torch.randn_like(logits)
        probability = logits.softmax(-1)
        value, expert = probability.topk(self.top, dim=-1)
        share = torch.zeros_like(probability).scatter(-1, expert, value / value.sum(-1, keepdim=True))
        return self.norm((torch.stack(experts, dim=-1) * share[..., None, :]).sum(-1)), probability


def balance_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the experts' mean probability over valid steps from uniform use; 0 when all are
    used equally.

    >>> balance_loss(torch.full((1, 3, 4), 0.25), torch.ones(1, 3, dtype=torch.bool))
    tensor(0.)
    """
    mean = torch.stack([masked_mean(p, mask) for p in probability.unbind(-1)])
    return math.log(len(mean)) + (mean * mean.clamp(min=1e-12).log()).sum()


class DeltaTimeStateSpace(nn.Module):
    """K-MOTE, then a selective state space whose steps depend on how the embedding changed since the event before.

    h = exp(D A) h + D B x, y = C h + x, with D = softplus(linear(x) + linear(change)) and A < 0 (Gu and Dao 2023), one
    event after the other; the change passes through bumps 1 - tanh^2 on a grid.
    """

    def __init__(self, size=32, state=8, **options):
        super().__init__()
        self.kmote = KMOTE(size, **options)
        self.register_buffer("grid", torch.linspace(-2, 2, RSWAF_GRID))
        self.change = nn.Linear(size * RSWAF_GRID, size)
        self.features = nn.Linear(1, size)
        self.step, self.maps = nn.Linear(size, size), nn.Linear(size, 2 * state)
        self.log_decay = nn.Parameter(torch.log(torch.arange(1.0, state + 1)).repeat(size, 1))
        self.norm = nn.LayerNorm(size)

    def forward(self, times, features):
        embedded, probability = self.kmote(times)
        before = torch.cat([embedded[:, :1], embedded[:, :-1]], dim=1)
        bumps = 1 - torch.tanh((embedded - before)[..., None] - self.grid) ** 2
        x = embedded + self.features(features)
        delta = F.softplus(self.step(x) + self.change(bumps.flatten(-2)))[..., None]
        into, out = self.maps(x).chunk(2, dim=-1)
        decay = torch.exp(-delta * self.log_decay.exp())
        entering = delta * into[:, :, None] * x[..., None]
        state, read = torch.zeros_like(entering[:, 0]), []
        # Unbound once: the gradient of an index at each step would be a whole batch of zeros.
        for keep, enter, weight in zip(decay.unbind(1), entering.unbind(1), out[:, :, None].unbind(1), strict=True):
            state = keep * state + enter
            read.append((state * weight).sum(-1))
        return self.norm(x + torch.stack(read, dim=1)), probability


# A new embedding is a class above and a line here.
TIME_EMBEDDINGS = {
    "none": NoTime,
    "intensity": FeaturesOnly,
    "table": TableEmbedding,
    "sincos": SinCosEmbedding,
    "lete": LeTE,
    "kan_mammote": DeltaTimeStateSpace,
}


def make_time_embedding(name: str, **options) -> nn.Module:
    """The embedding of a name in `TIME_EMBEDDINGS`.

    >>> make_time_embedding("lete", size=8)(torch.arange(3.0)[None]).shape
    torch.Size([1, 3, 8])
    """
    require_choice(TIME_EMBEDDINGS, time_embedding=name)
    require_int(2, size=options.get("size", 32))
    return TIME_EMBEDDINGS[name](**options)
