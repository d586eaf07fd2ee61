"""Which weights are kept, and when training stops, by hand."""

from __future__ import annotations

import pytest

from osmf_models.config import DpoConfig
from osmf_models.training.best import Judgement, StoppingRule

RULE = StoppingRule(evaluate_every=2, patience=2, slack=0.1, num_steps=9, checkpoint_every=4)


def history(*judged):
    """Judgements of (1 - loss, chosen error, share of refused pictures); the reference's are 1 and 0.25."""
    return [Judgement(2 * (i + 1), 1 - one[0], 0.5, one[1], 1.0, [*one, 0.25][2], 0.25) for i, one in enumerate(judged)]


def test_lowest_loss_within_the_chosen_error_is_best_and_the_earlier_of_equals():
    """After step 6 the loss is lowest and both errors have grown: the pictures break."""
    assert RULE.best(history((0.5, 1.0), (0.7, 1.05), (0.9, 1.2), (0.7, 1.0))).step == 4


def test_without_any_within_the_chosen_error_the_lowest_one_is_best():
    assert RULE.best(history((0.9, 1.5), (0.6, 1.2), (0.8, 1.3))).step == 4
    assert RULE.best(history((0.9, 1.2), (0.5, 1.0))).step == 4


def test_who_has_more_pictures_refused_than_the_reference_is_not_best():
    assert RULE.best(history((0.5, 1.0, 0.25), (0.7, 1.0, 0.0), (0.9, 1.0, 0.3))).step == 4
    assert RULE.best(history((0.9, 1.0, 0.5), (0.5, 1.2, 0.3), (0.6, 1.1, 0.3))).step == 6


def test_of_looks_the_chosen_error_is_no_criterion():
    without = StoppingRule(evaluate_every=2, patience=2, slack=None, num_steps=9, checkpoint_every=4)
    assert without.best(history((0.5, 1.0), (0.7, 4.0))).step == 4
    assert without.best(history((0.5, 1.0), (0.7, 4.0, 0.5))).step == 2


def test_patience_counts_judgements_since_the_best():
    judged = history((0.5, 1.0), (0.7, 1.05), (0.9, 1.2), (0.7, 1.0))
    assert [RULE.is_over(judged[:count]) for count in range(1, 5)] == [False, False, False, True]
    assert not StoppingRule(2, 0, 0.1, 9, 4).is_over(judged)


def test_every_second_step_and_the_last_are_judged():
    assert [step for step in range(1, 10) if RULE.is_due(step)] == [2, 4, 6, 8, 9]


def test_weights_that_a_resumed_run_would_miss_are_kept():
    """Checkpoints come after steps 4 and 8, after the judgement: at step 8 a resumed run still starts from step 4."""
    rising = history((0.5, 1.0), (0.6, 1.0), (0.7, 1.0), (0.8, 1.0))
    assert [RULE.kept(rising[:count]) for count in range(1, 5)] == [{2}, {4}, {4, 6}, {4, 8}]
    assert StoppingRule(2, 2, 0.1, 9, 0).kept(rising) == {8}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rejected_safeguard": 1.5}, "rejected_safeguard 1.5 must lie in"),
        ({"contrast_weight": -1.0}, "contrast_weight -1.0 must not be below 0"),
        ({"contrast_weight": 1.0, "pair_groups": "null"}, "needs each pair's own group"),
        ({"label": "probability"}, "has_unsure_pairs needs dpo.label=strength"),
        ({"preference_weight": 0.0, "anchor_weight": 0.0}, "nothing is left to minimise"),
        ({"patience": 2}, "set dpo.evaluate_every too"),
    ],
)
def test_values_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DpoConfig(**fields).check()
