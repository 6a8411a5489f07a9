"""The device of a process, what `auto` becomes, and what is said of a GPU that does not serve."""

import logging
import warnings

import pytest
import torch

from sgnray.distributed import device as module
from sgnray.distributed.device import choose_device, explained_gpu_memory
from sgnray.distributed.pool import _Worker
from sgnray.distributed.precision import choose_precision
from sgnray.distributed.resources import Resources, WorkerRequest, use_gpu
from sgnray.errors import ClusterError, SgnError, UsageError


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "float32")])
def test_auto_is_bf16_only_where_a_gpu_does_not_emulate_it(monkeypatch, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or has_bf16,
    )
    assert choose_precision("cuda") == expected


@pytest.fixture
def old_driver(monkeypatch):
    """A GPU whose driver is too old: torch warns once, and has no GPU."""
    warned = []

    def is_available():
        if not warned:
            warned.append(True)
            warnings.warn("CUDA initialization: the driver is too old\nmore", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(module, "_gpu_faults", [])


def test_a_gpu_that_torch_cannot_use_is_not_passed_over_in_silence(old_driver, caplog):
    with caplog.at_level(logging.WARNING, logger="sgnray"):
        assert choose_device("auto") == choose_device("auto") == torch.device("cpu")
    assert caplog.text.count("the driver is too old") == 1
    with pytest.raises(UsageError, match="the driver is too old"):
        choose_device("cuda")


def test_a_worker_whose_torch_cannot_use_its_gpu_says_so(old_driver):
    error = _Worker("cuda").run([], "job")
    assert isinstance(error, ClusterError)
    assert "a GPU that its torch cannot use: CUDA initialization: the driver" in error.what


def test_a_worker_with_a_gpu_computes_in_float32_from_its_first_job_on(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen.append)
    monkeypatch.setattr("ray.get", lambda work: work)
    worker = _Worker("cuda")

    def work(job, device):
        return job, device, list(chosen)

    for job in (1, 2):
        assert worker.run([work], job) == (job, "cuda", ["highest"])


def test_a_torch_for_cpus_beside_a_gpu_is_named(monkeypatch, tmp_path, caplog):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(module, "_NVIDIA_DEVICE", tmp_path / "nvidia0")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(module, "_gpu_faults", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_device("auto") == torch.device("cpu")
    assert caplog.text == ""  # the user hides it
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert choose_device("auto") == torch.device("cpu")
    assert "built for CPUs only" in caplog.text


def test_a_new_ray_takes_no_gpu_that_torch_cannot_use(old_driver):
    counted = Resources(8, 1, is_local=True)
    assert not use_gpu("auto", counted, WorkerRequest())
    with pytest.raises(UsageError, match="the driver is too old"):
        use_gpu("cuda", counted, WorkerRequest())
    # The nodes of a cluster may have other drivers than this machine.
    assert use_gpu("auto", Resources(8, 1, is_local=False), WorkerRequest())


def test_a_full_gpu_is_no_bug():
    with pytest.raises(SgnError, match="no memory left") as caught, explained_gpu_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
    assert caught.value.where == "CUDA out of memory. Tried to allocate 2 GiB"
    assert "optim.batch_size" in caught.value.now
