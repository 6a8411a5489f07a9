"""What a trial trains on, what it scores, what it never sees, and how it resumes; without Ray."""

import dataclasses

import numpy as np
import pytest
import torch

from sgnray.data.fetch import SharedDataset
from sgnray.data.pose_bank import PoseBank
from sgnray.data.protocols import Split, split_clips, validation_folds
from sgnray.distributed.world import World
from sgnray.errors import RunError, SgnError
from sgnray.train.job import train_batches, validator
from sgnray.train.loop import fit
from sgnray.train.state import TrainState
from sgnray.tune.folds import Folds, TrialJob, check_version
from sgnray.tune.plan import shorten
from sgnray.tune.trial_resources import TrialResources
from sgnray.tune.trials import Started


@pytest.fixture
def short_recipe(tiny_recipe):
    return shorten(tiny_recipe, 2)


def train_folds(recipe, dataset, **settings):
    """Train all folds; what depends on the clock is left out."""
    for report in Folds(recipe, dataset, **settings).train_remaining():
        assert report.clips_per_s > 0
        yield dataclasses.replace(report, duration_s=0.0, clips_per_s=None)


def poison(dataset, rows):
    """Replace clips by NaN and their labels by an invalid one, so that using one fails."""
    poses_PVC, labels = dataset.poses_PVC.copy(), dataset.clips.labels.copy()
    for row in rows:
        poses_PVC[dataset.offsets[row] : dataset.offsets[row + 1]] = np.nan
        labels[row] = 10**6
    clips = dataclasses.replace(dataset.clips, labels=labels)
    return dataclasses.replace(dataset, poses_PVC=poses_PVC, clips=clips)


def with_two_training_setups(dataset):
    """Divide the only training setup of the tiny dataset into two."""
    clips = dataset.clips
    setups = clips.setups.copy()
    setups[np.flatnonzero(setups % 2 == 0)[::2]] = 4
    return dataclasses.replace(dataset, clips=dataclasses.replace(clips, setups=setups))


def with_selection(recipe, selection):
    return recipe.replacing({"train.selection": selection})


@pytest.mark.parametrize("selection", ["last", "validation", "test"])
@pytest.mark.parametrize("case", ["cs", "cv", "cset"])
def test_test_clips_are_never_used(tiny_dataset, short_recipe, case, selection):
    dataset = with_two_training_setups(tiny_dataset)
    recipe = with_selection(short_recipe.replacing({"data.case": case}), selection)
    spoiled = poison(dataset, split_clips("synth", case, dataset.clips).test)
    assert np.isnan(spoiled.poses_PVC).any()
    assert list(train_folds(recipe, spoiled)) == list(train_folds(recipe, dataset))


def test_using_a_poisoned_clip_fails(tiny_dataset, short_recipe):
    """So the test above can fail."""
    fold = validation_folds("synth", "cv", tiny_dataset.clips)[0]
    for part in (fold.train, fold.test):
        with pytest.raises((IndexError, RuntimeError)):
            list(train_folds(short_recipe, poison(tiny_dataset, part[:1])))


def test_each_epoch_is_the_mean_of_the_folds_as_training_scores_them(tiny_dataset, short_recipe):
    """Twin: each fold trained alone by the loop of sgn train."""
    recipe = with_selection(short_recipe, "validation")
    folds = validation_folds("synth", "cv", tiny_dataset.clips)
    assert len(folds) == 2
    alone = [train_alone(recipe, tiny_dataset, fold) for fold in folds]
    together = list(train_folds(recipe, tiny_dataset))
    assert [report.epoch for report in together] == [1, 2]
    for epoch, report in enumerate(together):
        assert report.spread is None
        assert report.num_parameters > 0
        means = {"train/loss": report.train_loss, "val/loss": report.val_loss}
        for key, mean in {**means, "val/top1": report.score}.items():
            assert mean == (alone[0][epoch][key] + alone[1][epoch][key]) / 2
    assert alone[0] != alone[1]


def train_alone(recipe, dataset, fold: Split):
    bank, world = PoseBank.of(dataset, torch.device("cpu")), World()
    state = TrainState.initial(recipe, dataset, device=bank.device, world=world)
    fit(
        state,
        train_batches(recipe, bank, fold.train, world=world),
        validate=validator(recipe, bank, fold.test),
        on_epoch=lambda result: None,
    )
    return state.history


def test_a_model_with_non_finite_output_has_no_score(tiny_dataset, short_recipe):
    recipe = short_recipe.replacing({"optim.learning_rate": 1e30})
    with pytest.raises(SgnError, match="the model's output is not finite"):
        list(train_folds(recipe, tiny_dataset))


