"""Losses. Padding and unknown labels are masked; where everything is masked a loss is 0, and finite in its gradient."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..scoring.refractory import refractory_penalty
from ..signals.errors import DataError, ShapeError, require_int, require_number, require_positive
from .encoders import length_mask, require_shape


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of ``values`` where ``mask`` is True, 0 if it is nowhere; masked values may be NaN.

    >>> masked_mean(torch.tensor([1.0, 3.0, torch.nan]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    mask = mask.expand_as(values)
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def masked_mse(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """The mean squared difference where ``mask`` is True.

    >>> masked_mse(torch.tensor([1.0, 5.0]), torch.tensor([3.0, torch.nan]), torch.tensor([True, False]))
    tensor(4.)
    """
    mask = mask.expand_as(predicted)
    # Masked before squaring: the gradient of a masked NaN would be NaN otherwise.
    return masked_mean((predicted - target).masked_fill(~mask, 0).square(), mask)


class MaskedMSELoss(nn.Module):
    """`masked_mse` as a module: the loss of a value at each step.

    >>> MaskedMSELoss()(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 5.0]), torch.tensor([1.0, 0.0]))
    tensor(4.)
    """

    def forward(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return masked_mse(pred, target, mask.bool())


class EventTimingLoss(nn.Module):
    """Presence, time and the refractory rule, for windows with at most one event of each type.

    * ``event_loss``: binary cross-entropy of presence, mean over the known labels.
    * ``timing_loss``: divergence of the softmax over frames from a Gaussian around the true time, mean over the
      events whose time is known. The Gaussian is centred on the time itself, not on its frame: the loss is 0 only for
      logits that give the time within the frame.
    * ``refractory_loss``: the rate of a type in a frame is presence x softmax; the penalty sums the products of the
      rates of all pairs of frames that are closer than the refractory period, but further apart than one event is
      wide. One sharp peak costs nothing, two peaks do, labelled or not.

    After the original ``EventTimingLoss``, whose refractory term punished mass away from the label and so repeated the
    timing loss.

    Parameters
    ----------
    event_weight, timing_weight, refractory_weight : factors in ``total_loss``
    refractory_period_samples : the shortest time between two events of a type
    timing_resolution_samples : samples in a frame, the model's
    sigma_samples : standard deviation of the Gaussian around the true time (5 samples are 2.5 ms at 2000 Hz)

    Raises
    ------
    OptionError : a negative weight or period, a resolution below 1, a sigma that is not positive

    Examples
    --------
    >>> loss_fn = EventTimingLoss()
    >>> labels, timings = torch.tensor([[1.0, 0.0]]), torch.tensor([[34.5, torch.nan]])
    >>> losses = loss_fn(torch.zeros(1, 2), torch.zeros(1, 20, 2), labels, timings)
    >>> sorted(losses)
    ['event_loss', 'refractory_loss', 'timing_loss', 'total_loss']
    """

    def __init__(
        self,
        event_weight: float = 1.0,
        timing_weight: float = 1.0,
        refractory_weight: float = 0.1,
        refractory_period_samples: int = 4000,
        timing_resolution_samples: int = 10,
        sigma_samples: float = 5.0,
    ):
        super().__init__()
        require_number(event_weight=event_weight, timing_weight=timing_weight, refractory_weight=refractory_weight)
        require_number(refractory_period_samples=refractory_period_samples)
        require_int(1, timing_resolution_samples=timing_resolution_samples)
        require_positive(sigma_samples=sigma_samples)
        self.event_weight, self.timing_weight, self.refractory_weight = event_weight, timing_weight, refractory_weight
        self.refractory_period_samples = refractory_period_samples
        self.timing_resolution_samples, self.sigma_samples = timing_resolution_samples, sigma_samples

    def forward(self, event_logits, timing_logits, event_labels, event_timings, apply_refractory=True, mask=None):
        """Compute the losses of a batch.

        Parameters
        ----------
        event_logits : (batch, events)
        timing_logits : (batch, frames, events), minus infinity at padding
        event_labels : (batch, events) of 0 and 1, NaN where unknown
        event_timings : (batch, events) in samples; read only where the label is 1, NaN where the time is unknown
        apply_refractory : add the refractory term
        mask : (batch, frames) bool, True at frames that are not padding; None takes frames of finite logits

        Returns
        -------
        dict of scalars : total_loss, event_loss, timing_loss, refractory_loss

        Raises
        ------
        ShapeError : shapes that do not fit each other
        DataError : NaN among the timing logits
        """
        mask = self._check(event_logits, timing_logits, event_labels, event_timings, mask)
        timing_logits = timing_logits.masked_fill(~mask, -torch.inf)
        known, labels = event_labels.isfinite(), event_labels.nan_to_num().to(event_logits.dtype)
        event = masked_mean(F.binary_cross_entropy_with_logits(event_logits, labels, reduction="none"), known)
        timing = self._timing_loss(timing_logits, mask, event_timings, (labels > 0.5) & known)
        refractory = event_logits.new_zeros(())
        if apply_refractory:
            refractory = self._refractory_loss(event_logits, timing_logits, mask)
        total = self.event_weight * event + self.timing_weight * timing + self.refractory_weight * refractory
        return {"total_loss": total, "event_loss": event, "timing_loss": timing, "refractory_loss": refractory}

    def _timing_loss(self, timing_logits, mask, timings, present):
        counted = present & timings.isfinite()
        resolution = self.timing_resolution_samples
        frames = torch.arange(timing_logits.shape[1], device=timings.device)
        centres = frames * resolution + (resolution - 1) / 2
        distance = centres[:, None] - timings.masked_fill(~counted, 0)[:, None]  # (batch, frames, events)
        log_target = (-0.5 * (distance / self.sigma_samples) ** 2).masked_fill(~mask, -torch.inf).log_softmax(1)
        # At padding both are minus infinity, and their difference would be NaN.
        surplus = log_target.masked_fill(~mask, 0) - timing_logits.log_softmax(1).masked_fill(~mask, 0)
        return masked_mean((log_target.exp() * surplus).sum(1), counted)

    def _refractory_loss(self, event_logits, timing_logits, mask):
        rates = event_logits.sigmoid()[:, None] * timing_logits.softmax(1)
        # Two draws from one event differ by less than six sigma: the pairs that close are taken out again.
        period = math.ceil(self.refractory_period_samples / self.timing_resolution_samples)
        width = min(math.ceil(6 * self.sigma_samples / self.timing_resolution_samples) + 1, period)
        mask = mask[..., 0]
        # Running sums leave a rounding error of either sign where there is nothing.
        return (refractory_penalty(rates, period, mask) - refractory_penalty(rates, width, mask)).clamp(min=0)

    def _check(self, event_logits, timing_logits, event_labels, event_timings, mask):
        """Return the mask (batch, frames, 1) of frames that are not padding."""
        require_shape(("batch", "events"), event_logits=event_logits)
        size, n = event_logits.shape
        require_shape((size, "frames", n), timing_logits=timing_logits)
        require_shape((size, n), event_labels=event_labels, event_timings=event_timings)
        mask = ~timing_logits.isneginf().all(-1) if mask is None else mask
        require_shape((size, timing_logits.shape[1]), mask=mask)
        if (timing_logits.isnan() & mask[..., None]).any():
            raise DataError("timing_logits hold NaN: the training has diverged (try a lower learning rate)")
        if not mask.any(1).all():
            raise DataError("a sequence of the batch has no frame that is not padding")
        return mask[..., None]


class EventSpecificLoss(EventTimingLoss):
    """`EventTimingLoss`, and templates that score highest at the onset: for windows with at most one event of each
    type.

    ``template_loss`` is the cross-entropy of the onset under a softmax of a type's template scores over time, mean over
    the events whose time is known. It rewards a template that looks like the signal at the onset more than anywhere
    else. (The original asked for a Gaussian bump of scores, which no template of a vibration has: it correlates with
    its own echoes.)

    Parameters
    ----------
    event_weight, timing_weight, template_weight, refractory_weight : factors in ``total_loss``
    temperature : of the softmax over scores in [-1, 1]
    refractory_period_samples, timing_resolution_samples, sigma_samples : as in `EventTimingLoss`

    Examples
    --------
    >>> logits, scores = (torch.zeros(1, 1), torch.zeros(1, 20, 1)), torch.zeros(1, 200, 1)
    >>> scores[0, 40] = 4.0
    >>> losses = EventSpecificLoss()(*logits, scores, torch.ones(1, 1), torch.tensor([[40.0]]))
    >>> sorted(losses), bool(losses["template_loss"] < 0.01)
    (['event_loss', 'refractory_loss', 'template_loss', 'timing_loss', 'total_loss'], True)
    """

    needs_templates = True

    def __init__(
        self,
        event_weight: float = 1.0,
        timing_weight: float = 1.0,
        template_weight: float = 0.5,
        refractory_weight: float = 0.1,
        temperature: float = 0.2,
        refractory_period_samples: int = 4000,
        timing_resolution_samples: int = 10,
        sigma_samples: float = 5.0,
    ):
        samples = (refractory_period_samples, timing_resolution_samples, sigma_samples)
        super().__init__(event_weight, timing_weight, refractory_weight, *samples)
        require_number(template_weight=template_weight)
        require_positive(temperature=temperature)
        self.template_weight, self.temperature = template_weight, temperature

    def forward(self, event_logits, timing_logits, template_scores, event_labels, event_timings):
        """Losses of a batch; ``template_scores`` (batch, time, events), the rest as in `EventTimingLoss.forward`."""
        if template_scores is None:
            raise ShapeError("template_scores are None: a model without templates needs EventTimingLoss")
        require_shape((event_logits.shape[0], "time", event_logits.shape[1]), template_scores=template_scores)
        losses = super().forward(event_logits, timing_logits, event_labels, event_timings)
        last = template_scores.shape[1] - 1
        counted = (event_labels > 0.5) & (event_timings >= 0) & (event_timings <= last)
        time = event_timings.masked_fill(~counted, 0).to(template_scores.dtype)
        early = time.floor().clamp(max=max(last - 1, 0))
        log_p = (template_scores / self.temperature).log_softmax(1)
        share = time - early
        near = [log_p.gather(1, (early.long() + k).clamp(max=last)[:, None])[:, 0] for k in (0, 1)]
        losses["template_loss"] = masked_mean(-((1 - share) * near[0] + share * near[1]), counted)
        losses["total_loss"] = losses["total_loss"] + self.template_weight * losses["template_loss"]
        return losses


class AutoencoderLoss(nn.Module):
    """Error of a reconstructed window: the mean squared error over the values that are not padding.

    Examples
    --------
    >>> output, x = {"reconstruction": torch.zeros(1, 2, 1)}, torch.tensor([[[3.0], [torch.nan]]])
    >>> AutoencoderLoss()(output, x, lengths=torch.tensor([1]))["total_loss"]
    tensor(9.)
    """

    def forward(self, output: dict, x: Tensor, lengths=None) -> dict[str, Tensor]:
        """The losses of a batch.

        Parameters
        ----------
        output : dict of an autoencoder, with reconstruction (batch, time, channels)
        x : (batch, time, channels), the signal
        lengths : (batch,) samples in each sequence, None when nothing is padded

        Returns
        -------
        dict of scalars : total_loss, reconstruction_loss

        Raises
        ------
        ShapeError : a reconstruction of another shape than ``x``
        """
        loss = masked_mse(output["reconstruction"], x, _sample_mask(output, x, lengths))
        return {"total_loss": loss, "reconstruction_loss": loss}


class VariationalAutoencoderLoss(nn.Module):
    """Reconstruction plus divergence from the prior, both **sums over a sequence divided by the same count**.

    The count is the number of values in the batch that are not padding. ``reconstruction_loss`` is thereby the mean
    squared error, and ``kl_loss`` the divergence of N(mu, exp(logvar)) from N(0, 1) per value: their ratio is that of
    the evidence lower bound, however long the sequences are. With ``recon_weight=1`` a ``kl_weight`` w is the bound of
    a decoder whose noise has the variance w / 2.

    The weight of the divergence grows from 0 to ``kl_weight`` in the first ``warmup_steps`` calls in training mode, so
    that the decoder learns to use the latent vector before the divergence takes information from it. ``full_loss`` is
    the total with the whole weight: it compares between epochs, so trainers choose the best epoch by it.
    ``active_units`` counts the latent dimensions whose mean varies over the batch (variance above 0.01; left out for a
    batch of one sequence). When there is none, the posterior has collapsed onto the prior: lower ``kl_weight`` or
    lengthen the warm-up.

    Parameters
    ----------
    recon_weight, kl_weight : factors in ``total_loss``
    warmup_steps : training steps until the whole ``kl_weight`` counts

    Raises
    ------
    OptionError : negative weights or steps

    Examples
    --------
    >>> loss_fn = VariationalAutoencoderLoss(warmup_steps=0)
    >>> mu, logvar = torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), torch.zeros(2, 2)
    >>> output = {"reconstruction": torch.zeros(2, 4, 1), "mu": mu, "logvar": logvar}
    >>> {name: value.item() for name, value in loss_fn(output, torch.ones(2, 4, 1)).items()}
    {'total_loss': 1.0..., 'reconstruction_loss': 1.0, 'kl_loss': 0.5, 'full_loss': 1.0..., 'active_units': 1.0}
    """

    # Variance over the batch from which a latent dimension counts as in use.
    ACTIVE_VARIANCE = 0.01
    # The loss by which trainers choose the best epoch.
    monitor = "full_loss"
    step: Tensor

    def __init__(self, recon_weight=1.0, kl_weight=0.1, warmup_steps=1000):
        super().__init__()
        require_number(recon_weight=recon_weight, kl_weight=kl_weight, warmup_steps=warmup_steps)
        self.recon_weight, self.kl_weight, self.warmup_steps = recon_weight, kl_weight, warmup_steps
        # In the state of the loss: a resumed training continues the warm-up.
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @property
    def beta(self):
        """The present weight of the divergence."""
        return self.kl_weight * min(1.0, self.step.item() / self.warmup_steps) if self.warmup_steps else self.kl_weight

    def forward(self, output: dict, x: Tensor, lengths=None) -> dict[str, Tensor]:
        """The losses of a batch; in training mode the warm-up goes on by one step.

        Parameters
        ----------
        output : dict of a variational autoencoder, with reconstruction, mu and logvar
        x, lengths : as in `AutoencoderLoss`

        Returns
        -------
        dict of scalars : total_loss, reconstruction_loss, kl_loss, full_loss, active_units
        """
        mask = _sample_mask(output, x, lengths)
        reconstruction = masked_mse(output["reconstruction"], x, mask)
        mu, logvar = output["mu"].float(), output["logvar"].float()
        divergence = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum()
        kl = divergence / (mask.sum() * x.shape[2]).clamp(min=1)
        losses = {
            "total_loss": self.recon_weight * reconstruction + self.beta * kl,
            "reconstruction_loss": reconstruction,
            "kl_loss": kl,
            "full_loss": (self.recon_weight * reconstruction + self.kl_weight * kl).detach(),
        }
        if len(mu) > 1:
            losses["active_units"] = (mu.detach().var(0, correction=0) > self.ACTIVE_VARIANCE).sum().float()
        if self.training:
            self.step += 1
        return losses


def _sample_mask(output, x, lengths):
    """(batch, time, 1) bool, True in front of the end of each sequence."""
    require_shape(("batch", "time", "channels"), x=x)
    require_shape(tuple(x.shape), reconstruction=output["reconstruction"])
    lengths = torch.full((len(x),), x.shape[1]) if lengths is None else torch.as_tensor(lengths)
    return length_mask(lengths.to(x.device), x.shape[1])[..., None]


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.07, source: Tensor | None = None) -> Tensor:
    """Normalised temperature-scaled cross-entropy (SimCLR, https://arxiv.org/abs/2002.05709).

    Each of the 2N embeddings must find its partner among the 2N - 1 others, by cosine similarity / temperature.

    Parameters
    ----------
    z1, z2 : (N, features) embeddings of the two views, row i of both from the same item; N of at least 2
    temperature : the smaller, the more the most similar others count
    source : (N,) what each item was cut from; items of one source are not contrasted with each other (neighbouring
        patches of one walk are alike, and should be). None contrasts all

    Returns
    -------
    scalar : the mean over the 2N embeddings; log(2N - 1) when all are equal and each has a source of its own

    Raises
    ------
    ShapeError : shapes that differ, items of a single source
    OptionError : a temperature that is not positive
    DataError : embeddings that are not finite

    Examples
    --------
    >>> z = torch.eye(4)
    >>> round(nt_xent(z, z, temperature=0.05).item(), 6)
    0.0
    """
    require_shape(("items", "features"), z1=z1)
    require_shape(tuple(z1.shape), z2=z2)
    require_positive(temperature=temperature)
    source = torch.arange(len(z1), device=z1.device) if source is None else source
    require_shape((len(z1),), source=source)
    if len(source.unique()) < 2:
        raise ShapeError(f"a contrast needs items of at least 2 sources, got {len(z1)} of one (drop_last=True?)")
    z = torch.cat([z1, z2])
    if not z.isfinite().all():
        raise DataError("the embeddings hold NaN or infinity: the training has diverged (try a lower learning rate)")
    # Similarities divided by a small temperature need full precision, also in a mixed one.
    with torch.autocast(z.device.type, enabled=False):
        z = F.normalize(z.float() if z.dtype != torch.float64 else z, dim=1)
        similarity = z @ z.T / temperature
    partner = torch.arange(len(z), device=z.device).roll(len(z1))
    left_out = (source[:, None] == source).repeat(2, 2)
    left_out[torch.arange(len(z)), partner] = False
    return F.cross_entropy(similarity.masked_fill(left_out, -torch.inf), partner)
