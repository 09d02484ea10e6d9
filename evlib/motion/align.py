"""Bringing windows and the words of their labels together: the loss of stage 2, and the model that it trains.

A window's vector z and the K prototypes of each label are unit vectors in one space. A window should lie near a
prototype of its own label, and as near the prototypes of other labels as their words are similar. Labels that mean the
same form one group, and no contrast is drawn inside a group.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..networks.encoders import two_layers
from ..networks.transformer import DualBranchEncoder
from ..signals.errors import require_int, require_number

# Temperature of the choice among the prototypes of one label: a similarity higher by 0.1 is e times as likely.
PROTOTYPE_TEMPERATURE = 0.1
# Temperature of the targets over labels, in standard deviations of the similarity of their words in a batch.
LABEL_TEMPERATURE = 0.5
# Smallest standard deviation that those similarities are divided by; a batch of one label has 0.
MIN_SPREAD = 0.1
# Start value and range of the factor on similarities; the start is that of CLIP.
LOGIT_SCALE, SCALE_RANGE = 1 / 0.07, (1.0, 50.0)
# Length below which a vector has no direction and is kept out of the queue.
MIN_NORM = 1e-6


class FeatureQueue(nn.Module):
    """The last ``size`` pairs of signal and text vectors with the groups of their labels, first in, first out.

    Vectors that are not finite or have no length are left out. The queue is part of a module's state and is saved
    with it.

    >>> queue = FeatureQueue(4, 2)
    >>> queue.push(torch.eye(2), torch.eye(2), torch.tensor([7, 8]))
    >>> len(queue), queue.groups.tolist()
    (2, [7, 8])
    """

    pairs: torch.Tensor
    group: torch.Tensor
    pushed: torch.Tensor

    def __init__(self, size: int, features: int):
        super().__init__()
        require_int(0, queue_size=size)
        self.register_buffer("pairs", torch.zeros(2, size, features))  # vectors of the signal, vectors of the text
        self.register_buffer("group", torch.zeros(size, dtype=torch.long))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))  # pairs since the beginning

    def __len__(self) -> int:
        return min(int(self.pushed), len(self.group))

    @property
    def groups(self) -> torch.Tensor:
        """(n,) groups of the pairs in the queue."""
        return self.group[: len(self)]

    @torch.no_grad()
    def push(self, signal: torch.Tensor, text: torch.Tensor, group: torch.Tensor):
        """Add vectors (n, features) with their groups (n,); of more than ``size`` of them the last stay."""
        pairs, size = torch.stack([signal, text]).float(), len(self.group)
        norm = pairs.norm(dim=2)
        good = (norm.isfinite() & (norm > MIN_NORM)).all(0)
        n = int(good.sum())
        last = torch.arange(max(0, n - size), n, device=signal.device)
        place = (self.pushed + last) % max(size, 1)
        self.pairs[:, place] = pairs[:, good][:, last]
        self.group[place] = group[good][last]
        self.pushed += n


def soft_targets(text: torch.Tensor, group: torch.Tensor, weight: float = 0.5) -> torch.Tensor:
    """(batch, batch) shares: how much of its mass each window should give to each label of the batch.

    A share ``weight`` of the mass goes to all labels by the similarity of their words (z-scored over the batch,
    softmax at 0.5). The rest is divided equally among the labels of the window's own group. No gradient runs through
    the targets.

    >>> soft_targets(torch.eye(2), torch.tensor([0, 1]), weight=0.0)
    tensor([[1., 0.],
            [0., 1.]])
    """
    with torch.no_grad():
        unit = F.normalize(text.float(), dim=1)
        similarity = unit @ unit.T
        score = (similarity - similarity.mean()) / similarity.std(correction=0).clamp(min=MIN_SPREAD)
        same = (group[:, None] == group).float()
        return weight * (score / LABEL_TEMPERATURE).softmax(1) + (1 - weight) * same / same.sum(1, keepdim=True)


def prototype_targets(similarity: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(signals, labels, K) shares: the mass of each label divided among its prototypes, most of it to the nearest.

    ``similarity`` (signals, labels, K), ``targets`` (signals, labels). No gradient runs through the shares.

    >>> prototype_targets(torch.tensor([[[0.9, 0.1]]]), torch.ones(1, 1)).round(decimals=3)
    tensor([[[1., 0.]]])
    """
    return targets[..., None] * (similarity.detach() / PROTOTYPE_TEMPERATURE).softmax(2)


