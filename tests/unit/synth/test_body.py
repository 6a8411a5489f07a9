"""The kinematic body against a slow twin, one frame, joint and bone at a time."""

import math

import numpy as np
import pytest

from sgnray.data.skeleton import NTU25
from sgnray.synth.body import build_offsets, move_body, turn_about

TRUNK = ("turn", "bend", "nod", "lean", "forward", "sideways", "jump")
LIMBS = ("raise", "aside", "elbow", "hip", "hip aside", "knee")
NAMES = TRUNK + tuple(f"{side} {name}" for side in ("left", "right") for name in LIMBS)
JOINT = {name: index for index, name in enumerate(NTU25.joints)}


@pytest.fixture
def offsets():
    return build_offsets(1.8, leg_share=1.05, arm_share=0.95, breadth=1.1)


def stand(num_frames=1, **angles):
    still = {name: np.zeros(num_frames) for name in NAMES}
    return still | {name.replace("_", " "): np.full(num_frames, v) for name, v in angles.items()}


def plain_turn(axis, angle):
    """Rodrigues' formula, written out."""
    x, y, z = np.eye(3)[axis]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def plain_joints(offsets, angles):
    """Walk the skeleton for one frame; `angles` are numbers."""
    turned = {0: plain_turn(1, angles["turn"])}
    joints = {0: np.zeros(3)}
    for child, parent in NTU25.bones:
        joints[child] = joints[parent] + turned[parent] @ offsets[child]
        side, _, part = NTU25.joints[child].partition(" ")
        out = {"left": 1.0, "right": -1.0}.get(side, 0.0)
        local = np.eye(3)
        if side in ("left", "right"):
            angle = {name: angles[f"{side} {name}"] for name in LIMBS}
            if part in ("shoulder", "hip"):
                far, aside = ("raise", "aside") if part == "shoulder" else ("hip", "hip aside")
                plane = plain_turn(1, out * angle[aside])
                local = plane @ plain_turn(0, angle[far]) @ plane.T
            elif part == "elbow":
                local = plain_turn(0, angle["elbow"])
            elif part == "knee":
                local = plain_turn(0, -angle["knee"])
            elif part == "ankle":
                local = plain_turn(0, angle["knee"] - angle["hip"])
        elif child == 1:
            local = plain_turn(2, angles["lean"]) @ plain_turn(0, -angles["bend"] / 2)
        elif child == 20:
            local = plain_turn(0, -angles["bend"] / 2)
        elif child == 2:
            local = plain_turn(0, -angles["nod"])
        turned[child] = turned[parent] @ local
    lowest = min(joints[index][1] for index in (14, 15, 18, 19))
    root = (angles["sideways"], 0.03 - lowest + angles["jump"], -angles["forward"])
    return np.stack([joints[index] + root for index in range(25)])


def test_forward_kinematics_match_the_slow_twin(offsets):
    rng = np.random.default_rng(5)
    angles = {name: rng.normal(0.0, 0.6, 7) for name in NAMES}
    motion = move_body(offsets, angles)
    for frame in range(7):
        expected = plain_joints(offsets, {name: angles[name][frame] for name in NAMES})
        np.testing.assert_allclose(motion.joints_TVC[frame], expected, atol=1e-12)


def test_bones_keep_their_length_and_rotations_stay_rotations(offsets):
    rng = np.random.default_rng(6)
    motion = move_body(offsets, {name: rng.normal(0.0, 1.0, 9) for name in NAMES})
    for child, parent in NTU25.bones:
        bone = np.linalg.norm(motion.joints_TVC[:, child] - motion.joints_TVC[:, parent], axis=-1)
        np.testing.assert_allclose(bone, np.linalg.norm(offsets[child]), atol=1e-12)
    turned = motion.turned_TVCC
    identity = np.broadcast_to(np.eye(3), turned.shape)
    np.testing.assert_allclose(turned @ np.swapaxes(turned, -1, -2), identity, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turned), 1.0, atol=1e-12)


def test_a_standing_person_has_the_requested_height_and_faces_the_sensor(offsets):
    joints = move_body(offsets, stand()).joints_TVC[0]
    assert joints[JOINT["head"], 1] == pytest.approx(1.8, abs=0.15)
    assert joints[:, 1].min() == pytest.approx(0.03)
    assert joints[JOINT["left shoulder"], 0] < 0.0 < joints[JOINT["right shoulder"], 0]
    assert joints[JOINT["left foot"], 2] < joints[JOINT["left ankle"], 2]  # toes to the sensor


@pytest.mark.parametrize(
    ("angles", "joint", "direction"),
    [
        ({"right_raise": 1.0}, "right hand", (0, 1, -1)),
        ({"right_raise": 1.0, "right_aside": math.pi / 2}, "right hand", (1, 1, 0)),
        ({"left_raise": 1.0, "left_aside": math.pi / 2}, "left hand", (-1, 1, 0)),
        ({"right_elbow": 1.0}, "right hand", (0, 1, -1)),
        ({"left_hip": 1.0}, "left knee", (0, 1, -1)),
        ({"left_knee": 1.0}, "left ankle", (0, 1, 1)),
        ({"bend": 1.0}, "head", (0, -1, -1)),
        ({"lean": 0.5}, "head", (-1, -1, 0)),
        ({"forward": 0.5}, "head", (0, 0, -1)),
        ({"sideways": 0.5}, "head", (1, 0, 0)),
        ({"jump": 0.5}, "head", (0, 1, 0)),
    ],
)
def test_what_each_angle_moves(offsets, angles, joint, direction):
    joints = move_body(offsets, stand(**angles)).joints_TVC[0]
    moved = (joints - move_body(offsets, stand()).joints_TVC[0])[JOINT[joint]]
    assert tuple(np.where(np.abs(moved) < 1e-9, 0, np.sign(moved))) == direction


def test_squatting_lowers_the_hips_and_keeps_the_feet_down(offsets):
    legs = {f"{side}_{part}": 1.2 for side in ("left", "right") for part in ("hip", "knee")}
    squat, upright = (move_body(offsets, a).joints_TVC[0] for a in (stand(**legs), stand()))
    assert squat[0, 1] < upright[0, 1] - 0.2
    assert squat[:, 1].min() == pytest.approx(0.03)


def test_turns_are_those_of_rodrigues():
    for axis in range(3):
        np.testing.assert_allclose(
            turn_about(axis, np.array([0.3, -2.0]))[1], plain_turn(axis, -2.0), atol=1e-15
        )
