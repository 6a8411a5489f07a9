"""The movements of synthetic people; each movement makes two actions.

The second action of a movement is the first one run backwards, so both have the same poses for the
same time, start and end in the same pose, and differ only in order and direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sgnray.synth.body import Angles, Floats

Gesture = Callable[[Floats], Angles]


@dataclass(frozen=True)
class Movement:
    """Two actions, named for the movement as written and for the movement run backwards.

    `gesture` returns angles over the phase 0..1, which are added to the person's stance. With a
    `distance_m`, two people perform the same movement, facing each other.
    """

    names: tuple[str, str]
    gesture: Gesture
    distance_m: float | None = None


@dataclass(frozen=True)
class Action:
    """One class: a movement, forwards or backwards."""

    name: str
    movement: Movement
    is_reversed: bool


def list_actions() -> tuple[Action, ...]:
    """List every action; a dataset with K classes has the first K of them."""
    return tuple(
        Action(name, movement, is_reversed)
        for movement in _movements()
        for name, is_reversed in zip(movement.names, (False, True), strict=True)
    )


def _movements() -> tuple[Movement, ...]:
    return (
        Movement(("squat, then reach up", "reach up, then squat"), _squat_reach),
        Movement(
            ("come near, then draw back", "draw back, then come near"), _near_back, distance_m=1.5
        ),
        Movement(("circle arms outwards", "circle arms inwards"), _circle_arms),
        Movement(("kick, then punch", "punch, then kick"), _kick_punch),
        Movement(("bow, then arch the back", "arch the back, then bow"), _bow_arch),
        Movement(("shake hands, then bow", "bow, then shake hands"), _shake_bow, distance_m=0.95),
        Movement(("wave more and more", "wave less and less"), _wave_growing),
        Movement(("step forward, then back", "step back, then forward"), _step_forward),
        Movement(("touch the head, then a foot", "touch a foot, then the head"), _head_foot),
        Movement(("hand over, then cheer", "cheer, then hand over"), _give_cheer, distance_m=1.1),
        Movement(("jump, then kneel", "kneel, then jump"), _jump_kneel),
        Movement(("hug oneself, then spread arms", "spread arms, then hug oneself"), _hug_spread),
    )


def _squat_reach(phase: Floats) -> Angles:
    down, up = _early(phase), _late(phase)
    legs = _both(hip=1.5 * down, knee=2.1 * down)
    return _both(**{"raise": 1.1 * down + 2.6 * up}) | legs | {"bend": 0.5 * down}


def _near_back(phase: Floats) -> Angles:
    near, back = _early(phase), _late(phase)
    return _walk(0.45 * (near - back)) | _both(**{"raise": 1.3 * near, "elbow": 0.4 * near})


def _circle_arms(phase: Floats) -> Angles:
    around = 4.0 * np.pi * phase
    up = 0.5 - 0.5 * np.cos(around)
    return _both(**{"raise": 2.5 * up, "aside": 0.45 - 0.65 * np.sin(around)})


def _kick_punch(phase: Floats) -> Angles:
    kick, punch = _early(phase), _late(phase)
    return {
        "main hip": 1.5 * kick,
        "main knee": 0.2 * kick,
        "bend": -0.25 * kick + 0.25 * punch,
        "main raise": 1.6 * punch,
        "main elbow": -0.3 * punch,
        "other raise": 0.5 * kick,
        "other elbow": 0.9 * kick + 1.5 * punch,
    }


def _bow_arch(phase: Floats) -> Angles:
    bow, arch = _early(phase), _late(phase)
    return {"bend": 1.2 * bow - 0.4 * arch, "nod": 0.4 * bow - 0.4 * arch} | _both(
        elbow=1.2 * arch, aside=0.5 * arch
    )


def _shake_bow(phase: Floats) -> Angles:
    shake, bow = _early(phase), _late(phase)
    swinging = shake * (1.0 + 0.25 * np.sin(12.0 * np.pi * phase))
    return {"right raise": 0.9 * swinging, "right elbow": 0.4 * shake, "bend": 0.9 * bow}


def _wave_growing(phase: Floats) -> Angles:
    growing = phase * _whole(phase)
    swing = growing * np.sin(8.0 * np.pi * phase)
    return {
        "main raise": 2.2 * _whole(phase),
        "main elbow": 0.6 * _whole(phase),
        "main aside": 0.9 * swing,
        "lean": 0.25 * swing,
    }


def _step_forward(phase: Floats) -> Angles:
    return _walk(0.7 * (_early(phase) - _late(phase)))


def _head_foot(phase: Floats) -> Angles:
    head, foot = _early(phase), _late(phase)
    return {
        "main raise": 1.5 * head + 0.9 * foot,
        "main elbow": 2.0 * head,
        "other hip": 1.2 * foot,
        "other knee": 1.4 * foot,
        "bend": 0.5 * foot,
    }


def _give_cheer(phase: Floats) -> Angles:
    give, cheer = _early(phase), _late(phase)
    return _both(**{"raise": 1.2 * give + 2.6 * cheer}) | {"bend": 0.2 * give}


def _jump_kneel(phase: Floats) -> Angles:
    jump, kneel = _early(phase), _late(phase)
    flight = np.where(jump > 0.0, 0.22 * np.sin(4.0 * np.pi * phase) ** 2, 0.0)
    legs = {"main hip": 1.4 * kneel, "main knee": 1.5 * kneel, "other knee": 1.5 * kneel}
    return legs | {"jump": flight} | _both(**{"raise": 1.0 * jump})


def _hug_spread(phase: Floats) -> Angles:
    hug, spread = _early(phase), _late(phase)
    return _both(
        elbow=1.5 * hug, **{"raise": 1.1 * hug + 1.4 * spread, "aside": -0.5 * hug + spread}
    )


def _early(phase: Floats) -> Floats:
    return _bump(phase, 0.0, 0.5)


def _late(phase: Floats) -> Floats:
    return _bump(phase, 0.5, 1.0)


def _whole(phase: Floats) -> Floats:
    return _bump(phase, 0.0, 1.0) ** 0.5


def _bump(phase: Floats, start: float, end: float) -> Floats:
    """Rise from 0 to 1 and fall again between two phases; zero elsewhere."""
    inside = np.clip((phase - start) / (end - start), 0.0, 1.0)
    return np.sin(np.pi * inside) ** 2


def _both(**angles: Floats) -> Angles:
    """Use the same angles for both sides."""
    return {f"{side} {name}": angle for side in ("main", "other") for name, angle in angles.items()}


def _walk(forward: Floats) -> Angles:
    """Walk along `forward` (meters): the legs swing with the distance walked."""
    # Walking backwards moves the legs backwards too, so that a reversed walk is a walk.
    swing = 0.35 * np.sin(2.0 * np.pi * forward / 0.55)
    return {
        "forward": forward,
        "main hip": swing,
        "other hip": -swing,
        "main knee": 0.6 * np.maximum(swing, 0.0),
        "other knee": 0.6 * np.maximum(-swing, 0.0),
    }
