"""Synthetic data are not trivial: without the order of poses, the actions of a pair look alike."""

import numpy as np
import pytest

from sgnray.data.protocols import split_clips
from sgnray.data.store import open_dataset
from sgnray.prepare import prepare_dataset
from sgnray.synth.generate import synthesize


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """8 classes, 7 subjects, 3 cameras: 168 clips, 96 (cs) or 112 (cv) of them for training."""
    folder = tmp_path_factory.mktemp("difficulty")
    synthesize(folder / "raw", num_subjects=7, num_setups=2, num_replications=1)
    return open_dataset(prepare_dataset(folder / "raw", out=folder / "synth").folder)


def describe_clips(dataset):
    """Mean and standard deviation over time of every coordinate of every joint: (N, 150)."""
    rows = []
    for start, end in zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True):
        poses = dataset.poses_PVC[start:end].reshape(end - start, -1).astype(np.float64)
        rows.append(np.concatenate([poses.mean(axis=0), poses.std(axis=0)]))
    return np.array(rows)


def fit_logistic(features, labels, num_classes, *, strength, num_steps=400):
    """Multinomial logistic regression by accelerated gradient descent, in float64."""
    inputs = np.column_stack([features, np.ones(len(features))])
    step = 1.0 / (0.5 * np.linalg.norm(inputs, 2) ** 2 / len(inputs) + strength)
    weights = ahead = np.zeros((inputs.shape[1], num_classes))
    for count in range(num_steps):
        scores = inputs @ ahead
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        shares[np.arange(len(labels)), labels] -= 1.0
        before, weights = (
            weights,
            ahead - step * (inputs.T @ shares / len(inputs) + strength * ahead),
        )
        ahead = weights + count / (count + 3.0) * (weights - before)
    return weights


@pytest.mark.parametrize("case", ["cs", "cv"])
def test_a_linear_classifier_of_pose_statistics_finds_the_movement_but_not_its_direction(
    dataset, case
):
    split = split_clips("synth", case, dataset.clips)
    features, labels = describe_clips(dataset), dataset.clips.labels
    spread = features[split.train].std(axis=0) + 1e-9
    features = (features - features[split.train].mean(axis=0)) / spread
    weights = fit_logistic(features[split.train], labels[split.train], 8, strength=0.03)
    found = (features[split.test] @ weights[:-1] + weights[-1]).argmax(axis=1)
    assert np.mean(found == labels[split.test]) < 0.6
    # It is not a weak classifier: it nearly always finds which of the four movements it was.
    assert np.mean(found // 2 == labels[split.test] // 2) > 0.9
