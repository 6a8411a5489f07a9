import json

import pytest

from sgnray.data import skeleton
from sgnray.data.datasets import DATASETS, SKELETONS
from sgnray.data.skeleton import ESTIMATED, KINECT20, NAMED, NTU25, Skeleton


@pytest.mark.parametrize("layout", SKELETONS.values(), ids=list(SKELETONS))
def test_our_skeletons_round_trip_through_json(layout):
    assert Skeleton.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout
    assert len(layout.bones) == layout.num_joints - 1


def test_each_skeleton_is_listed():
    ours = {value.name for value in vars(skeleton).values() if isinstance(value, Skeleton)}
    assert ours == set(NAMED)


@pytest.mark.parametrize("name", DATASETS)
def test_the_skeleton_of_a_published_dataset_is_recorded(name):
    """Else its poses, which keep the unit of its files, would be checked for meters."""
    known = DATASETS[name].skeleton
    assert SKELETONS[known.name] is NAMED.get(known.name, known) is known
    assert known.name not in ESTIMATED


def test_a_custom_skeleton_round_trips():
    layout = Skeleton("dog", ("nose", "tail"), ((1, 0),), None, 2)
    assert Skeleton.from_dict(layout.to_dict()) == layout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more": 1}, "is not a description with"),
        ({"name": ""}, "^name: String should have at least 1 character"),
        ({"name": 3}, "^name: Input should be a valid string"),
        ({"joints": []}, "^joints: Tuple should have at least 1 item"),
        ({"joints": ["a", "a"]}, "joints is not a list of different names"),
        ({"joints": ["a", 1]}, "^joints.1: Input should be a valid string"),
        ({"joints": "ab"}, "^joints: Input should be a valid tuple"),
        ({"bones": [[0, 0]]}, "bones is not a list of pairs"),
        ({"bones": [[0, 20]]}, "bones is not a list of pairs"),
        ({"bones": [[0, True]]}, "^bones.0.1: Input should be a valid integer"),
        ({"bones": [[0, -1]]}, "^bones.0.1: Input should be greater than or equal to 0"),
        ({"bones": [[0, 1, 2]]}, "^bones.0: Tuple should have at most 2 items"),
        ({"bones": None}, "^bones: Input should be a valid tuple"),
        ({"origin": 20}, "origin is not a joint"),
        ({"origin": False}, "^origin: Input should be a valid integer"),
        ({"num_coordinates": 4}, "^num_coordinates: Input should be less than or equal to 3"),
        ({"num_coordinates": 1}, "^num_coordinates: Input should be greater than or equal to 2"),
        ({"num_coordinates": 3.0}, "^num_coordinates: Input should be a valid integer"),
        ({"num_coordinates": 2}, "are not those of kinect20"),
        ({"joints": list(NTU25.joints)}, "are not those of kinect20"),
    ],
)
def test_invalid_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Skeleton.from_dict(KINECT20.to_dict() | changes)


def test_a_value_that_is_not_a_dict_is_refused():
    with pytest.raises(ValueError, match="is not a description"):
        Skeleton.from_dict(["kinect20"])
