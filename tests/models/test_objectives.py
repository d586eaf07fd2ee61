import math

import pytest
import torch
from torch import tensor

from osmf_models.objectives.comprehension import description_loss
from osmf_models.objectives.generation import generation_loss, scene_errors, velocity_errors
from osmf_models.objectives.group_preference import PairErrors, accuracy_by_group, group_preference_loss

REFERENCE = PairErrors(chosen=tensor([0.5, 0.4]), rejected=tensor([0.5, 0.6]))
POLICY = PairErrors(chosen=tensor([0.4, 0.5]), rejected=tensor([0.6, 0.6]))
# D = (e_c - e_c^ref) - (e_r - e_r^ref): (-0.1) - (0.1) = -0.2 and (0.1) - (0.0) = 0.1
# u = -beta/2 D with beta 10: 1.0 and -0.5


def log_sigmoid(value):
    return -math.log(1 + math.exp(-value))


def test_preference_loss_by_hand():
    result = group_preference_loss(POLICY, REFERENCE, tensor([1.0, 0.8]), beta=10.0)
    torch.testing.assert_close(result.reward_margin, tensor([1.0, -0.5]))
    first = -log_sigmoid(1.0)  # 0.3133
    second = -(0.8 * log_sigmoid(-0.5) + 0.2 * log_sigmoid(0.5))  # 0.8741
    assert float(result.loss) == pytest.approx((first + second) / 2)
    assert float(result.loss) == pytest.approx(0.5937, abs=1e-4)


def test_anchor_and_weight_by_hand():
    result = group_preference_loss(
        POLICY, REFERENCE, tensor([1.0, 0.8]), beta=10.0, preference_weight=0.5, anchor_weight=2.0
    )
    assert float(result.loss) == pytest.approx(0.5 * 0.5937 + 2.0 * 0.45, abs=1e-4)


def test_mean_is_taken_outside_the_log_sigmoid():
    """Averaging the margins first would give -log σ(0.25) = 0.576 instead of 0.644."""
    result = group_preference_loss(POLICY, REFERENCE, tensor([1.0, 1.0]), beta=10.0)
    assert float(result.loss) == pytest.approx(-(log_sigmoid(1.0) + log_sigmoid(-0.5)) / 2)
    assert abs(float(result.loss) + log_sigmoid(0.25)) > 0.05


def test_beta_is_halved_and_multiplies_the_error_difference():
    margins = [group_preference_loss(POLICY, REFERENCE, tensor([1.0, 1.0]), beta=b).reward_margin for b in (10.0, 20.0)]
    torch.testing.assert_close(margins[1], 2 * margins[0])
    assert float(margins[0][0]) == pytest.approx(-10.0 / 2 * -0.2)


def test_untrained_policy_has_margin_zero_and_loss_log_two():
    result = group_preference_loss(REFERENCE, REFERENCE, tensor([0.9, 0.7]), beta=200.0)
    assert float(result.loss) == pytest.approx(math.log(2))


def test_gradient_lowers_the_chosen_and_raises_the_rejected_error():
    errors = torch.tensor([0.5, 0.5], requires_grad=True)
    policy = PairErrors.from_pictures(errors)
    group_preference_loss(policy, PairErrors(tensor([0.5]), tensor([0.5])), tensor([1.0]), beta=8.0).loss.backward()
    torch.testing.assert_close(errors.grad, tensor([2.0, -2.0]))  # -σ(0) * beta/2 * (-1, 1)


def test_soft_label_stops_where_the_margin_says_as_much():
    """At σ(u) = q the gradient is zero: a 0.8 pair asks for a margin of log 4 and no more."""
    margin = math.log(4.0)
    errors = torch.tensor([0.5 - margin / 8.0, 0.5 + margin / 8.0], requires_grad=True)  # u = -4 * D, D = -margin/4
    policy = PairErrors.from_pictures(errors)
    group_preference_loss(policy, PairErrors(tensor([0.5]), tensor([0.5])), tensor([0.8]), beta=8.0).loss.backward()
    torch.testing.assert_close(errors.grad, torch.zeros(2), atol=1e-6, rtol=0)


def test_accuracy_by_group_counts_a_tie_half():
    by_group = accuracy_by_group(tensor([1.0, -1.0, 0.0]), tensor([4, 4, 7]))
    assert by_group == {4: 0.5, 7: 0.5}


def test_scene_errors_see_nothing_under_the_product():
    target = torch.zeros(1, 3, 2, 2)
    predicted = torch.zeros(1, 3, 2, 2)
    predicted[..., 0, 0] = 100.0  # under the product
    predicted[..., 1, 1] = 3.0
    masks = torch.zeros(1, 1, 2, 2)
    masks[..., 0, 0] = 1.0
    torch.testing.assert_close(scene_errors(predicted, target, masks), tensor([9.0 / 3]))


def test_velocity_error_divides_by_time_squared():
    torch.testing.assert_close(velocity_errors(tensor([2.0, 2.0]), tensor([1.0, 0.5])), tensor([2.0, 8.0]))


def test_generation_loss_floor_bounds_the_weight():
    errors, time = tensor([1.0, 1.0]), tensor([0.1, 1.0])
    assert float(generation_loss(errors, time, time_floor=1.0)) == pytest.approx(1.0)
    assert float(generation_loss(errors, time, time_floor=0.5)) == pytest.approx((4 + 1) / 2)


def test_description_loss_ignores_padding_and_null_groups():
    logits = torch.zeros(2, 2, 4)
    ids = tensor([[1, 2], [3, 0]])
    is_token = tensor([[True, True], [True, False]])
    assert float(description_loss(logits, ids, is_token, tensor([False, False]))) == pytest.approx(math.log(4))
    assert float(description_loss(logits, ids, is_token, tensor([False, True]))) == pytest.approx(math.log(4) / 2)