class AlignmentLoss(nn.Module):
    """Soft contrast between windows and words, with K prototypes for each label, a queue and a usage term.

    From signal to text, the targets of `soft_targets` are divided among the prototypes of each label by their
    similarity (softmax at 0.1), so each prototype can specialise. From text to signal, a label is represented by its
    nearest prototype. The vectors in the queue are further negatives; those of the same group are masked in both
    directions. ``usage_weight`` times 1 - ``usage`` (`prototype_usage`) is added, so that the prototypes of a label
    differ and all are used.

    After the semantic loss of TSFM. Differences: targets carry no gradient and half of their mass goes to the true
    group; entries of the same group in the queue are masked; the usage term.

    Parameters
    ----------
    features : numbers in a vector
    queue_size : pairs in the queue, 0 for none
    soft_weight : ``weight`` of `soft_targets`
    usage_weight : weight of the usage term

    Examples
    --------
    >>> z = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    >>> losses = AlignmentLoss(8)(z, z[:, None], z, torch.arange(4), torch.tensor(2.0))
    >>> sorted(losses)
    ['alignment_loss', 'total_loss', 'usage']
    """

    # The loss without the usage term compares between epochs, so it decides which epoch is the best.
    monitor = "alignment_loss"

    def __init__(self, features: int, queue_size: int = 256, soft_weight: float = 0.5, usage_weight: float = 1.0):
        super().__init__()
        require_number(0, 1, soft_weight=soft_weight)
        require_number(usage_weight=usage_weight)
        self.soft_weight, self.usage_weight = float(soft_weight), float(usage_weight)
        self.queue = FeatureQueue(queue_size, features)

    def forward(self, z, prototypes, text, group, log_scale) -> dict:
        """The losses of a batch; in training mode its vectors join the queue afterwards.

        Parameters
        ----------
        z : (batch, features) unit vectors of the windows
        prototypes : (batch, K, features) unit vectors, those of each window's label
        text : (batch, features) vectors of the labels' words, which are not trained
        group : (batch,) integers, equal for labels that mean the same
        log_scale : scalar, logarithm of the factor on similarities; clamped to log(1)..log(50)

        Returns
        -------
        dict of scalars : total_loss, alignment_loss, usage (see `prototype_usage`)
        """
        with torch.autocast(z.device.type, enabled=False):
            z, prototypes = z.float(), prototypes.float()
            scale = log_scale.float().clamp(*map(math.log, SCALE_RANGE)).exp()
            similarity = torch.einsum("if,jkf->ijk", z, prototypes)
            targets = soft_targets(text, group, self.soft_weight)
            shares = prototype_targets(similarity, targets).flatten(1)
            to_text = self._cross_entropy(similarity.flatten(1), shares, scale, z, group, self.queue.pairs[1])
            own = similarity.diagonal(dim1=0, dim2=1).T  # (batch, K): each window with the prototypes of its label
            nearest = prototypes[torch.arange(len(z), device=z.device), own.detach().argmax(1)]
            shares = targets.T / targets.T.sum(1, keepdim=True)
            to_signal = self._cross_entropy(similarity.amax(2).T, shares, scale, nearest, group, self.queue.pairs[0])
            usage = prototype_usage((own / PROTOTYPE_TEMPERATURE).softmax(1), group)
            loss = (to_text + to_signal) / 2
            if self.training:
                self.queue.push(z, nearest, group)
        total = loss + self.usage_weight * (1 - usage)
        return {"total_loss": total, "alignment_loss": loss.detach(), "usage": usage.detach()}

    def _cross_entropy(self, similarity, targets, scale, vectors, group, stored):
        """Scalar: cross-entropy of ``targets`` over the batch's columns, with the queue's vectors as further ones."""
        # A copy, since the queue changes before the gradient is computed.
        queued = stored[: len(self.queue)].clone()
        same = F.pad(group[:, None] == self.queue.groups, (similarity.shape[1], 0))
        logits = scale * torch.cat([similarity, vectors @ queued.T], 1)
        log_p = logits.masked_fill(same, -torch.inf).log_softmax(1)
        targets = F.pad(targets, (0, len(queued)))
        return -(targets * log_p.masked_fill(targets == 0, 0)).sum(1).mean()


