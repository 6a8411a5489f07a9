"""The rank of this worker among several, and their few collective operations.

Plain torch.distributed: the launchers start the process group, and nothing here depends on Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class World:
    """The rank of this worker among `size` workers; by default the only one."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Read rank and size from torch's process group; a single worker if there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(rank=dist.get_rank(), size=dist.get_world_size())
        return cls()

    def slice_of(self, num_items: int) -> slice:
        """Return this rank's contiguous share of `num_items`; shares differ by one at most."""
        return slice(num_items * self.rank // self.size, num_items * (self.rank + 1) // self.size)

    def from_first(self, value: Any) -> Any:
        """Return rank 0's value on every rank. Collective: every rank must call this."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            value = box[0]
        return value

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place. Collective: every rank must call this."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """Average a tensor over all ranks, in place. Collective: every rank must call this."""
        return self.sum(tensor).div_(self.size) if self.size > 1 else tensor
