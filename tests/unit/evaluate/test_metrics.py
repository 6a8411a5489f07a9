from __future__ import annotations

import pytest
import torch

from sgnray.evaluate.metrics import Tally

LOGITS = torch.tensor(
    [
        [9.0, 1, 2, 3, 4, 5, 6],  # class 0 is likeliest
        [9.0, 1, 2, 3, 4, 5, 6],
        [0.0, 8, 1, 1, 1, 1, 1],
        [1.0, 2, 3, 4, 5, 6, 7],
    ]
)
LABELS = torch.tensor([0, 1, 1, 6])  # the second is wrong: its label is ranked last


def test_counts_by_hand():
    tally = Tally.of(LOGITS, LABELS)
    assert tally.num_clips == 4
    assert tally.num_correct == 3
    assert tally.top1 == 0.75
    assert tally.top5 == 0.75
    assert tally.confusion_KK[1, 0] == 1
    expected = torch.nn.functional.cross_entropy(LOGITS.double(), LABELS).item()
    assert tally.loss == pytest.approx(expected, abs=1e-12)


def test_uneven_parts_add_up_to_the_whole():
    whole = Tally.of(LOGITS, LABELS)
    parts = Tally.empty(7, torch.device("cpu"))
    for part in (slice(0, 1), slice(1, 4)):
        parts += Tally.of(LOGITS[part], LABELS[part])
    assert torch.equal(parts.confusion_KK, whole.confusion_KK)
    assert (parts.top5, parts.loss) == (whole.top5, pytest.approx(whole.loss))


def test_fewer_than_five_classes():
    assert Tally.of(torch.eye(3), torch.tensor([2, 1, 0])).top5 == 1.0


def test_an_empty_tally_has_a_score_of_zero():
    assert Tally.empty(3, torch.device("cpu")).top1 == 0.0