def prototype_usage(choice: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """How well the prototypes of a label are used, in [0, 1]: 1 if all are used equally and each choice is clear.

    For each group, the entropy of the mean choice minus the mean entropy of a choice, in units of log K. It is 0 where
    the prototypes are all the same, since every choice is open, and where one of them is always chosen. It is 1 with
    a single prototype.

    Parameters
    ----------
    choice : (batch, K) shares that each window gives to the prototypes of its own label
    group : (batch,) integers, equal for labels that mean the same

    >>> prototype_usage(torch.eye(2), torch.tensor([3, 3])), prototype_usage(torch.eye(2)[[0, 0]], torch.tensor([3, 3]))
    (tensor(1.), tensor(0.))
    >>> prototype_usage(torch.full((2, 2), 0.5), torch.tensor([3, 3]))
    tensor(0.)
    """
    n_prototypes = choice.shape[1]
    if n_prototypes == 1:
        return choice.new_ones(())
    same = (group[:, None] == group).to(choice.dtype)
    share = same / same.sum(1, keepdim=True)
    # A row for each window with the value of its group; each group counts once.
    gain = _entropy(share @ choice) - share @ _entropy(choice)
    weight = 1 / same.sum(1)
    return (weight * gain).sum() / weight.sum() / math.log(n_prototypes)


def _entropy(shares):
    return -(shares * shares.clamp(min=torch.finfo(shares.dtype).tiny).log()).sum(1)


class TextAlignedModel(nn.Module):
    """A `DualBranchEncoder` with attention pooling into the space of the labels' words, and prototypes for any label.

    After the semantic alignment of TSFM. Differences: one attention pooling over all tokens; a prototype is the vector
    of the words plus a learned step, so labels that were never trained on have prototypes too.

    Parameters
    ----------
    num_prototypes : of each label
    num_queries : of the attention pooling
    encoder : options of `DualBranchEncoder`

    Examples
    --------
    >>> from evlib.networks.transformer import make_batch
    >>> model = TextAlignedModel(d_model=16, num_heads=2, num_layers=1, text_size=8, num_prototypes=3)
    >>> batch = make_batch(torch.zeros(2, 100, 6), 50.0, 0.5, torch.zeros(6, 8))
    >>> model(batch).shape, model.prototypes(torch.eye(8)[:5]).shape, model.scores(batch, torch.eye(8)[:5]).shape
    (torch.Size([2, 8]), torch.Size([5, 3, 8]), torch.Size([2, 5]))
    """

    def __init__(self, num_prototypes=3, num_queries=4, **encoder):
        super().__init__()
        require_int(1, num_prototypes=num_prototypes, num_queries=num_queries)
        self.encoder = DualBranchEncoder(**encoder)
        self.config = self.encoder.config | {"num_prototypes": int(num_prototypes), "num_queries": int(num_queries)}
        d_model, num_heads, dropout, text_size = (
            self.encoder.config[name] for name in ("d_model", "num_heads", "dropout", "text_size")
        )
        self.queries = nn.Parameter(0.02 * torch.randn(num_queries, d_model))
        self.pooling = nn.MultiheadAttention(d_model, num_heads, batch_first=True)
        width = num_queries * d_model
        layers = two_layers(width, d_model, text_size, nn.GELU(), nn.Dropout(dropout))
        self.to_text = nn.Sequential(nn.LayerNorm(width), *layers)
        self.steps = nn.ModuleList(nn.Linear(text_size, text_size) for _ in range(num_prototypes))
        for step in self.steps:
            # Prototypes start near the words, each half the length of the text away in a direction of its own.
            nn.init.normal_(step.bias, std=0.5 / math.sqrt(text_size))
            nn.init.zeros_(step.weight)
        self.log_scale = nn.Parameter(torch.tensor(math.log(LOGIT_SCALE)))

    def forward(self, batch: dict) -> torch.Tensor:
        """A batch of `evlib.networks.transformer.make_batch` -> (batch, text_size) unit vectors."""
        tokens = self.encoder(batch).flatten(1, 2)
        padding = ~(batch["patch_mask"][:, :, None] & batch["channel_mask"][:, None]).flatten(1)
        queries = self.queries.expand(len(tokens), -1, -1)
        pooled, _ = self.pooling(queries, tokens, tokens, key_padding_mask=padding, need_weights=False)
        return F.normalize(self.to_text(pooled.flatten(1)), dim=1)

    def prototypes(self, text: torch.Tensor) -> torch.Tensor:
        """(labels, text_size) vectors of words -> (labels, K, text_size) unit vectors."""
        text = F.normalize(text, dim=1)
        return F.normalize(torch.stack([text + step(text) for step in self.steps], 1), dim=2)

    def scores(self, batch: dict, text: torch.Tensor) -> torch.Tensor:
        """(batch, labels): similarity of each window with the nearest prototype of each label."""
        return torch.einsum("if,jkf->ijk", self(batch), self.prototypes(text)).amax(2)
