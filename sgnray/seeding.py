"""Randomness by meaning: a draw depends on (seed, purpose, epoch, clip) and on nothing else.

Whole tables are drawn at once and indexed by clip, so that every rank, device and world size,
and a resumed run, sees the same draws without sharing any generator state.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

FloatTable = npt.NDArray[np.float32]
IntTable = npt.NDArray[np.int64]


def uniform(seed: int, purpose: str, epoch: int, shape: tuple[int, ...]) -> FloatTable:
    """Draw uniform float32 numbers in [0, 1); row i does not depend on how many rows there are."""
    return _generator(seed, purpose, epoch).random(shape, dtype=np.float32)


def normal(seed: int, purpose: str, epoch: int, shape: tuple[int, ...]) -> FloatTable:
    """Draw float32 numbers of mean 0 and standard deviation 1, row by row like `uniform`."""
    return _generator(seed, purpose, epoch).standard_normal(shape, dtype=np.float32)


def beta(seed: int, purpose: str, epoch: int, num_items: int, strength: float) -> FloatTable:
    """Draw float32 numbers from Beta(strength, strength), row by row like `uniform`."""
    drawn = _generator(seed, purpose, epoch).beta(strength, strength, num_items)
    return drawn.astype(np.float32)


def permutation(seed: int, purpose: str, epoch: int, num_items: int) -> IntTable:
    """Draw one random order of `num_items` items."""
    return _generator(seed, purpose, epoch).permutation(num_items)


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Derive a 63-bit seed, for generators that we do not own (torch's global one)."""
    state = np.random.SeedSequence([seed, _word(purpose), *numbers]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _generator(seed: int, purpose: str, epoch: int) -> np.random.Generator:
    # Philox is counter-based: cheap to create, and the same on every platform.
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, _word(purpose), epoch]))
    )


def _word(purpose: str) -> int:
    return zlib.crc32(purpose.encode())
