"""What the precision `auto` means: bf16 if the hardware supports it, else float32.

- `without_auto` replaces it in a recipe, by what one of the others returns.
- `choose_precision` asks this machine: for training without Ray, and for `sgn bench`.
- `ask_precision` asks one worker of a connected cluster: for training on Ray, and for a search.
- `resolve_for_workers` does either, before workers start: for several seeds, and for predictions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sgnray.config import Recipe
from sgnray.config.schema import Precision
from sgnray.distributed.cluster import connected, is_at_hand, own_address
from sgnray.distributed.device import choose_device
from sgnray.distributed.pool import run_on_actors
from sgnray.distributed.resources import Resources, WorkerRequest, gpus_per_actor


def without_auto(recipe: Recipe, choose: Callable[[], Precision]) -> Recipe:
    """Replace the precision `auto` of a recipe; `choose` is called only for that."""
    if recipe.train.precision != "auto":
        return recipe
    return recipe.replacing({"train.precision": choose()})


def resolve_for_workers(
    device: str, address: str | None, num_workers: int, request: WorkerRequest | None
) -> tuple[str, Precision]:
    """Decide on the device of workers that start later, and what the precision `auto` is on it.

    Once for all of them, since nodes may differ; 0 workers are this process. May wait for a node,
    as `ask_precision` does.
    """
    request = request or WorkerRequest()
    if num_workers == 0 or not is_at_hand(address):  # they start on this machine
        device_type = "cpu" if request.num_gpus == 0 else choose_device(device).type
        return device, choose_precision(device_type)
    # The command announces the cluster when it connects again.
    with connected(address, num_workers=num_workers, is_announced=False) as resources:
        device_type = "cuda" if gpus_per_actor(device, resources, request) else "cpu"
        return device_type, ask_precision(device_type, resources, request)


def ask_precision(device_type: str, resources: Resources, request: WorkerRequest) -> Precision:
    """Resolve `auto` for the workers' hardware; on an existing cluster, on one of its workers.

    May wait for a node; ClusterError if that takes longer than the request allows.
    """
    if resources.is_local:
        return choose_precision(device_type)
    (chosen,) = run_on_actors(
        _choose_on_worker,
        [""],
        workers=1,
        address=own_address(None),
        now="rerun the same command; all machines need the same sgnray",
        device=device_type,
        request=request,
    )
    return chosen


def _choose_on_worker(_: str, device_type: str) -> Precision:
    return choose_precision(device_type)


def choose_precision(device_type: str) -> Precision:
    """Return bf16 if the hardware of this machine supports it, else float32."""
    if device_type == "cuda":
        # Older GPUs emulate it, slower than float32.
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        has_bf16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16" if has_bf16 else "float32"
