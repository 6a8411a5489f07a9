"""The precision that `auto` becomes."""

import pytest
import torch

from sgnray.distributed.precision import choose_precision


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "float32")])
def test_auto_is_bf16_only_where_a_gpu_does_not_emulate_it(monkeypatch, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or has_bf16,
    )
    assert choose_precision("auto", "cuda") == expected
