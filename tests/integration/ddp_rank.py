"""One rank of gloo groups of one, two and three: a gradient, a tally, an epoch and a resumed trial.

Run as a script: ddp_rank.py RANK FOLDER DATASET, with the recipe in FOLDER/recipe.yaml; rank 0
writes FOLDER/world<size>.pt.
"""

from __future__ import annotations

import gc
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist

from sgnray.config import load_recipe
from sgnray.data.pose_bank import PoseBank
from sgnray.data.protocols import split_clips
from sgnray.data.store import open_dataset
from sgnray.distributed.world import World
from sgnray.evaluate.score import score_clips
from sgnray.train.job import train_batches
from sgnray.train.loop import fit
from sgnray.train.state import TrainState
from sgnray.train.step import backward
from sgnray.tune.folds import Folds

CPU = torch.device("cpu")


def find_results(folder: Path, dataset_dir: Path) -> dict:
    """Collective: every rank must call this."""
    world = World.current()
    recipe, dataset = load_recipe(str(folder / "recipe.yaml")), open_dataset(dataset_dir)
    bank = PoseBank.of(dataset, CPU)
    split = split_clips(dataset.info.dataset, recipe.data.case, dataset.clips)
    state = TrainState.initial(recipe, dataset, device=CPU, world=world)
    with torch.no_grad():
        for layer in state.model.graph_layers:  # they start at zero and would hide the affinity
            layer.neighbours.weight.copy_(0.1 * layer.itself.weight)
    state.parallel.eval()  # batch norm sees each rank's own slice in training
    batch = next(train_batches(recipe, bank, split.train, world=world).epoch(0))
    backward(state, batch)
    tally = score_clips(state.model, bank, split.test, num_views=2, windows="paper", world=world)
    # Different statistics on each rank, then one average for all.
    state.model.position.norm.running_mean.fill_(float(world.rank))
    state.average_running_statistics()
    return {
        "gradients": {name: value.grad for name, value in state.model.named_parameters()},
        "tally": vars(tally),
        "slice": len(batch.labels_B),
        "mean_rank": state.model.position.norm.running_mean.mean().item(),
    }


def trained_epoch(folder: Path, dataset_dir: Path) -> list[dict]:
    """Train an epoch; return each rank's first dropout mask, and running statistics by moment.

    Collective: every rank must call this.
    """
    world = World.current()
    one_epoch = {"train.num_epochs": 1, "optim.milestones": (), "train.ema_decay": 0.5}
    recipe = load_recipe(str(folder / "recipe.yaml")).replacing(one_epoch)
    dataset = open_dataset(dataset_dir)
    bank = PoseBank.of(dataset, CPU)
    state = TrainState.initial(recipe, dataset, device=CPU, world=world)
    split = split_clips(dataset.info.dataset, recipe.data.case, dataset.clips)
    level, statistics, masks = state.model.frame_level, {}, []
    level.dropout.p = 0.5
    torch.nn.init.constant_(level.temporal_norm.bias, 100.0)  # only dropout makes zeros

    def keep(moment):
        models = state.model, state.averaged
        buffers = [buffer.flatten().double() for model in models for buffer in model.buffers()]
        statistics[moment] = torch.cat(buffers)

    def validate(state):
        keep("validate")
        return score_clips(
            state.scored_model, bank, split.test, num_views=1, windows="paper", world=world
        )

    # No rank has fewer than two clips.
    level.pointwise.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[0][:2, 0] > 0))
    batches = train_batches(recipe, bank, split.train, world=world)
    fit(state, batches, validate=validate, on_epoch=lambda _: keep("on_epoch"))
    of_ranks = [{"statistics": statistics, "mask": masks[0]}] * world.size
    if world.size > 1:
        dist.all_gather_object(of_ranks, of_ranks[0])
    return of_ranks


def resumed_epochs(folder: Path, dataset_dir: Path) -> int:
    """The epochs that all ranks have done after only rank 0 had the trial's state."""
    world = World.current()
    recipe, dataset = load_recipe(str(folder / "recipe.yaml")), open_dataset(dataset_dir)
    first, resumed = (Folds(recipe, dataset, world=world) for _ in range(2))
    next(first.train_remaining())
    resumed.restore(world.from_first(first.pack() if world.rank == 0 else None))
    return int(world.sum(torch.tensor(resumed.epoch)))


def main(rank: int, folder: Path, dataset_dir: Path) -> None:
    torch.set_num_threads(1)
    for size in range(max(1, rank + 1), 4):
        if size > 1:
            dist.init_process_group(
                "gloo",
                init_method=f"file://{folder}/rendezvous{size}",
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=400),
            )
        results = find_results(folder, dataset_dir)
        results["epoch_of_ranks"] = trained_epoch(folder, dataset_dir)
        results["resumed_epochs"] = resumed_epochs(folder, dataset_dir)
        if rank == 0:
            torch.save(results, folder / f"world{size}.pt")
        if size > 1:
            # DDP is in a reference cycle and keeps the group: without this, gloo's threads outlive
            # it and may release a tensor while the interpreter ends, which aborts the process.
            gc.collect()
            dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
