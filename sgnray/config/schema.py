"""What a recipe may say: every key, its type and its default, which is the paper's NTU60 CS run.

The text under a key is its help: `sgn train --dry-run` prints it above the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class NotHashed:
    """Marks a key that does not affect the result: the hash of a recipe leaves it out."""


@dataclass(frozen=True)
class Expected:
    """What a value must be, in the words of an error message: 'must be <words>, got ...'."""

    words: str


def tuple_of_list(value: object) -> object:
    """Turn a list into a tuple: YAML and JSON have lists only, which strict types would refuse."""
    return tuple(value) if isinstance(value, list) else value


def _strictly_ascending(epochs: tuple[int, ...]) -> tuple[int, ...]:
    if list(epochs) != sorted(set(epochs)):
        raise ValueError("not ascending")
    return epochs


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("given twice")
    return names


Item = TypeVar("Item")
ListOf = Annotated[tuple[Item, ...], BeforeValidator(tuple_of_list)]
_DistinctOf = Annotated[ListOf[Item], AfterValidator(_different)]
_PositiveInt = Annotated[int, Field(gt=0)]
Truth = Annotated[bool, Expected("true or false")]
_Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Word = Annotated[_Word, Expected("a name such as ntu60")]
CaseName = Annotated[_Word, Expected("the name of a case, such as cs")]
Count = Annotated[_PositiveInt, Expected("a positive integer")]
SmallCount = Annotated[int, Field(ge=1, le=10_000), Expected("an integer from 1 to 10,000")]
Natural = Annotated[int, Field(ge=0), Expected("an integer of at least 0")]
Positive = Annotated[float, Field(gt=0), Expected("a positive number")]
NonNegative = Annotated[float, Field(ge=0), Expected("a number of at least 0")]
Fraction = Annotated[float, Field(ge=0, lt=1), Expected("a number from 0 to below 1")]
Share = Annotated[float, Field(gt=0, le=1), Expected("a number above 0 and up to 1")]
Half = Annotated[float, Field(ge=0, le=0.5), Expected("a number from 0 to 0.5")]
Widths = Annotated[
    ListOf[_PositiveInt],
    Field(min_length=1),
    Expected("a list of positive integers, like [128, 256, 256]"),
]
Milestones = Annotated[
    ListOf[_PositiveInt],
    AfterValidator(_strictly_ascending),
    Expected("a list of ascending positive integers, like [60, 90, 110]"),
]
Angles = Annotated[
    NonNegative | tuple[NonNegative, NonNegative, NonNegative],
    BeforeValidator(tuple_of_list),
    Expected("a number of at least 0, or three of them for x, y and z, like [0.3, 1.2, 0.3]"),
]
# In the order in which a model draws its initial weights: a new one goes last.
Input = Literal["position", "velocity", "bone", "bone_velocity"]
Inputs = Annotated[
    _DistinctOf[Input],
    Field(min_length=1),
    Expected(f"a list of distinct items from {', '.join(get_args(Input))}"),
]
Windows = Literal["paper", "even"]
PoseDevice = Literal["auto", "host", "device"]
AffinityKind = Literal["learned", "skeleton"]
Precision = Literal["float32", "bf16", "auto"]
Selection = Literal["last", "validation", "test"]
Tracker = Literal["tensorboard", "mlflow", "wandb"]
Trackers = Annotated[
    _DistinctOf[Tracker], Expected(f"a list of distinct items from {', '.join(get_args(Tracker))}")
]


class Strict(BaseModel):
    """Frozen, nothing unknown, nothing converted but integer to float."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Section(Strict):
    """One block of a recipe."""

    model_config = ConfigDict(allow_inf_nan=False, use_attribute_docstrings=True)


class DataConfig(Section):
    """Which clips, and how a clip becomes a fixed number of poses."""

    dataset: Word = "ntu60"
    """Dataset of the recipe: a published one, such as ntu60, or one of your own."""
    case: CaseName = "cs"
    """The split: test subjects (cs, csub), cameras (cv), setups (cset), or a split of your own."""
    num_segments: SmallCount = 20
    """Segments of a clip; one pose is drawn from each."""
    windows: Windows = "paper"
    """Segments of L // T poses, which miss a clip's end (paper), or of L / T (even)."""
    rotation_rad: Angles = 0.3
    """Training clips rotate by up to this angle, in radians, about each axis or [x, y, z]."""
    scaling: Fraction = 0.0
    """Training clips are scaled by a random factor of 1 plus or minus up to this."""
    shear: NonNegative = 0.0
    """Training clips are sheared: each coordinate gets up to this factor of the others added."""
    jitter_m: NonNegative = 0.0
    """Standard deviation of the noise on every joint of a training clip, in meters."""
    joint_dropout: Fraction = 0.0
    """Probability with which a joint of a training clip is missing: zero in all of its poses."""
    crop: Share = 1.0
    """Training clips are cropped to a random part of at least this share of their poses."""
    corrected_labels: Truth = False
    """Train with corrected labels where those of a published dataset are known to be wrong."""
    mixing: NonNegative = 0.0
    """Mix pairs of training clips by shares from Beta(mixing, mixing); 0 disables it."""
    pose_device: Annotated[PoseDevice, NotHashed()] = "auto"
    """Where poses are kept: host, device (where training runs), or auto (device if they fit)."""


