"""Losses. What is padded, unlabelled or unknown takes no part; where nothing takes part a loss is a finite 0."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .errors import DataError, OptionError, ShapeError
from .refractory import refractory_penalty


def masked_mean(values, mask):
    """The mean of ``values`` where ``mask`` is True, 0 where it nowhere is; what is masked out may even be NaN.

    >>> masked_mean(torch.tensor([1.0, 3.0, torch.nan]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    mask = mask.expand_as(values)
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def masked_mse(predicted, target, mask):
    """The mean squared difference where ``mask`` is True.

    >>> masked_mse(torch.tensor([1.0, 5.0]), torch.tensor([3.0, torch.nan]), torch.tensor([True, False]))
    tensor(4.)
    """
    mask = mask.expand_as(predicted)
    # Masked before squaring: the gradient of a masked NaN would be NaN otherwise.
    return masked_mean((predicted - target).masked_fill(~mask, 0).square(), mask)


class EventTimingLoss(nn.Module):
    """Presence, time and the refractory rule, for windows with at most one event of each type.

    * ``event_loss``: binary cross-entropy of presence, mean over the known labels.
    * ``timing_loss``: divergence of the softmax over frames from a Gaussian around the true time, mean over the
      events whose time is known. The Gaussian is laid at the time itself, not at its frame: 0 is reached only by
      logits that know the time within the frame.
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
        event_weight=1.0,
        timing_weight=1.0,
        refractory_weight=0.1,
        refractory_period_samples=4000,
        timing_resolution_samples=10,
        sigma_samples=5.0,
    ):
        super().__init__()
        least = {"event_weight": event_weight, "timing_weight": timing_weight, "refractory_weight": refractory_weight}
        least["refractory_period_samples"] = refractory_period_samples
        for name, value in least.items():
            if not value >= 0:
                raise OptionError(f"{name} must not be negative, got {value!r}")
        if timing_resolution_samples != int(timing_resolution_samples) or timing_resolution_samples < 1:
            raise OptionError(f"timing_resolution_samples must be a whole number above 0, got {timing_resolution_samples!r}")
        if not sigma_samples > 0:
            raise OptionError(f"sigma_samples must be positive, got {sigma_samples!r}")
        self.event_weight, self.timing_weight, self.refractory_weight = event_weight, timing_weight, refractory_weight
        self.refractory_period_samples = refractory_period_samples
        self.timing_resolution_samples = int(timing_resolution_samples)
        self.sigma_samples = float(sigma_samples)

    def forward(self, event_logits, timing_logits, event_labels, event_timings, apply_refractory=True, mask=None):
        """Compute the losses of a batch.

        Parameters
        ----------
        event_logits : (batch, events)
        timing_logits : (batch, frames, events), minus infinity at padding
        event_labels : (batch, events) of 0 and 1, NaN where nobody looked
        event_timings : (batch, events) in samples; read only where the label is 1, NaN where the time is unknown
        apply_refractory : add the refractory term
        mask : (batch, frames) bool, True at frames that are not padding; None when the logits say so

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
        known = event_labels.isfinite()
        labels = event_labels.nan_to_num().to(event_logits.dtype)
        event_loss = masked_mean(F.binary_cross_entropy_with_logits(event_logits, labels, reduction="none"), known)
        timing_loss = self._timing_loss(timing_logits, mask, event_timings, (labels > 0.5) & known)
        refractory_loss = event_logits.new_zeros(())
        if apply_refractory:
            refractory_loss = self._refractory_loss(event_logits, timing_logits, mask)
        total = self.event_weight * event_loss + self.timing_weight * timing_loss + self.refractory_weight * refractory_loss
        return {"total_loss": total, "event_loss": event_loss, "timing_loss": timing_loss, "refractory_loss": refractory_loss}

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
        if event_logits.ndim != 2 or timing_logits.ndim != 3 or timing_logits[:, 0].shape != event_logits.shape:
            raise ShapeError(
                "event_logits must have shape (batch, events) and timing_logits (batch, frames, events), "
                f"got {tuple(event_logits.shape)} and {tuple(timing_logits.shape)}"
            )
        for name, value in {"event_labels": event_labels, "event_timings": event_timings}.items():
            if value.shape != event_logits.shape:
                raise ShapeError(
                    f"{name} must have the shape of event_logits, {tuple(event_logits.shape)}, got {tuple(value.shape)}"
                )
        if mask is None:
            mask = ~timing_logits.isneginf().all(-1)
        if mask.shape != timing_logits.shape[:2]:
            raise ShapeError(f"mask must have shape (batch, frames) {tuple(timing_logits.shape[:2])}, got {tuple(mask.shape)}")
        if (timing_logits.isnan() & mask[..., None]).any():
            raise DataError("timing_logits hold NaN: the training has diverged (try a lower learning rate)")
        if not mask.any(1).all():
            raise DataError("a sequence of the batch has no frame that is not padding")
        return mask[..., None]
