import math

import pytest
import torch
from torch import tensor

from osmf_models.objectives.comprehension import description_loss
from osmf_models.objectives.generation import (
    generation_loss,
    scene_error_gradients,
    scene_errors,
    velocity_errors,
    warmth_errors,
)
from osmf_models.objectives.group_preference import (
    ContrastErrors,
    PairErrors,
    accuracy_by_group,
    group_contrast_loss,
    group_preference_loss,
    safe_rejected_scale,
    statistics_by_group,
)

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


def test_both_errors_can_grow_while_the_loss_falls_so_the_chosen_error_is_told():
    """D = (0.6 - 0.5) - (0.9 - 0.5) = -0.3, u = 1.5: a better loss than log 2 from two worse pictures."""
    policy, reference = PairErrors(tensor([0.6]), tensor([0.9])), PairErrors(tensor([0.5]), tensor([0.5]))
    result = group_preference_loss(policy, reference, tensor([1.0]), beta=10.0)
    assert float(result.loss) == pytest.approx(math.log(1 + math.exp(-1.5)))
    assert (
        float(result.loss)
        < math.log(2)
        < float(group_preference_loss(policy, reference, tensor([1.0]), beta=10.0, anchor_weight=1.0).loss)
    )
    told = statistics_by_group(policy, reference, tensor([3]), beta=10.0)[3]
    assert (told.num_pairs, told.accuracy) == (1, 1.0)
    assert (told.reward_margin, told.chosen_error_change, told.rejected_error_change) == pytest.approx((1.5, 0.1, 0.4))


def test_loss_stays_while_more_pairs_are_ordered_rightly_so_accuracy_is_told():
    """Margins 2, -1/2, -1/2 lose log(1 + e^-2) + 2 log(1 + e^(1/2)); three of 0.0029 lose as much, all right."""
    reference, zeros, beta = PairErrors(torch.zeros(3), torch.zeros(3)), torch.zeros(3), 2.0
    lost = (math.log(1 + math.exp(-2.0)) + 2 * math.log(1 + math.exp(0.5))) / 3
    few, all_right = tensor([2.0, -0.5, -0.5]), torch.full((3,), -math.log(math.exp(lost) - 1))
    for margins, accuracy in ((few, 1 / 3), (all_right, 1.0)):
        policy = PairErrors(zeros, margins)  # beta / 2 is 1: the rejected one's error is the margin
        result = group_preference_loss(policy, reference, torch.ones(3), beta)
        assert float(result.loss) == pytest.approx(lost, rel=1e-5)
        assert accuracy_by_group(result.reward_margin, tensor([0, 0, 0]))[0] == pytest.approx(accuracy)


def gradients(*rows):
    return tensor(rows).reshape(len(rows), 1, 1, 2)


def test_safe_scale_by_hand():
    """|g_c|^2 = 4. Products 2, 8, -2, 0: bounds 0.4 * 2 = 0.8 and 0.4 * 0.5 = 0.2; none where pushing away helps."""
    chosen = gradients((2.0, 0.0), (2.0, 0.0), (2.0, 0.0), (2.0, 0.0))
    rejected = gradients((1.0, 1.0), (4.0, 0.0), (-1.0, 3.0), (0.0, 5.0))
    torch.testing.assert_close(safe_rejected_scale(chosen, rejected, mu=0.6), tensor([0.8, 0.2, 1.0, 1.0]))
    torch.testing.assert_close(safe_rejected_scale(chosen, rejected, mu=0.0), tensor([1.0, 0.5, 1.0, 1.0]))


@pytest.mark.parametrize("mu", [0.0, 0.6, 1.0])
def test_safe_step_does_not_raise_the_chosen_error(mu):
    generator = torch.Generator().manual_seed(0)
    chosen, noise = (torch.randn(200, 3, 4, 4, generator=generator) for _ in range(2))
    rejected = 1.5 * chosen + noise
    squared = chosen.square().sum((1, 2, 3))

    def change(scale):
        return ((-chosen + scale.view(-1, 1, 1, 1) * rejected) * chosen).sum((1, 2, 3)) / squared

    assert (change(torch.ones(200)) > 0).any()  # unscaled steps do raise it
    assert (change(safe_rejected_scale(chosen, rejected, mu)) <= -mu + 1e-5).all()


