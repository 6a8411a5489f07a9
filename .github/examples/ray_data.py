"""Recognize the actions in a folder of recordings on a Ray cluster, with Ray Data.

python ray_data.py recordings/ runs/NAME predictions/

The folder and the run are on a disk that all nodes see. `predictions/` gets Parquet files with the
columns of `sgn predict --out`: a row for each recording, with its place and the likeliest actions,
or why it was not used. It must not exist yet.
"""

import sys
from pathlib import Path

import pyarrow as pa
import ray

from sgnray import load_trained_model, predict_clips
from sgnray.predict import build_table


class Recognizer:
    """A worker that loads the model once."""

    def __init__(self, checkpoint: str) -> None:
        self.model = load_trained_model(checkpoint)

    def __call__(self, batch: dict) -> pa.Table:
        """Recognize a batch of recordings, given by their paths."""
        return build_table(predict_clips(list(batch["path"]), self.model, skip_bad_paths=True))


folder, checkpoint, out = sys.argv[1:]
ray.init()
paths = sorted(map(str, Path(folder).resolve().rglob("*.skeleton")))
paths or sys.exit(f"there is no .skeleton file in {folder}")
ray.data.from_items([{"path": path} for path in paths]).map_batches(
    Recognizer,
    fn_constructor_args=(str(Path(checkpoint).resolve()),),
    batch_size=64,
    compute=ray.data.ActorPoolStrategy(min_size=1, max_size=64),
    num_gpus=0.25 if ray.cluster_resources().get("GPU") else 0,
).write_parquet(str(Path(out).resolve()), mode="error")
