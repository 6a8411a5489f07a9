"""The names of the metrics: the same in JSON, Ray, Tune, the trackers and on the screen."""

from __future__ import annotations

from collections.abc import Mapping

Metrics = Mapping[str, float]

TRAIN_LOSS = "train/loss"
TRAIN_TOP1 = "train/top1"
VAL_LOSS = "val/loss"
VAL_TOP1 = "val/top1"
VAL_TOP5 = "val/top5"
LEARNING_RATE = "lr"
EPOCH_S = "time/epoch_s"
WAIT_S = "time/wait_s"
TEST_LOSS = "test/loss"
TEST_TOP1 = "test/top1"
TEST_TOP5 = "test/top5"
CLIPS_PER_S = "speed/clips_per_s"
