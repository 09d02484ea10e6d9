"""Alignment of windows and words: exact values, the queue, targets without gradient, prototypes that differ."""

import math

import pytest
import torch
import torch.nn.functional as F

from evlib.motion.align import AlignmentLoss, FeatureQueue, prototype_targets, prototype_usage, soft_targets
from evlib.signals.errors import OptionError


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_queue_is_first_in_first_out_and_keeps_the_last_of_a_long_batch():
    queue, rows = FeatureQueue(5, 2), unit(12, 2)
    queue.push(rows[:3], rows[:3], torch.arange(3))
    assert len(queue) == 3 and queue.groups.tolist() == [0, 1, 2]
    queue.push(rows[3:7], rows[3:7], torch.arange(3, 7))
    assert len(queue) == 5 and sorted(queue.groups.tolist()) == [2, 3, 4, 5, 6]
    queue.push(rows, -rows, torch.arange(12))
    assert sorted(queue.groups.tolist()) == [7, 8, 9, 10, 11]
    for k, group in enumerate(queue.groups.tolist()):
        assert torch.equal(queue.pairs[:, k], torch.stack([rows[group], -rows[group]]))
    again = FeatureQueue(5, 2)
    again.load_state_dict(queue.state_dict())
    assert len(again) == 5 and torch.equal(again.groups, queue.groups)


def test_the_queue_lets_in_nothing_broken_and_nothing_with_a_gradient():
    queue = FeatureQueue(4, 2)
    rows = torch.tensor([[1.0, 0.0], [torch.nan, 1.0], [0.0, 0.0], [0.0, torch.inf], [0.0, 1.0]], requires_grad=True)
    queue.push(rows, torch.ones(5, 2), torch.arange(5))
    assert queue.groups.tolist() == [0, 4] and not queue.pairs.requires_grad
    queue.push(torch.ones(1, 2), torch.tensor([[torch.nan, 1.0]]), torch.tensor([9]))
    assert queue.groups.tolist() == [0, 4]
    empty = FeatureQueue(0, 2)
    empty.push(torch.ones(2, 2), torch.ones(2, 2), torch.zeros(2, dtype=torch.long))
    assert len(empty) == 0


def test_soft_targets_are_shares_and_constants():
    text = unit(6, 8).requires_grad_()
    group = torch.tensor([0, 0, 1, 2, 2, 3])
    for weight in (0.0, 0.5, 1.0):
        targets = soft_targets(text, group, weight)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        assert (targets >= 0).all() and not targets.requires_grad
    assert soft_targets(text, group, 0.0)[0].tolist() == [0.5, 0.5, 0, 0, 0, 0]
    alike = soft_targets(torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2]]), torch.arange(3), 0.5)
    assert alike[0, 0] > alike[0, 1] > alike[0, 2] > 0 and alike[0, 0] > 0.5


def losses_of(loss, z, prototypes, group, text=None):
    return loss(z, prototypes, unit(len(z), 8, seed=9) if text is None else text, group, torch.tensor(math.log(10.0)))


def test_own_prototypes_get_mass_by_similarity():
    similarity = torch.tensor([[[0.8, 0.5, 0.1], [0.3, 0.3, 0.3]]])
    targets = torch.tensor([[0.75, 0.25]], requires_grad=True).detach()
    shares = prototype_targets(similarity.requires_grad_(), targets)
    torch.testing.assert_close(shares.sum(2), targets)
    assert not shares.requires_grad
    own, other = shares[0]
    assert own[0] > 5 * own[1] > 25 * own[2] and other.tolist() == pytest.approx([0.25 / 3] * 3)


def test_items_of_one_group_are_no_negatives_neither_in_the_batch_nor_in_the_queue():
    group = torch.tensor([0, 0, 1, 1])
    loss = AlignmentLoss(8, queue_size=6, soft_weight=0.0, usage_weight=0.0).eval()
    z, prototypes = unit(4, 8), unit(4, 1, 8, seed=1)
    empty = losses_of(loss, z, prototypes, group)["alignment_loss"]
    loss.queue.push(unit(3, 8, seed=2), unit(3, 8, seed=3), torch.tensor([0, 0, 0]))
    with_zero = losses_of(loss, z, prototypes, group)["alignment_loss"]
    assert with_zero > empty, "to items of another group they are negatives"
    only = torch.tensor([0, 0, 0, 0])
    before = losses_of(AlignmentLoss(8, 0, 0.0, 0.0).eval(), z, prototypes, only)["alignment_loss"]
    after = losses_of(loss, z, prototypes, only)["alignment_loss"]
    assert torch.equal(after, before), "to their own group they are nothing"


def test_a_perfect_alignment_costs_nothing_and_the_queue_moves_in_training_only():
    z = torch.eye(8)[:4]
    loss = AlignmentLoss(8, queue_size=16, soft_weight=0.0)
    scale = torch.tensor(math.log(50.0))
    out = loss.eval()(z, z[:, None], z, torch.arange(4), scale)
    assert out["alignment_loss"] < 1e-6 and out["usage"] == 1 and len(loss.queue) == 0
    loss.train()(z, z[:, None], z, torch.arange(4), scale)
    assert len(loss.queue) == 4 and torch.equal(loss.queue.pairs[0, :4], z)


def test_gradients_with_a_full_queue_are_finite_and_reach_the_scale():
    loss = AlignmentLoss(8, queue_size=6)
    group = torch.tensor([0, 0, 1, 2])
    for step in range(3):
        z = unit(4, 8, seed=step).requires_grad_()
        prototypes, scale = unit(4, 3, 8, seed=step + 9).requires_grad_(), torch.tensor(2.0, requires_grad=True)
        out = loss(z, prototypes, unit(4, 8), group, scale)
        # The term that pulls the prototypes of a label apart.
        torch.testing.assert_close(out["total_loss"], out["alignment_loss"] + 1.0 * (1 - out["usage"]))
        out["total_loss"].backward()
        for gradient in (z.grad, prototypes.grad, scale.grad):
            assert gradient.isfinite().all() and gradient.any()


def test_usage_asks_for_prototypes_that_differ():
    group = torch.tensor([1, 1, 1, 2, 2, 2])
    assert prototype_usage(torch.full((6, 3), 1 / 3), group) < 1e-6, "identical prototypes leave the choice open"
    assert prototype_usage(torch.eye(3)[[0, 0, 0, 1, 1, 1]], group) < 1e-6, "one of them does all the work"
    assert prototype_usage(torch.eye(3).repeat(2, 1), group) == pytest.approx(1.0)
    assert prototype_usage(torch.ones(6, 1), group) == 1
    mixed = prototype_usage(torch.eye(3)[[0, 1, 2, 0, 0, 0]], group)
    assert mixed == pytest.approx(0.5), "each group counts once"


def test_what_does_not_fit_is_refused():
    for name, wrong in (("soft_weight", 1.5), ("usage_weight", -1), ("queue_size", -1)):
        with pytest.raises(OptionError, match=name):
            AlignmentLoss(8, **{name: wrong})
