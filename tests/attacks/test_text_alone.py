"""continuation by hand."""

import numpy as np
import pytest

from kdleak.attacks import ATTACKS, AttackInput
from kdleak.attacks.text_alone import unigram_recall
from kdleak.inference.scoring import token_statistics
from tests.support.tiny_models import random_records, tiny_model


@pytest.mark.parametrize(
    ("made", "own", "share"),
    [
        ("Ada owes 12 apples.", "Ada owes 12 apples.", 1.0),
        ("ada OWES nothing", "Ada owes 12 apples.", 2 / 5),
        ("the the the", "the cat the dog", 2 / 4),
        ("the", "the cat the dog", 1 / 4),
        ("", "a word", 0.0),
    ],
)
def test_it_is_the_share_of_the_records_words_that_the_student_writes(made, own, share):
    assert unigram_recall(made, own) == pytest.approx(share)


def test_a_record_without_a_word_is_undefined():
    assert np.isnan(unigram_recall("anything", " "))


def test_it_reads_no_probability():
    statistics = token_statistics(tiny_model(layers=1), random_records(2))
    inputs = AttackInput(statistics, continued=[("a b", "a c"), ("x", "x")])
    np.testing.assert_allclose(ATTACKS["continuation"].score(inputs), [0.5, 1.0])
    assert ATTACKS["continuation"].needs.missing(AttackInput(statistics)) == ["continuations of the prompts"]
