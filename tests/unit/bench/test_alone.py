"""Processes beside Ray: what they measure, and what is told where one dies."""

import pytest

from sgnray.bench.alone import measure_alone
from sgnray.errors import SgnError


def test_every_process_tells_every_epoch_but_the_first(tiny_recipe, tiny_folder):
    rates = measure_alone(tiny_recipe, tiny_folder, num_processes=1, num_threads=1)
    assert [len(epochs) for epochs in rates] == [tiny_recipe.train.num_epochs - 1]
    assert min(rates[0]) > 0


def test_a_process_that_dies_is_one_error(tiny_recipe, tmp_path, capfd):
    with pytest.raises(SgnError, match=r"died: .*there is no such dataset") as caught:
        measure_alone(tiny_recipe, tmp_path / "nowhere", num_processes=1, num_threads=1)
    assert caught.value.where.startswith("process ")
    assert capfd.readouterr().err == ""
