"""Noise is a dataset like any other."""

import pytest

from sgnray.bench.noise import known_shape, write_noise
from sgnray.config import list_recipes, load_recipe
from sgnray.data.protocols import split_clips
from sgnray.data.store import open_dataset
from sgnray.data.verify import verify_dataset
from sgnray.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["ntu60-cv", "nwucla-cv", "synth-cset"])
def test_noise_is_a_valid_dataset_with_the_requested_split(name, tmp_path):
    recipe = load_recipe(name)
    case, shape = known_shape(recipe.data.dataset, recipe.data.case)
    folder = write_noise(
        tmp_path / "noise", recipe.data.dataset, case, shape, num_train=70, num_test=3
    )
    verify_dataset(folder)
    dataset = open_dataset(folder)
    split = split_clips(recipe.data.dataset, case, dataset.clips)
    assert (len(split.train), len(split.test)) == (70, 3)
    assert dataset.skeleton == shape.skeleton
    assert len(dataset.info.class_names) == shape.num_classes
    assert dataset.poses_PVC.std() > 0.1


def test_every_shipped_recipe_of_a_known_dataset_has_a_shape():
    for name in list_recipes():
        recipe = load_recipe(name)
        if recipe.data.dataset != "custom":
            assert known_shape(recipe.data.dataset, recipe.data.case)[0] == recipe.data.case


def test_aliases_of_cases_are_accepted():
    assert known_shape("ntu120", "xset") == known_shape("ntu120", "cset")


def test_an_unknown_dataset_is_refused():
    with pytest.raises(UsageError, match="the shape of the dataset my-kinect is not known"):
        known_shape("my-kinect", "people")
    with pytest.raises(UsageError, match="has no case"):
        known_shape("nwucla", "cs")
