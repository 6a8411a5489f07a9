"""Performers and performances: people differ in size and manner, clips in length, pace and place.

World frame of a performance: x to the right as camera 1 sees it, y up from the floor, z away from
camera 1, origin on the floor in the middle. Suffixes: T frames, V joints, C coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgnray.synth.actions import Action, Gesture, Movement
from sgnray.synth.body import SIDES, Angles, Floats, Motion, build_offsets, move_body, turn_about

# Lengths in frames at 30 frames per second, as in NTU RGB+D.
SHORTEST, MEDIAN, LONGEST = 32, 76, 300

_TRUNK_ANGLES = ("turn", "bend", "nod", "lean", "forward", "sideways")


@dataclass(frozen=True)
class Person:
    """A body and its manner: the size and speed of its movements, its main hand, its stance."""

    offsets_VC: Floats
    amplitude: float
    slowness: float
    is_left_handed: bool
    sway_rad: float
    stance: dict[str, float]


def draw_person(rng: np.random.Generator) -> Person:
    """Draw a person between 1.5 and 1.95 m tall."""
    offsets_VC = build_offsets(
        rng.uniform(1.5, 1.95),
        leg_share=rng.uniform(0.93, 1.07),
        arm_share=rng.uniform(0.92, 1.08),
        breadth=rng.uniform(0.85, 1.2),
    )
    stance = dict.fromkeys(_TRUNK_ANGLES, 0.0)
    stance |= {"bend": rng.uniform(-0.05, 0.2), "nod": rng.uniform(-0.1, 0.3)}
    arms = {"raise": rng.uniform(0.02, 0.2), "aside": rng.uniform(0.1, 0.5)}
    legs = {"hip": 0.02, "hip aside": 0.3, "knee": 0.04}
    for side, _ in SIDES:
        elbow = {"elbow": rng.uniform(0.1, 0.5)}
        stance |= {f"{side} {name}": value for name, value in (arms | legs | elbow).items()}
    return Person(
        offsets_VC,
        amplitude=rng.uniform(0.75, 1.15),
        slowness=rng.lognormal(0.0, 0.15),
        is_left_handed=bool(rng.random() < 0.2),
        sway_rad=rng.uniform(0.01, 0.04),
        stance=stance,
    )


def perform(
    action: Action, lead: Person, follow: Person, *, facing_rad: float, rng: np.random.Generator
) -> tuple[Motion, ...]:
    """Perform an action once, towards `facing_rad` (to the left of camera 1, seen from the person).

    Returns one motion, or two of equal length if the action needs two people. With the same
    generator, the two actions of a movement are exact reverses of each other.
    """
    forwards = _perform(action.movement, lead, follow, facing_rad, rng)
    return tuple(map(_reverse, forwards)) if action.is_reversed else forwards


def draw_length(slowness: float, rng: np.random.Generator) -> int:
    """Draw a clip length in frames; the median person's median is 76."""
    frames = MEDIAN * slowness * rng.lognormal(0.0, 0.3)
    return int(np.clip(round(frames), SHORTEST, LONGEST))


def _perform(
    movement: Movement, lead: Person, follow: Person, facing_rad: float, rng: np.random.Generator
) -> tuple[Motion, ...]:
    num_frames = draw_length(lead.slowness, rng)
    middle = rng.normal(0.0, 0.15, 3) * (1.0, 0.0, 1.0)
    if movement.distance_m is None:
        motion = _act(lead, movement.gesture, num_frames, rng)
        return (_place(motion, facing_rad + rng.normal(0.0, 0.15), middle),)
    # Two people stand sideways to the camera that one person would face.
    facing = facing_rad + rng.choice((-0.5, 0.5)) * np.pi + rng.normal(0.0, 0.2)
    apart = np.array((0.0, 0.0, 0.5 * movement.distance_m * rng.uniform(0.9, 1.15)))
    towards = turn_about(1, np.asarray(facing)) @ apart
    first = _act(lead, movement.gesture, num_frames, rng)
    second = _act(follow, movement.gesture, num_frames, rng)
    return (
        _place(first, facing + rng.normal(0.0, 0.1), middle + towards),
        _place(second, facing + np.pi + rng.normal(0.0, 0.1), middle - towards),
    )


def _act(person: Person, gesture: Gesture, num_frames: int, rng: np.random.Generator) -> Motion:
    phase = _draw_phase(num_frames, rng)
    amplitude = person.amplitude * rng.uniform(0.9, 1.1)
    angles: Angles = {
        name: value + person.sway_rad * _sway(num_frames, rng)
        for name, value in person.stance.items()
    }
    angles["jump"] = np.zeros(num_frames)
    main, other = ("left", "right") if person.is_left_handed else ("right", "left")
    for name, excess in gesture(phase).items():
        side_name = name.replace("main ", f"{main} ").replace("other ", f"{other} ")
        angles[side_name] = angles[side_name] + amplitude * excess
    return move_body(person.offsets_VC, angles)


def _draw_phase(num_frames: int, rng: np.random.Generator) -> Floats:
    """Draw the phase 0..1 of each frame: a random start and end, and an uneven pace between."""
    start, end = rng.uniform(0.0, 0.12), rng.uniform(0.86, 1.0)
    even = np.clip((np.linspace(0.0, 1.0, num_frames) - start) / (end - start), 0.0, 1.0)
    uneven = rng.uniform(-0.5, 0.5) * np.sin(2.0 * np.pi * even) / (2.0 * np.pi)
    return even + uneven


def _sway(num_frames: int, rng: np.random.Generator) -> Floats:
    """Drift slowly between -1 and 1, because nobody stands perfectly still."""
    # Whole cycles: a clip ends as it began, so that its first pose does not show its direction.
    num_cycles, phases = np.array([[1.0], [2.0]]), rng.uniform(0.0, 2.0 * np.pi, (2, 1))
    share = np.linspace(0.0, 1.0, num_frames)
    sway: Floats = np.sin(2.0 * np.pi * num_cycles * share + phases).mean(axis=0)
    return sway


def _place(motion: Motion, facing_rad: float, where: Floats) -> Motion:
    turned = turn_about(1, np.asarray(facing_rad))
    return Motion(motion.joints_TVC @ turned.T + where, turned @ motion.turned_TVCC)


def _reverse(motion: Motion) -> Motion:
    return Motion(motion.joints_TVC[::-1], motion.turned_TVCC[::-1])