def test_the_score_of_several_seeds_is_their_mean(tiny_dataset, short_recipe):
    alone = [
        list(train_folds(short_recipe.replacing({"train.seed": seed}), tiny_dataset))
        for seed in (0, 1, 2)
    ]
    together = list(train_folds(short_recipe, tiny_dataset, num_seeds=3))
    for epoch, report in enumerate(together):
        scores = [each[epoch].score for each in alone]
        assert report.score == pytest.approx(np.mean(scores), abs=1e-12)
        assert report.spread == pytest.approx(np.std(scores, ddof=1), abs=1e-12)
    assert len({each[0].train_loss for each in alone}) == 3


def weights(folds):
    return [fold.state.model.state_dict() for seed in folds._seeds for fold in seed]


def test_an_interrupted_trial_ends_in_the_same_weights(tiny_dataset, tiny_recipe):
    recipe = shorten(tiny_recipe, 3)
    whole = Folds(recipe, tiny_dataset)
    expected = [report.train_loss for report in whole.train_remaining()]
    first = Folds(recipe, tiny_dataset)
    remaining = first.train_remaining()
    next(remaining), next(remaining)
    second = Folds(recipe, tiny_dataset)
    second.restore(first.pack())
    assert second.epoch == 2
    assert [second.report(epoch).train_loss for epoch in (1, 2)] == expected[:2]
    assert [report.train_loss for report in second.train_remaining()] == expected[2:]
    for ours, theirs in zip(weights(second), weights(whole), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def break_off(state):
    return state[:-100]


def damage(state):
    place = len(state) // 4
    return state[:place] + bytes([state[place] ^ 1]) + state[place + 1 :]


@pytest.mark.parametrize("spoil", [break_off, damage])
def test_a_corrupt_state_is_not_taken_up(tiny_dataset, short_recipe, spoil):
    folds = Folds(short_recipe, tiny_dataset)
    next(folds.train_remaining())
    fresh = Folds(short_recipe, tiny_dataset)
    fresh.restore(spoil(folds.pack()))
    assert fresh.epoch == 0
    fresh.restore(folds.pack())
    assert fresh.epoch == 1


def test_whatever_bit_of_a_state_is_wrong_the_trial_starts_over(tiny_dataset, short_recipe):
    folds, fresh = (Folds(short_recipe, tiny_dataset) for _ in range(2))
    folds.restore(None)
    state = bytearray(folds.pack())
    ends = [*range(60), *range(len(state) - 300, len(state))]  # the first header, the directory
    for place in ends:
        for bit in (1, 8, 128):
            state[place] ^= bit
            fresh.restore(bytes(state))
            check_version(bytes(state), "here")
            state[place] ^= bit
    assert fresh.epoch == 0


def test_a_state_of_a_newer_sgnray_is_refused(tiny_dataset, short_recipe, monkeypatch):
    monkeypatch.setattr("sgnray.tune.folds.STATE_VERSION", 2)
    state = Folds(short_recipe, tiny_dataset).pack()
    check_version(state, "here")
    monkeypatch.undo()
    with pytest.raises(RunError, match="format version 2, this sgnray reads 1"):
        check_version(state, "here")


def test_a_state_of_another_recipe_dataset_or_number_of_seeds_is_not_taken_up(
    tiny_dataset, short_recipe
):
    folds = Folds(short_recipe, tiny_dataset)
    next(folds.train_remaining())
    info = tiny_dataset.info.model_copy(update={"checksum": "sha256:00"})
    others = [
        Folds(short_recipe.replacing({"optim.learning_rate": 0.5}), tiny_dataset),
        Folds(short_recipe, dataclasses.replace(tiny_dataset, info=info)),
        Folds(short_recipe, tiny_dataset, num_seeds=2),
    ]
    for other in others:
        other.restore(folds.pack())
        assert other.epoch == 0


class States:
    """A StateStore without Ray."""

    def __init__(self):
        self.of_trials = {}

    def send(self, number, state):
        self.of_trials[number] = state

    def newest(self, number):
        return self.of_trials.get(number)


@pytest.fixture
def job(plan, tiny_dataset, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # of this process
    shared = SharedDataset(tiny_dataset.folder, tiny_dataset.info.identity, file_server=None)
    return TrialJob(plan, shared, TrialResources(num_gpus=0), States(), "float32")


def test_a_resumed_trial_first_reports_the_epochs_that_it_did_before(job):
    trial = Started(7, {"optim.learning_rate": 0.02})
    first = next(job.train(trial, World()))
    assert list(job.states.of_trials) == [7]
    resumed = list(job.train(trial, World()))
    assert resumed[0] == first
    assert [report.epoch for report in resumed] == [1, 2]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_auto_is_the_precision_of_the_search(job, precision):
    def first_loss(job):
        trial = Started(1, {})
        return next(job.train(trial, World())).train_loss

    def with_precision(precision):
        recipe = job.plan.recipe.replacing({"train.precision": precision})
        plan = dataclasses.replace(job.plan, recipe=recipe)
        return dataclasses.replace(job, plan=plan, states=States())

    chosen = dataclasses.replace(with_precision("auto"), precision=precision)
    assert first_loss(chosen) == first_loss(with_precision(precision))
