"""What `sgn train` and `sgn tune` work on when they were not told everything."""

import json
from pathlib import Path

import pytest
import yaml

from sgnray.cli.choices import choose_dataset, choose_recipe, first_case, only_case
from sgnray.config import load_recipe, to_dict
from sgnray.data.store import DatasetInfo, write_info
from sgnray.errors import UsageError


@pytest.fixture
def put_dataset(tmp_path):
    """Put a dataset.json where a dataset would be; choosing reads no more than that."""

    def put(dataset, folder=None):
        path = tmp_path / (folder or f"data/{dataset}")
        path.mkdir(parents=True)
        info = DatasetInfo(1, dataset, "ntu25", ("a", "b"), 1, 1, 0, {}, "sha256:00")
        write_info(path, info)
        return path

    return put


def test_dry_run_prints_a_recipe_that_reads_back(sgn, tmp_path):
    told = sgn("train", "--recipe", "ntu60-cv", "--dry-run", "optim.batch_size=8")
    assert (told.code, told.err) == (0, "")
    Path("mine.yaml").write_text(told.out)
    assert load_recipe("mine.yaml") == load_recipe("ntu60-cv", ["optim.batch_size=8"])
    content = yaml.safe_load(told.out)
    assert content["optim"]["batch_size"] == 8


def test_dry_run_as_json(sgn):
    told = sgn("train", "--recipe", "ntu60-cv", "--dry-run", "--json")
    assert json.loads(told.out) == to_dict(load_recipe("ntu60-cv"))


def test_a_case_takes_the_recipe_of_the_one_dataset(sgn, put_dataset):
    put_dataset("ntu60")
    told = sgn("train", "--case", "xview", "--dry-run", "--json")
    assert json.loads(told.out) == to_dict(load_recipe("ntu60-cv"))


def test_the_only_case_need_not_be_named(sgn, put_dataset):
    put_dataset("nwucla")
    told = sgn("train", "--dry-run", "--json")
    assert json.loads(told.out) == to_dict(load_recipe("nwucla-cv"))


def test_several_cases_are_listed(sgn, put_dataset):
    put_dataset("ntu60")
    told = sgn("train", "--dry-run")
    assert (told.code, told.err) == (
        2,
        "error: ntu60 has several cases: cs, cv\n"
        "  where  --case is missing\n"
        "  now    name one, for example: --case cs\n",
    )


def test_an_unknown_case_lists_those_of_this_dataset(sgn, put_dataset):
    put_dataset("ntu120")
    told = sgn("train", "--case", "cv", "--dry-run")
    assert (told.code, told.err) == (
        2,
        "error: ntu120 has no case 'cv'\n  where  --case cv\n  now    choose one of csub, cset\n",
    )


def test_case_and_override_must_agree(sgn, put_dataset):
    put_dataset("ntu60")
    told = sgn("train", "--case", "cs", "data.case=cv", "--dry-run")
    assert (told.code, told.err) == (
        2,
        "error: --case cs and data.case=cv contradict each other\n"
        "  where  overrides\n"
        "  now    leave out the override, or ask for --case cv\n",
    )


def test_several_datasets_are_listed(sgn, put_dataset):
    put_dataset("ntu60")
    put_dataset("synth")
    told = sgn("train", "--case", "cs", "--dry-run")
    assert told.code == 2
    assert told.err == (
        "error: there are 2 prepared datasets\n"
        "  data/ntu60  ntu60\n"
        "  data/synth  synth\n"
        "  where  data\n"
        "  now    name one, for example --data data/ntu60\n"
    )


def test_data_is_a_dataset_or_the_folder_of_one(put_dataset, tmp_path):
    path = put_dataset("ntu60", "elsewhere/mine")
    assert choose_dataset(path) == path
    assert choose_dataset(tmp_path / "elsewhere") == path


def test_a_recipe_finds_its_dataset_among_several(put_dataset):
    put_dataset("ntu60")
    put_dataset("synth")
    assert choose_dataset(None, name="synth") == Path("data/synth")
    with pytest.raises(UsageError, match="there are 2 prepared datasets"):
        choose_dataset(None)


def test_tuning_takes_the_first_case(put_dataset):
    put_dataset("ntu60")
    recipe = choose_recipe(None, None, data=None, default_case=first_case)
    assert recipe == load_recipe("ntu60-cs")
    with pytest.raises(UsageError, match="several cases"):
        choose_recipe(None, None, data=None, default_case=only_case)
