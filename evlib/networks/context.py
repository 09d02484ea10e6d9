"""The context network: how much do the events around a candidate support it?

A template filter covers 40 ms; a rhythm takes seconds. The network reads the candidates of a recording as a sequence of
events in continuous time, without a grid of frames: a recording that is shifted by a fraction of a frame gives the same
numbers. The features of a candidate are its own evidence and, on a logarithmic scale of time differences, how many
likely events of its own type and of other types lie that far before and after it. A bidirectional LSTM carries the
state of the recording (pace, order, noise) along the sequence. All types share the weights, so that rare types profit
from frequent ones.

The log-likelihood ratio of the matched filter is added to the output: the untrained network *is* the matched filter,
and training moves away from it only where context helps. What context may add to the evidence and what it may subtract
is bounded, so that in an unknown rhythm strong evidence stays an event and weak evidence stays none.
"""

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn

from ..signals.errors import OptionError
from .encoders import keep_arguments, run_recurrent, two_layers
from .time_embeddings import make_time_embedding

# Time differences from 10 ms to 9 s are sorted into bins of equal logarithm, with linear weights between neighbours.
RHYTHM_BINS, RHYTHM_RANGE_S = 56, (0.010, 9.0)
# Features of a candidate itself, and of all with the four histograms.
OWN_FEATURES = 8
# A neighbour further away, in seconds, or none at all, counts as this far: no feature sees farther than this.
FAR_S = 10.0
N_FEATURES = OWN_FEATURES + 4 * RHYTHM_BINS
# Pairs of candidates whose difference in time is looked at at a time: few enough for the caches of a processor.
PAIRS = 1 << 16
# Log odds from which evidence counts as certain.
CERTAIN = 20.0
# Bound of what context may change during training, in log odds: none. A detector chooses it on development data.
UNLIMITED = 1e6


def relative_evidence(llr: np.ndarray, prior_logit: float) -> np.ndarray:
    """Log-likelihood ratio relative to the prior, (n,) float32; beyond +-20 it grows by its logarithm only.

    Otherwise the network would have to compensate for differences between certain events, which decide nothing.
    """
    evidence = np.asarray(llr, dtype=np.float64) - prior_logit
    excess = np.maximum(np.abs(evidence) / CERTAIN, 1.0)
    return (np.clip(evidence, -CERTAIN, CERTAIN) + np.sign(evidence) * CERTAIN * np.log(excess)).astype(np.float32)


def context_features(candidates, sampling_rate_hz: float, prior_logit: float, rows=slice(None)) -> np.ndarray:
    """Features of each candidate, or of some ``rows`` of them (a slice), (n, N_FEATURES) float32.

    Eight numbers of its own (evidence, probability, evidence without its neighbours, margin over other types, misfit,
    amplitude, log time to its neighbours), then four histograms of time differences, weighted by probability: past
    events of its own type and of others, future events of its own type and of others.
    """
    time_s = candidates.time / sampling_rate_hz
    probability = expit(np.clip(candidates.llr - prior_logit, -30, 30))
    before, after = np.diff(time_s, prepend=time_s[:1] - FAR_S), np.diff(time_s, append=time_s[-1:] + FAR_S)
    own = [
        np.clip(candidates.llr / 10, -1, 3),
        probability,
        np.clip(candidates.llr_isolated / 10, -1, 3),
        np.clip(candidates.margin / 10, -3, 3),
        np.clip(candidates.misfit / 3, -2, 4),
        np.clip(candidates.amplitude, 0, 3),
        np.log(np.clip(before, 1e-3, FAR_S)),
        np.log(np.clip(after, 1e-3, FAR_S)),
    ]
    histograms = _rhythm(time_s, candidates.type, probability, np.arange(len(time_s))[rows])
    return np.concatenate([np.stack(own, axis=1)[rows], histograms], axis=1).astype(np.float32)


def _rhythm(time_s, type, probability, rows):
    """Weighted histograms of log time differences, (len(rows), 4 * RHYTHM_BINS): own past, others' past, own and
    others' future. All pairs of some rows and what is in their range at once."""
    shortest, longest = RHYTHM_RANGE_S
    width = np.log(longest / shortest) / (RHYTHM_BINS - 1)
    first = np.searchsorted(time_s, time_s[rows] - longest, side="right")
    n_near = np.searchsorted(time_s, time_s[rows] + longest) - first
    weight, parts = np.where(probability > 1e-3, probability, 0), [np.zeros((0, 4 * RHYTHM_BINS), np.float32)]
    up_to = np.cumsum(n_near)
    edges = np.searchsorted(up_to, np.arange(PAIRS, up_to[-1] if len(rows) else 0, PAIRS))
    for part in np.split(np.arange(len(rows)), np.unique(edges)):
        n, count = len(part), n_near[part]
        row, start = np.repeat(np.arange(n), count), np.repeat(first[part] - np.cumsum(count) + count, count)
        other = np.arange(len(row)) + start
        own = rows[part][row]
        # Differences below the shortest bin count in it; a candidate is no neighbour of its own.
        position = np.log(np.maximum(np.abs(time_s[other] - time_s[own]), shortest) / shortest) / width
        lower = position.astype(int)
        cell = ((row * 2 + (other > own)) * 2 + (type[other] != type[own])) * RHYTHM_BINS + lower
        share, height = position - lower, np.where(other == own, 0.0, weight[other])
        size = n * 4 * RHYTHM_BINS
        out = np.bincount(cell, height * (1 - share), size)[:size]
        out[1:] += np.bincount(cell, height * share, size)[: size - 1]
        parts.append(out.reshape(n, 4 * RHYTHM_BINS).astype(np.float32))
    return np.concatenate(parts)


