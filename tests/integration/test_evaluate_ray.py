"""`sgn eval --workers`: a real Ray cluster gives the same report."""

from __future__ import annotations

import pytest

from sgnray.errors import SgnError
from sgnray.evaluate import evaluate_run

pytestmark = pytest.mark.ray


@pytest.fixture
def models(tiny_run):
    return [tiny_run, tiny_run / "checkpoints" / "epoch-0003"]


def test_workers_change_nothing(models, monkeypatch):
    # So that both have work, and the same batches: the last bits of a logit depend on their size.
    monkeypatch.setattr("sgnray.evaluate.launch._BLOCK_CLIPS", 4)
    monkeypatch.setattr("sgnray.evaluate.launch.CHUNK_CLIPS", 4)
    alone = evaluate_run(models).to_dict()
    seen = []
    spread = evaluate_run(
        models, workers=2, on_progress=lambda done, total: seen.append((done, total))
    ).to_dict()
    for report in (alone, spread):
        report["cost"].pop("latency_s")
    assert spread == alone
    assert seen[-1] == (18, 18)
    assert len(seen) == 6


def test_an_unreachable_cluster_is_an_error(models):
    with pytest.raises(SgnError) as caught:
        evaluate_run(models, workers=1, address="127.0.0.1:1")
    assert "127.0.0.1:1" in caught.value.where
