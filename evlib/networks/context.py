"""The context network: what the events around a candidate say about it.

A template filter looks at 40 ms; a rhythm takes seconds. The network reads the candidates of a recording as a
sequence of events in continuous time, so that nothing depends on a grid of frames: shift the recording by any part of
a frame and the same numbers come out. Each candidate brings its own evidence and, on a logarithmic scale of time
differences, how many likely events of its own type and of other types lie that far ahead of and behind it. A
bidirectional LSTM carries what the moment is like (pace, order, noise) along the sequence. Weights are shared by all
types, so that rare types profit from frequent ones.

A skip path adds the log-likelihood ratio of the matched filter: the untrained network *is* the matched filter, and
training can only move away from it where context pays. What context adds to evidence and what it takes away is bounded,
so that in another rhythm strong evidence stays an event and weak evidence stays none.
"""

import numpy as np
import torch
from torch import nn

from ..signals.errors import OptionError
from .encoders import run_recurrent
from .time_embeddings import make_time_embedding

# Time differences are sorted into bins (with linear weights between neighbours) from 10 ms to 9 s.
RHYTHM_BINS = 56
RHYTHM_RANGE_S = (0.010, 9.0)
OWN_FEATURES = 8
# Log odds from which evidence counts as certain.
CERTAIN = 20.0
N_FEATURES = OWN_FEATURES + 4 * RHYTHM_BINS
# Log odds that context may take away while it is trained: any. What a detector allows is chosen on development data.
UNLIMITED = 1e6


def relative_evidence(llr, prior_logit):
    """Log-likelihood ratio over the prior, (n,) float32; beyond +-20 it grows by its logarithm only.

    Nothing hinges on whether an event is certain or more than certain, but the network would have to outbid it.
    """
    evidence = np.asarray(llr, dtype=np.float64) - prior_logit
    excess = np.maximum(np.abs(evidence) / CERTAIN, 1.0)
    return (np.clip(evidence, -CERTAIN, CERTAIN) + np.sign(evidence) * CERTAIN * np.log(excess)).astype(np.float32)


def context_features(candidates, sampling_rate_hz, prior_logit):
    """What the network sees of each candidate, (n, N_FEATURES) float32.

    Eight numbers of its own (evidence, probability, evidence alone, margin over other types, misfit, amplitude, log
    time to its neighbours), then four histograms of time differences, weighted by probability: past and future events
    of its own type, past and future events of other types.
    """
    time_s = candidates.time / sampling_rate_hz
    probability = 1 / (1 + np.exp(-np.clip(candidates.llr - prior_logit, -30, 30)))
    before, after = np.diff(time_s, prepend=time_s[:1] - 1.0), np.diff(time_s, append=time_s[-1:] + 1.0)
    own = [
        np.clip(candidates.llr / 10, -1, 3),
        probability,
        np.clip(candidates.llr_isolated / 10, -1, 3),
        np.clip(candidates.margin / 10, -3, 3),
        np.clip(candidates.misfit / 3, -2, 4),
        np.clip(candidates.amplitude, 0, 3),
        np.log(np.clip(before, 1e-3, 10.0)),
        np.log(np.clip(after, 1e-3, 10.0)),
    ]
    histograms = _rhythm(time_s, candidates.type, probability)
    return np.concatenate([np.stack(own, axis=1), histograms], axis=1).astype(np.float32)


def _rhythm(time_s, type, probability):
    """Weighted histograms of log time differences, (n, 4 * RHYTHM_BINS): own past, others' past, own and others'
    future.

    Loops over the distance in the sequence (all candidates at once), until every difference is out of range.
    """
    n = len(time_s)
    out = np.zeros((n, 4, RHYTHM_BINS), np.float32)
    width = np.log(RHYTHM_RANGE_S[1] / RHYTHM_RANGE_S[0]) / (RHYTHM_BINS - 1)
    weight = np.where(probability > 1e-3, probability, 0).astype(np.float32)
    for step in range(1, n):
        difference = time_s[step:] - time_s[:-step]
        near = np.flatnonzero(difference < RHYTHM_RANGE_S[1])
        if len(near) == 0:
            break
        # Shorter than the shortest bin is still close: the first bin holds it.
        position = np.log(np.maximum(difference[near], RHYTHM_RANGE_S[0]) / RHYTHM_RANGE_S[0]) / width
        lower = np.floor(position).astype(int)
        other = (type[near + step] != type[near]).astype(int)
        for bin_, share in ((lower, lower + 1 - position), (lower + 1, position - lower)):
            keep = bin_ < RHYTHM_BINS
            first, second = near[keep], near[keep] + step
            out[second, other[keep], bin_[keep]] += weight[first] * share[keep]
            out[first, other[keep] + 2, bin_[keep]] += weight[second] * share[keep]
    return out.reshape(n, 4 * RHYTHM_BINS)


