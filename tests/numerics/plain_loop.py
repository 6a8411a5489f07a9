"""The paper's recipe as a minimal loop around SGN, a reference for the accuracy of `sgn train`.

    python tests/numerics/plain_loop.py data/nwucla --epochs 60 --seeds 0 1 2 > plain.jsonl

Nothing of sgnray's training, sampling or evaluation is used, only its model and a prepared dataset
of clips with one body: one Python call per clip, numpy's global generator, torch's Adam. Prints one
line of JSON per seed. Legend: B clips, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from sgnray.model import SGN

NUM_SEGMENTS = 20
NUM_VIEWS = 5
BATCH_SIZE = 64
MILESTONES = (60 / 120, 90 / 120, 110 / 120)
# A quarter of the arithmetic, for many seeds in little time.
HALF_WIDTHS = {
    "embedding_width": 32,
    "affinity_width": 128,
    "graph_widths": (64, 128, 128),
    "frame_width": 256,
}


def load_clips(dataset_dir):
    """Return (poses, label, camera) of every clip, the poses as (L, V, 3)."""
    classes = json.loads((dataset_dir / "dataset.json").read_text())["class_names"]
    table = pa.ipc.open_file(pa.memory_map(str(dataset_dir / "clips.arrow"))).read_all()
    clips = []
    for row in table.select(["poses", "label", "camera"]).to_pylist():
        poses = np.array(row["poses"], dtype=np.float32)
        clips.append((poses.reshape(len(poses), -1, 3), row["label"], row["camera"]))
    return clips, len(classes)


def sample(poses_LVC, num_segments=NUM_SEGMENTS):
    """Draw one pose from each of T windows of L // T poses; pad short clips with zero poses."""
    length, num_joints, _ = poses_LVC.shape
    if length < num_segments:
        padding = np.zeros((num_segments - length, num_joints, 3), dtype=np.float32)
        return np.concatenate([poses_LVC, padding])
    width = length // num_segments
    offsets = np.random.randint(width, size=num_segments)
    return poses_LVC[np.arange(num_segments) * width + offsets]


def rotate(joints_TVC, limit_rad):
    """Turn a clip about x, y and z by angles drawn uniformly within the limit."""
    x, y, z = np.random.uniform(-limit_rad, limit_rad, size=3)
    about_x = [[1, 0, 0], [0, math.cos(x), math.sin(x)], [0, -math.sin(x), math.cos(x)]]
    about_y = [[math.cos(y), 0, -math.sin(y)], [0, 1, 0], [math.sin(y), 0, math.cos(y)]]
    about_z = [[math.cos(z), math.sin(z), 0], [-math.sin(z), math.cos(z), 0], [0, 0, 1]]
    turn = np.array(about_z) @ np.array(about_y) @ np.array(about_x)
    return (joints_TVC @ turn.T).astype(np.float32)


def smoothed_loss(logits_BK, labels_B, smoothing=0.1):
    """Cross-entropy against 1 - smoothing for the label, the rest spread over the other classes."""
    num_classes = logits_BK.shape[1]
    targets_BK = torch.full_like(logits_BK, smoothing / (num_classes - 1))
    targets_BK.scatter_(1, labels_B[:, None], 1 - smoothing)
    return -(targets_BK * torch.log_softmax(logits_BK, dim=1)).sum(dim=1).mean()


def train_epoch(model, optimizer, clips, rotation_rad, batch_size=BATCH_SIZE):
    """Take the steps of one epoch; return its mean loss."""
    model.train()
    order = np.random.permutation(len(clips))
    losses = []
    for start in range(0, len(order) - batch_size + 1, batch_size):
        batch = [clips[index] for index in order[start : start + batch_size]]
        joints = np.stack(
            [rotate(sample(poses, model.num_frames), rotation_rad) for poses, _, _ in batch]
        )
        labels_B = torch.tensor([label for _, label, _ in batch])
        loss = smoothed_loss(model(torch.from_numpy(joints)), labels_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def recognize(model, clips, num_views=NUM_VIEWS):
    """Return the logits (N, K) of clips, summed over several draws of each."""
    model.eval()
    with torch.no_grad():
        views = (
            np.stack([sample(poses_LVC, model.num_frames) for _ in range(num_views)])
            for poses_LVC, _, _ in clips
        )
        return torch.stack([model(torch.from_numpy(view)).sum(dim=0) for view in views])


def count_correct(logits_NK, clips):
    """Count the clips whose largest logit is that of their label."""
    return int((logits_NK.argmax(dim=1) == torch.tensor([label for _, label, _ in clips])).sum())


def train(clips, num_classes, *, seed, num_epochs, rotation_rad, test_camera, widths, fused, log):
    """Train one seed on the other cameras; return the share of test clips recognized."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    train_clips = [clip for clip in clips if clip[2] != test_camera]
    test_clips = [clip for clip in clips if clip[2] == test_camera]
    num_joints = clips[0][0].shape[1]
    model = SGN(num_classes, num_joints=num_joints, num_frames=NUM_SEGMENTS, **widths)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4, fused=fused)
    milestones = [round(share * num_epochs) for share in MILESTONES]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    for _ in range(num_epochs):
        log(train_epoch(model, optimizer, train_clips, rotation_rad))
        schedule.step()
    return count_correct(recognize(model, test_clips), test_clips) / len(test_clips)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rotation", type=float, default=0.5)
    parser.add_argument("--test-camera", type=int, default=3)
    parser.add_argument("--fused", action="store_true", help="Adam's fused kernel, as sgn train")
    parser.add_argument("--half", action="store_true", help="half of the paper's widths")
    arguments = parser.parse_args()
    clips, num_classes = load_clips(arguments.dataset)
    for seed in arguments.seeds:
        start, losses = time.perf_counter(), []
        top1 = train(
            clips,
            num_classes,
            seed=seed,
            num_epochs=arguments.epochs,
            rotation_rad=arguments.rotation,
            test_camera=arguments.test_camera,
            widths=HALF_WIDTHS if arguments.half else {},
            fused=arguments.fused,
            log=losses.append,
        )
        result = {"seed": seed, "top1": top1, "loss": losses[-1], "epochs": arguments.epochs}
        print(json.dumps(result | {"minutes": (time.perf_counter() - start) / 60}), flush=True)


if __name__ == "__main__":
    main()
