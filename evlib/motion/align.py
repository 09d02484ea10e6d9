"""Bringing signals and words together: soft contrast over a batch and a memory, several prototypes for each label.

A signal's vector z and the K prototypes of each label are unit vectors of one space. A signal should be near a
prototype of its own label, and as near those of other labels as their words are alike; labels of one group are never
told apart.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..networks.transformer import PATCH_SAMPLES, TEXT_SIZE, DualBranchEncoder
from ..signals.errors import OptionError, ShapeError, require_int

SHARPNESS = 0.1  # temperature of the choice among the prototypes of a label
LABEL_TEMPERATURE, LEAST_SPREAD = 0.5, 0.1
LOGIT_SCALE, SCALE_RANGE = 1 / 0.07, (1.0, 50.0)
LEAST_NORM = 1e-6


class FeatureQueue(nn.Module):
    """The last ``size`` pairs of signal and text vectors with the groups of their labels: first in, first out.

    What is not finite or has no length is not let in. Of a batch longer than the queue the last entries stay. The
    queue is part of the model's state: it is saved with it.

    >>> queue = FeatureQueue(4, 2)
    >>> queue.push(torch.eye(2), torch.eye(2), torch.tensor([7, 8]))
    >>> len(queue), queue.groups.tolist()
    (2, [7, 8])
    """

    def __init__(self, size, features):
        super().__init__()
        require_int(0, size=size)
        require_int(1, features=features)
        self.size = int(size)
        self.register_buffer("signal", torch.zeros(size, features))
        self.register_buffer("text", torch.zeros(size, features))
        self.register_buffer("group", torch.zeros(size, dtype=torch.long))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))  # in all

    def __len__(self):
        return min(int(self.pushed), self.size)

    @property
    def groups(self):
        """(n,) groups of what is in the queue."""
        return self.group[: len(self)]

    @torch.no_grad()
    def push(self, signal, text, group):
        """Let in vectors (n, features) with their groups (n,)."""
        if signal.shape != text.shape or signal.ndim != 2 or group.shape != signal.shape[:1]:
            raise ShapeError(
                "signal and text must be (n, features) and group (n,), got "
                f"{[tuple(v.shape) for v in (signal, text, group)]}"
            )
        good = torch.ones(len(signal), dtype=torch.bool, device=signal.device)
        for vectors in (signal, text):
            norm = vectors.float().norm(dim=1)
            good &= norm.isfinite() & (norm > LEAST_NORM)
        n = int(good.sum())
        kept = slice(max(0, n - self.size), n)
        place = (int(self.pushed) + torch.arange(n, device=signal.device)[kept]) % max(self.size, 1)
        for store, values in ((self.signal, signal), (self.text, text), (self.group, group)):
            store[place] = values.detach()[good][kept].to(store.dtype)
        self.pushed += n


def soft_targets(text, group, weight=0.5):
    """(batch, batch) shares: what each item of a batch should find, from the likeness of the labels' words.

    ``weight`` of the mass goes to all items by the likeness of their labels (z-scored in the batch, softmax at 0.5),
    the rest in equal parts to the items of its own group. The texts are constants: no gradient runs through the
    targets.

    >>> soft_targets(torch.eye(2), torch.tensor([0, 1]), weight=0.0)
    tensor([[1., 0.],
            [0., 1.]])
    """
    if not 0 <= weight <= 1:
        raise OptionError(f"weight must lie in [0, 1], got {weight!r}")
    with torch.no_grad():
        unit = F.normalize(text.float(), dim=1)
        likeness = unit @ unit.T
        score = (likeness - likeness.mean()) / likeness.std(correction=0).clamp(min=LEAST_SPREAD)
        alike = (score / LABEL_TEMPERATURE).softmax(1)
        same = (group[:, None] == group).float()
        return weight * alike + (1 - weight) * same / same.sum(1, keepdim=True)


def prototype_targets(similarity, targets):
    """(signals, labels, K) shares: the mass of each label divided among its prototypes, most of it to the nearest.

    ``similarity`` (signals, labels, K), ``targets`` (signals, labels). Constants: no gradient runs through them.

    >>> prototype_targets(torch.tensor([[[0.9, 0.1]]]), torch.ones(1, 1)).round(decimals=3)
    tensor([[[1., 0.]]])
    """
    return targets[..., None] * (similarity.detach() / SHARPNESS).softmax(2)


class AlignmentLoss(nn.Module):
    """Soft CLIP with K prototypes for each label, a queue and a term that keeps all prototypes in use.

    A signal finds its targets among all prototypes of the batch; the mass of a label is divided among its prototypes by
    how near they are (softmax at 0.1), so each goes its own way. A text finds the signals through its nearest
    prototype. The vectors in the queue are further negatives, but for those of the same group, which count neither way.
    ``usage_weight`` times 1 - ``usage`` (`prototype_usage`) is added, so that the prototypes of a label differ and all
    are used.

    After the semantic loss of TSFM. Differences: targets are constants and half of them are the true group; same-group
    entries of the queue are masked; the usage term.

    Parameters
    ----------
    features : numbers in a vector
    queue_size : pairs that are remembered, 0 for none
    soft_weight : as ``weight`` in `soft_targets`
    usage_weight : of the entropy term

    Examples
    --------
    >>> z = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    >>> losses = AlignmentLoss(8)(z, z[:, None], z, torch.arange(4), torch.tensor(2.0))
    >>> sorted(losses)
    ['alignment_loss', 'total_loss', 'usage']
    """

    # Without the usage term, and not divided by a running mean: it compares between epochs.
    monitor = "alignment_loss"

    def __init__(self, features, queue_size=256, soft_weight=0.5, usage_weight=1.0):
        super().__init__()
        if not 0 <= soft_weight <= 1 or not usage_weight >= 0:
            raise OptionError(
                f"want soft_weight in [0, 1], usage_weight >= 0; got {soft_weight!r} and {usage_weight!r}"
            )
        self.soft_weight, self.usage_weight = float(soft_weight), float(usage_weight)
        self.queue = FeatureQueue(queue_size, features)

    def forward(self, z, prototypes, text, group, log_scale):
        """The losses of a batch; in training mode its vectors join the queue afterwards.

        Parameters
        ----------
        z : (batch, features) unit vectors of the signals
        prototypes : (batch, K, features) unit vectors, those of each signal's label
        text : (batch, features) the frozen vectors of the labels' words
        group : (batch,) integers, equal for synonyms
        log_scale : scalar, log of what similarities are multiplied with; held in log(1) to log(50)

        Returns
        -------
        dict of scalars : total_loss, alignment_loss, usage (see `prototype_usage`)
        """
        size, kinds, features = prototypes.shape
        if z.shape != (size, features) or text.shape[0] != size or group.shape != (size,):
            raise ShapeError(
                "want z (batch, features), prototypes (batch, K, features), text (batch, ...), group (batch,); "
                f"got {[tuple(v.shape) for v in (z, prototypes, text, group)]}"
            )
        with torch.autocast(z.device.type, enabled=False):
            z, prototypes = z.float(), prototypes.float()
            scale = log_scale.float().clamp(math.log(SCALE_RANGE[0]), math.log(SCALE_RANGE[1])).exp()
            similarity = torch.einsum("if,jkf->ijk", z, prototypes)
            targets = soft_targets(text, group, self.soft_weight)
            shares = prototype_targets(similarity, targets).flatten(1)
            to_text = self._cross_entropy(similarity.flatten(1), shares, scale, z, group, "text")
            nearest = similarity.max(2).values
            best = similarity.detach().argmax(2).diagonal()
            chosen = prototypes[torch.arange(size, device=z.device), best]
            to_signal = self._cross_entropy(
                nearest.T, targets.T / targets.T.sum(1, keepdim=True), scale, chosen, group, "signal"
            )
            usage = prototype_usage((similarity.diagonal(dim1=0, dim2=1).T / SHARPNESS).softmax(1), group)
            loss = (to_text + to_signal) / 2
            if self.training and self.queue.size:
                self.queue.push(z, chosen, group)
        return {
            "total_loss": loss + self.usage_weight * (1 - usage),
            "alignment_loss": loss.detach(),
            "usage": usage.detach(),
        }

    def _cross_entropy(self, similarity, targets, scale, vectors, group, side):
        """Cross-entropy (scalar) of shares over the batch's columns, the queue's vectors being further columns."""
        n = len(self.queue)
        # The queue moves on before the gradient is asked for.
        remembered = getattr(self.queue, side)[:n].float().clone()
        same = F.pad(group[:, None] == self.queue.groups, (similarity.shape[1], 0))
        targets = F.pad(targets, (0, n))
        log_p = (
            (scale * torch.cat([similarity, vectors @ remembered.T], 1)).masked_fill(same, -torch.inf).log_softmax(1)
        )
        return -(targets * log_p.masked_fill(targets == 0, 0)).sum(1).mean()


def prototype_usage(choice, group):
    """How much the choice of a prototype says about a signal: 1 if all are used alike and each choice is clear, else
    less.

    For each group the entropy of the mean choice less the mean entropy of a choice, in units of log K; prototypes that
    are all the same leave every choice open and have 0, as one that is always chosen has. 1 with a single prototype.

    ``choice`` (batch, K) shares of each signal's own prototypes; ``group`` (batch,).

    >>> prototype_usage(torch.eye(2), torch.tensor([3, 3])), prototype_usage(torch.eye(2)[[0, 0]], torch.tensor([3, 3]))
    (tensor(1.), tensor(0.))
    >>> prototype_usage(torch.full((2, 2), 0.5), torch.tensor([3, 3]))
    tensor(0.)
    """
    kinds = choice.shape[1]
    if kinds == 1:
        return choice.new_ones(())
    same = (group[:, None] == group).to(choice.dtype)
    share = same / same.sum(1, keepdim=True)
    # One row for each signal, that of its group, weighed so that each group counts once.
    gain = _entropy(share @ choice) - share @ _entropy(choice)
    weight = 1 / same.sum(1)
    return (weight * gain).sum() / weight.sum() / math.log(kinds)


def _entropy(shares):
    return -(shares * shares.clamp(min=torch.finfo(shares.dtype).tiny).log()).sum(1)


# --- Signals in the space of words: an encoder, attention pooling, and prototypes for any label.


class TextAlignedModel(nn.Module):
    """A `DualBranchEncoder` whose pooled tokens live where the words of labels do.

    After the semantic alignment of TSFM. Differences: one attention pooling over all tokens; prototypes are a text
    vector and a learned step away from it, so that they exist for words never seen.

    Parameters
    ----------
    d_model ... patch_samples : as in `DualBranchEncoder`
    num_prototypes : of each label
    num_queries : of the attention pooling

    Examples
    --------
    >>> from evlib.networks.transformer import make_batch
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
        require_int(1, num_prototypes=num_prototypes, num_queries=num_queries)
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
        """A batch of `evlib.networks.transformer` -> (batch, text_size) unit vectors."""
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