def test_rejected_scale_reaches_the_gradient_and_not_the_loss():
    """As in the test of directions, -σ(0) * beta/2 * (-1, 1), with a quarter of the push away."""
    errors = torch.tensor([0.5, 0.5], requires_grad=True)
    reference = PairErrors(tensor([0.5]), tensor([0.5]))
    result = group_preference_loss(
        PairErrors.from_pictures(errors), reference, tensor([1.0]), beta=8.0, rejected_scale=tensor([0.25])
    )
    assert float(result.loss.detach()) == pytest.approx(math.log(2))
    result.loss.backward()
    torch.testing.assert_close(errors.grad, tensor([2.0, -0.5]))


def test_pair_past_its_label_moves_back_unscaled():
    """At u = log 4 the model says 0.8 and the label 0.6: beta/2 * (q - 0.8) = -0.8 on the chosen, 0.8 on the other."""
    margin = math.log(4.0)
    errors = torch.tensor([0.5 - margin / 8.0, 0.5 + margin / 8.0], requires_grad=True)
    reference = PairErrors(tensor([0.5]), tensor([0.5]))
    group_preference_loss(
        PairErrors.from_pictures(errors), reference, tensor([0.6]), beta=8.0, rejected_scale=tensor([0.25])
    ).loss.backward()
    torch.testing.assert_close(errors.grad, tensor([-0.8, 0.8]), atol=1e-5, rtol=0)


def test_gradient_of_scene_errors_is_that_of_autograd():
    generator = torch.Generator().manual_seed(0)
    predicted, target = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2))
    masks = torch.rand(2, 1, 4, 4, generator=generator)
    predicted.requires_grad_()
    scene_errors(predicted, target, masks).sum().backward()
    torch.testing.assert_close(scene_error_gradients(predicted.detach(), target, masks), predicted.grad)


# One picture of each pair under two groups. Chosen: (0.4 - 0.5) - (0.6 - 0.5) = -0.2, u = 1 with beta 10; rejected,
# which the other group chooses: (0.5 - 0.5) - (0.4 - 0.5) = 0.1, u = -0.5. The second pair is contradicted by nobody.
CONTRAST = ContrastErrors(
    own=PairErrors(tensor([0.4, 9.0]), tensor([0.4, 9.0])), other=PairErrors(tensor([0.6, 0.0]), tensor([0.5, 0.0]))
)
CONTRAST_REFERENCE = ContrastErrors(*(PairErrors(tensor([0.5, 0.5]), tensor([0.5, 0.5])) for _ in range(2)))


def test_contrast_by_hand():
    result = group_contrast_loss(
        CONTRAST,
        CONTRAST_REFERENCE,
        target=tensor([1.0, 1.0]),
        other_target=tensor([0.8, 0.5]),
        is_known=tensor([True, False]),
        beta=10.0,
    )
    torch.testing.assert_close(result.chosen_margin, tensor([1.0, 0.0]))
    torch.testing.assert_close(result.rejected_margin, tensor([-0.5, 0.0]))
    chosen = -log_sigmoid(1.0)  # 0.3133
    rejected = -(0.8 * log_sigmoid(-0.5) + 0.2 * log_sigmoid(0.5))  # 0.8741
    assert float(result.loss) == pytest.approx((chosen + rejected) / 2 / 2)


def test_model_without_ears_for_the_group_has_no_contrast():
    """However well it tells pictures apart: the same errors under both groups."""
    errors = PairErrors(tensor([0.1, 0.2]), tensor([0.9, 0.8]))
    known, certain = tensor([True, True]), tensor([1.0, 1.0])
    result = group_contrast_loss(
        ContrastErrors(errors, errors), CONTRAST_REFERENCE, certain, certain, known, beta=200.0
    )
    assert result.chosen_margin.tolist() == result.rejected_margin.tolist() == [0.0, 0.0]
    assert float(result.loss) == pytest.approx(math.log(2))


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


def test_warmth_errors_are_the_part_that_is_red_against_blue():
    colours = tensor([[1.0, 0.0, -1.0], [1.0, 1.0, 1.0], [1.0, -2.0, 1.0], [1.0, 0.0, 0.0]])
    predicted = colours[:, :, None, None].expand(4, 3, 2, 2)
    errors = warmth_errors(predicted, torch.zeros_like(predicted), torch.zeros(4, 1, 2, 2))
    torch.testing.assert_close(errors, tensor([2.0 / 3, 0.0, 0.0, 0.5 / 3]))


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