class ContextLSTM(nn.Module):
    """Log odds that each candidate is an event: matched filter plus context.

    Parameters
    ----------
    num_events : E, number of types; types share all weights except for an embedding
    hidden_size : LSTM units per direction
    embedding_size : numbers that are specific to a type (0: types differ in nothing but their evidence)
    dropout : on the input projection and before the output
    time_embedding : None gives each bin of the histograms a weight of its own. A name in
        `evlib.networks.time_embeddings.TIME_EMBEDDINGS` replaces each histogram by the sum of embeddings of its bins
        instead, which interpolates linearly between bins. "none" leaves only the number of likely events; the times to
        the nearest candidates of any type are among the candidate's own features
    time_size, time_scale : size of the embedding, and factor for the number of a bin (0 to 55); at the default
        neighbouring bins have similar vectors

    Forward: features (B, N, N_FEATURES), llr (B, N) relative to the prior, type (B, N), lengths (B,) or None -> log
    odds (B, N). Positions after the end of a sequence change nothing.

    >>> network = ContextLSTM(num_events=3)
    >>> features, llr = torch.randn(1, 5, N_FEATURES), torch.randn(1, 5)
    >>> bool(torch.equal(network.eval()(features, llr, torch.zeros(1, 5, dtype=int)), llr))  # untrained: the filter
    True
    """

    @keep_arguments
    def __init__(
        self,
        num_events,
        hidden_size=64,
        embedding_size=4,
        dropout=0.2,
        time_embedding=None,
        time_size=16,
        time_scale=0.2,
    ):
        super().__init__()
        n_features, self.time = N_FEATURES, None
        if time_embedding is not None:
            n_features, self.time = OWN_FEATURES + 4 * time_size, _bin_embedding(time_embedding, time_size, time_scale)
        self.embedding = nn.Embedding(num_events, embedding_size)
        nn.init.normal_(self.embedding.weight, std=0.1)
        first = nn.Linear(n_features + embedding_size, hidden_size)
        self.project = nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout))
        self.lstm = nn.LSTM(hidden_size, hidden_size, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(dropout), *two_layers(3 * hidden_size, hidden_size, 1, nn.ReLU()))
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)
        self.skip_gain = nn.Parameter(torch.ones(()))
        self.register_buffer("veto", torch.tensor(UNLIMITED))
        self.register_buffer("boost", torch.tensor(UNLIMITED))

    def limit(self, veto, boost):
        """Let context subtract at most ``veto`` from the log odds and add at most ``boost``."""
        self.veto.fill_(veto)
        self.boost.fill_(boost)

    def forward(self, features, llr, type, lengths=None):
        if self.time is not None:
            bins = torch.arange(RHYTHM_BINS, dtype=features.dtype, device=features.device)
            histograms = features[..., OWN_FEATURES:].unflatten(-1, (4, RHYTHM_BINS))
            rhythm = histograms @ self.time(bins[None], torch.ones_like(bins)[None, :, None])[0]
            features = torch.cat([features[..., :OWN_FEATURES], rhythm.flatten(-2)], dim=-1)
        own = self.project(torch.cat([features, self.embedding(type)], dim=-1))
        states = self.lstm(own)[0] if lengths is None else run_recurrent(self.lstm, own, lengths)
        context = self.head(torch.cat([own, states], dim=-1))[..., 0] + (self.skip_gain - 1) * llr
        return llr + limited(context, self.veto, self.boost)


def limited(context: Tensor, veto: Tensor, boost: Tensor) -> Tensor:
    """Context bounded to (-veto, boost): almost unchanged where it is small, then saturating.

    >>> limited(torch.tensor([100.0, 0.1, 0.0, -0.1, -100.0]), torch.tensor(2.0), torch.tensor(3.0))
    tensor([ 3.0000,  0.1000,  0.0000, -0.0999, -2.0000])
    """
    bound = torch.where(context > 0, boost, veto)
    return bound * torch.tanh(context / bound.clamp(min=1e-6))


def _bin_embedding(name, size, time_scale):
    if name == "kan_mammote":
        raise OptionError("kan_mammote reads a sequence of events, it cannot embed a single time: choose another")
    options = {"table": {"n_times": RHYTHM_BINS}, "none": {}, "intensity": {}}.get(name, {"time_scale": time_scale})
    return make_time_embedding(name, size=size, **options)