class ContextLSTM(nn.Module):
    """Log odds that each candidate is an event: matched filter plus context.

    Parameters
    ----------
    num_events : E, number of types; types share all weights except for an embedding
    hidden_size : LSTM units per direction
    embedding_size : what a type may have of its own (0: types differ in nothing but their evidence)
    dropout : on the input projection and before the output
    time_embedding : None lets the network weigh each bin of the histograms freely. A name of
        `evlib.networks.time_embeddings.TIME_EMBEDDINGS` sums an embedding of the logarithm of each time difference
        instead, between bins by linear interpolation: the histogram times the embedding of its bins. "none" leaves only
        how many likely events there are; the times to the nearest candidates of any kind are among the candidate's own
        features
    time_size, time_scale : size of the embedding, and what the number of a bin (0 to 55) is multiplied by; slow enough
        at the default that vectors hardly turn from one bin to the next

    Forward: features (B, N, N_FEATURES), llr (B, N) already relative to the prior, type (B, N), lengths (B,) or None ->
    log odds (B, N). Positions behind a sequence's length change nothing.

    >>> network = ContextLSTM(num_events=3)
    >>> features, llr = torch.randn(1, 5, N_FEATURES), torch.randn(1, 5)
    >>> bool(torch.equal(network.eval()(features, llr, torch.zeros(1, 5, dtype=int)), llr))  # untrained: the filter
    True
    """

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
        self.config = {
            "num_events": num_events,
            "hidden_size": hidden_size,
            "embedding_size": embedding_size,
            "dropout": dropout,
        }
        n_features, self.time = N_FEATURES, None
        if time_embedding is not None:
            self.config |= {
                "time_embedding": time_embedding,
                "time_size": int(time_size),
                "time_scale": float(time_scale),
            }
            self.time = _embedding_of_bins(time_embedding, time_size, time_scale)
            n_features = OWN_FEATURES + 4 * time_size
        self.embedding = nn.Embedding(num_events, embedding_size)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.project = nn.Sequential(
            nn.Linear(n_features + embedding_size, hidden_size), nn.ReLU(), nn.Dropout(dropout)
        )
        self.lstm = nn.LSTM(hidden_size, hidden_size, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(3 * hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, 1)
        )
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)
        self.skip_gain = nn.Parameter(torch.ones(()))
        self.register_buffer("veto", torch.tensor(UNLIMITED))
        self.register_buffer("boost", torch.tensor(UNLIMITED))

    def limit(self, veto, boost):
        """From now on context takes at most ``veto`` from log odds and adds at most ``boost``."""
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


def limited(context, veto, boost):
    """What context takes away stays below ``veto``, what it adds below ``boost``: nearly as it is while small, then
    level.

    >>> limited(torch.tensor([100.0, 0.1, 0.0, -0.1, -100.0]), torch.tensor(2.0), torch.tensor(3.0))
    tensor([ 3.0000,  0.1000,  0.0000, -0.0999, -2.0000])
    """
    bound = torch.where(context > 0, boost, veto)
    return bound * torch.tanh(context / bound.clamp(min=1e-6))


def _embedding_of_bins(name, size, time_scale):
    if name == "kan_mammote":
        raise OptionError("kan_mammote reads a sequence of events, it is no embedding of one time: take another")
    options = {"table": {"n_times": RHYTHM_BINS}, "none": {}, "intensity": {}}.get(name, {"time_scale": time_scale})
    return make_time_embedding(name, size=size, **options)
