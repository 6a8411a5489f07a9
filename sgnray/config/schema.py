"""What a recipe may say: every key, its type and its default, which is the paper's NTU60 CS run.

The text under a key is its help: `sgn train --dry-run` prints it above the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


@dataclass(frozen=True)
class Says:
    """What a value must be, in the words of an error message: 'must be <words>, got ...'."""

    words: str


def _tuple_of_list(value: object) -> object:
    # YAML and JSON know lists only, and strict validation would refuse them for a tuple.
    return tuple(value) if isinstance(value, list) else value


def _strictly_ascending(epochs: tuple[int, ...]) -> tuple[int, ...]:
    if list(epochs) != sorted(set(epochs)):
        raise ValueError("not ascending")
    return epochs


Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$"), Says("a name such as ntu60")]
CaseName = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$"), Says("the name of a case, such as cs")
]
Count = Annotated[int, Field(gt=0), Says("a positive integer")]
Natural = Annotated[int, Field(ge=0), Says("an integer of at least 0")]
Positive = Annotated[float, Field(gt=0), Says("a positive number")]
NonNegative = Annotated[float, Field(ge=0), Says("a number of at least 0")]
Fraction = Annotated[float, Field(ge=0, lt=1), Says("a number from 0 to below 1")]
Half = Annotated[float, Field(ge=0, le=0.5), Says("a number from 0 to 0.5")]
Widths = Annotated[
    tuple[Annotated[int, Field(gt=0)], ...],
    BeforeValidator(_tuple_of_list),
    Field(min_length=3, max_length=3),
    Says("a list of three positive integers, like [128, 256, 256]"),
]
Milestones = Annotated[
    tuple[Annotated[int, Field(gt=0)], ...],
    BeforeValidator(_tuple_of_list),
    AfterValidator(_strictly_ascending),
    Says("a list of ascending positive integers, like [60, 90, 110]"),
]


class Section(BaseModel):
    """One block of a recipe: frozen, nothing unknown, nothing converted but integer to float."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class DataConfig(Section):
    """Which clips, and how a clip becomes a fixed number of poses."""

    dataset: Word = "ntu60"
    """Dataset the recipe is made for: ntu60, ntu120, nwucla, synth, or one of your own."""
    case: CaseName = "cs"
    """Which clips test: held-out subjects (cs, csub), cameras (cv), setups (cset), or a split."""
    num_segments: Count = 20
    """Poses per clip, one drawn from each of this many equal windows."""
    rotation_rad: NonNegative = 0.3
    """Training clips are rotated by up to this angle, in radians, about each axis."""


class ModelConfig(Section):
    """Widths of SGN."""

    embedding_width: Count = 64
    """Channels of the dynamics, of the joint type and of the frame index."""
    affinity_width: Count = 256
    """Channels in which two joints are compared."""
    graph_widths: Widths = (128, 256, 256)
    """Output channels of the three graph layers."""
    frame_width: Count = 512
    """Channels that are pooled over time and classified."""
    dropout: Fraction = 0.2
    """Share of frame-level channels that are dropped in training."""


class OptimConfig(Section):
    """Adam, its schedule and its loss."""

    learning_rate: Positive = 1e-3
    """Learning rate of the first epoch."""
    weight_decay: NonNegative = 1e-4
    """L2 penalty, added to the gradient."""
    milestones: Milestones = (60, 90, 110)
    """Epochs after which the learning rate decays; those beyond the last epoch do nothing."""
    decay: Positive = 0.1
    """Factor of the learning rate at each milestone."""
    batch_size: Count = 64
    """Clips per step, over all workers together."""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """How the learning rate follows the batch size, counted from the paper's 64."""
    label_smoothing: Half = 0.1
    """Probability spread over the other classes."""


class TrainConfig(Section):
    """How long, from which seed, and which epoch is kept."""

    num_epochs: Count = 120
    """Passes over the training clips."""
    seed: Natural = 0
    """All draws, initial weights and dropout follow from it."""
    precision: Literal["float32", "bf16", "auto"] = "float32"
    """Arithmetic of the forward pass; auto is bf16 where the hardware has it."""
    selection: Literal["last", "validation", "test"] = "last"
    """Which epoch is kept: the last, the best on a validation part, or the best on the test set."""


class EvaluateConfig(Section):
    """How a test clip is scored."""

    num_views: Count = 5
    """Draws per test clip, whose logits are averaged."""


class Recipe(Section):
    """Everything that decides a training run, but for the dataset itself and the machines."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