class ModelConfig(Section):
    """What SGN sees, and its widths."""

    inputs: Inputs = ("position", "velocity")
    """What is embedded and summed: position, velocity, bone (from the parent), bone_velocity."""
    embedding_width: Count = 64
    """Channels of the dynamics, of the joint type and of the frame index."""
    affinity_width: Count = 256
    """Channels in which two joints are compared."""
    graph_widths: Widths = (128, 256, 256)
    """Output channels of each graph layer; the paper has three."""
    joint_type: Truth = True
    """Add a code of each joint's type; false leaves it out."""
    frame_index: Truth = True
    """Add a code of each frame's position; false leaves it out."""
    affinity: AffinityKind = "learned"
    """Which joints exchange messages: learned from the clip, or fixed by the skeleton's bones."""
    frame_width: Count = 512
    """Channels that are pooled over time and classified."""
    dropout: Fraction = 0.2
    """Share of frame-level channels that are dropped in training."""


class OptimConfig(Section):
    """The optimizer, its schedule and its loss."""

    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam adds the weight decay to the gradient, AdamW subtracts it from the weights."""
    learning_rate: Positive = 1e-3
    """Full learning rate: before any decay, and after the warmup."""
    weight_decay: NonNegative = 1e-4
    """L2 penalty; adamw multiplies it by the learning rate, adam adds it to the gradient."""
    schedule: Literal["steps", "cosine"] = "steps"
    """The learning rate decays at each milestone (steps), or falls to zero along a cosine."""
    warmup_epochs: Natural = 0
    """Epochs in which the learning rate rises to its full value."""
    milestones: Milestones = (60, 90, 110)
    """Epochs after which the learning rate decays; those beyond the last epoch do nothing."""
    decay: Positive = 0.1
    """Factor of the learning rate at each milestone."""
    batch_size: Count = 64
    """Clips per step, over all workers together."""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """How the learning rate follows the batch size, relative to the paper's 64."""
    label_smoothing: Half = 0.1
    """Probability spread over the other classes."""


class TrainConfig(Section):
    """How long, from which seed, and which epoch is kept."""

    num_epochs: Count = 120
    """Passes over the training clips."""
    seed: Natural = 0
    """Determines all draws, initial weights and dropout."""
    precision: Precision = "float32"
    """Arithmetic of the forward pass; auto is bf16 if the hardware supports it."""
    selection: Selection = "last"
    """Which epoch is kept: the last, the best on a validation part, or the best on the test set."""
    ema_decay: Fraction = 0.0
    """Score a running mean of the weights that keeps this share at each step; 0 disables it."""
    sync_batch_norm: Truth = False
    """Batch norm over the clips of all workers instead of each worker's own; GPUs only."""
    log: Annotated[Trackers, NotHashed()] = ()
    """Trackers that follow the run, or each trial of a search: tensorboard, mlflow, wandb."""


class EvaluateConfig(Section):
    """How a test clip is scored."""

    num_views: SmallCount = 5
    """Draws per test clip, whose logits are averaged."""
    turn_rad: NonNegative = 0.0
    """Views of a test clip turn about y by 0, this angle in radians, its negative, 0 and so on."""


class RecipeSections(Section):
    """The sections of a recipe, in order; `Recipe` adds what can be done with them."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


# Keys of older recipes and checkpoints, by their present names; both are in the same section.
RENAMED_KEYS = {"data.residence": "data.pose_device"}


def sections() -> dict[str, type[Section]]:
    """List the sections of a recipe by name, in order."""
    return {name: type(section) for name, section in RecipeSections()}


def dotted_keys() -> tuple[str, ...]:
    """List every key of a recipe as `section.key`."""
    return tuple(f"{name}.{key}" for name, kind in sections().items() for key in kind.model_fields)


def field_of(dotted_key: str) -> FieldInfo:
    """Return the type, default and help of a key, which must exist."""
    section, _, key = dotted_key.partition(".")
    return sections()[section].model_fields[key]
