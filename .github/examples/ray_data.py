"""Recognize the actions in a folder of recordings on a Ray cluster, with Ray Data.

python ray_data.py recordings/ runs/NAME predictions/

The folder and the run are on a disk that all nodes see. `predictions/` gets Parquet files with one
row for each recording: its path, the most likely action and its probability, or why it was not
used. It must not exist yet.
"""

import sys
from pathlib import Path

import pyarrow as pa
import ray

from sgnray import load_trained_model, predict_clips
from sgnray.data.skipped import Skipped
from sgnray.errors import InputError, UsageError
from sgnray.predict import Prediction

SCHEMA = pa.schema(
    {"path": pa.string(), "action": pa.string(), "probability": pa.float64(), "reason": pa.string()}
)


class Recognizer:
    """A worker that loads the model once."""

    def __init__(self, checkpoint: str) -> None:
        self.model = load_trained_model(checkpoint)

    def __call__(self, batch: dict) -> pa.Table:
        """Recognize a batch of recordings, given by their paths."""
        found = self.recognize(list(batch["path"]))
        best = [item.guesses[0] if isinstance(item, Prediction) else None for item in found]
        columns = {
            "path": [item.place for item in found],
            "action": [guess and guess.name for guess in best],
            "probability": [guess and guess.probability for guess in best],
            "reason": [getattr(item, "reason", None) for item in found],
        }
        return pa.table(columns, schema=SCHEMA)

    def recognize(self, paths: list[str]) -> list:
        """Recognize recordings together, or one by one if one of their paths cannot be used."""
        try:
            return list(predict_clips(paths, self.model))
        except (InputError, UsageError) as error:
            if len(paths) == 1:
                return [Skipped(paths[0], error.what, place=paths[0])]
            return [item for path in paths for item in self.recognize([path])]


folder, checkpoint, out = sys.argv[1:]
ray.init()
paths = sorted(map(str, Path(folder).resolve().rglob("*.skeleton")))
ray.data.from_items([{"path": path} for path in paths]).map_batches(
    Recognizer,
    fn_constructor_args=(str(Path(checkpoint).resolve()),),
    batch_size=64,
    compute=ray.data.ActorPoolStrategy(min_size=1, max_size=64),
    num_gpus=0.25 if ray.cluster_resources().get("GPU") else 0,
).write_parquet(str(Path(out).resolve()), mode="error")
