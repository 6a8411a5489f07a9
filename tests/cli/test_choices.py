"""Which dataset and recipe `sgn train` and `sgn tune` choose when none is given."""

import json
from pathlib import Path

import pytest
import yaml

from sgnray.cli.choices import choose_dataset, choose_recipe, read_class_list
from sgnray.config import load_recipe, to_dict
from sgnray.data.info import DatasetInfo, write_info
from sgnray.data.skeleton import NTU25
from sgnray.errors import UsageError


@pytest.fixture
def put_dataset(tmp_path):
    """Write a dataset.json where a dataset would be; choosing reads nothing else."""

    def put(dataset, folder=None, splits=None):
        path = tmp_path / (folder or f"data/{dataset}")
        path.mkdir(parents=True)
        info = DatasetInfo(
            format_version=2,
            dataset=dataset,
            skeleton=NTU25,
            class_names=("a", "b"),
            num_clips=1,
            num_poses=1,
            num_skipped=0,
            source={},
            checksum=f"sha256:{0:064}",
            splits=splits,
        )
        write_info(path, info)
        return path

    return put


def test_dry_run_prints_a_recipe_that_reads_back(sgn, tmp_path):
    done = sgn("train", "--recipe", "ntu60-cv", "--dry-run", "optim.batch_size=8")
    assert (done.code, done.err) == (0, "")
    Path("mine.yaml").write_text(done.out)
    assert load_recipe("mine.yaml") == load_recipe("ntu60-cv", ["optim.batch_size=8"])
    content = yaml.safe_load(done.out)
    assert content["optim"]["batch_size"] == 8


def test_dry_run_as_json(sgn):
    done = sgn("train", "--recipe", "ntu60-cv", "--dry-run", "--json")
    assert json.loads(done.out) == to_dict(load_recipe("ntu60-cv"))


def test_a_case_takes_the_recipe_of_the_one_dataset(sgn, put_dataset):
    put_dataset("ntu60")
    done = sgn("train", "--case", "xview", "--dry-run", "--json")
    assert json.loads(done.out) == to_dict(load_recipe("ntu60-cv"))


def test_the_only_case_need_not_be_named(sgn, put_dataset):
    put_dataset("nwucla")
    done = sgn("train", "--dry-run", "--json")
    assert json.loads(done.out) == to_dict(load_recipe("nwucla-cv"))


def check_error(done, what, where):
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {what}")
    assert f"\n  where  {where}\n  now    " in done.err


def test_several_cases_are_listed(sgn, put_dataset):
    put_dataset("ntu60")
    done = sgn("train", "--dry-run")
    check_error(done, "ntu60 has several cases: cs, cv", "--case is missing")


def test_an_unknown_case_lists_those_of_this_dataset(sgn, put_dataset):
    put_dataset("ntu120")
    done = sgn("train", "--case", "cv", "--dry-run")
    check_error(done, "ntu120 has no case 'cv'", "--case cv")
    assert "csub, cset" in done.err


def fixed(*cases):
    return {case: {"train": ["a"], "test": ["b"]} for case in cases}


def test_a_dataset_of_ones_own_takes_the_recipe_for_all_others(sgn, put_dataset):
    put_dataset("my-kinect", splits=fixed("hand", "people"))
    done = sgn("train", "--case", "people", "--dry-run", "--json")
    recipe = load_recipe("custom", ["data.dataset=my-kinect", "data.case=people"])
    assert json.loads(done.out) == to_dict(recipe)
    done = sgn("train", "--dry-run")
    assert "my-kinect has several cases: hand, people" in done.err


@pytest.mark.parametrize("command", ["train", "tune"])
def test_a_recipe_for_any_data_takes_the_dataset_and_the_case(sgn, put_dataset, command):
    put_dataset("ntu60")
    put_dataset("my-kinect", splits=fixed("hand", "people"))
    put_dataset("one", splits=fixed("hand"))

    def choose(*arguments):
        if command == "train":
            return sgn("train", "--recipe", "custom-best", *arguments)
        return sgn("tune", "--recipe", "custom-best", "--trials", "1", *arguments)

    done = choose("--data", "data/my-kinect")
    check_error(done, "my-kinect has several cases: hand, people", "--case is missing")
    done = choose("--case", "people")
    assert "there are 3 prepared datasets" in done.err
    done = choose("--data", "data/my-kinect", "--case", "peopl")
    assert "my-kinect has no case 'peopl'" in done.err
    done = choose("--data", "data/my-kinect", "--case", "people", "data.case=hand")
    check_error(done, "--case people and data.case=hand contradict each other", "overrides")
    done = choose("--data", "data/ntu60", "--case", "cs", "data.dataset=a", "data.case=b")
    check_error(
        done, "--case and --recipe cannot be combined: this", "--case cs --recipe custom-best"
    )


@pytest.mark.parametrize(
    ("arguments", "dataset", "case"),
    [
        (["--data", "data/my-kinect", "--case", "people"], "my-kinect", "people"),
        (["--data", "data/one"], "one", "hand"),
        (["data.dataset=one"], "one", "hand"),
        (["data.dataset=my-kinect", "--case", "hand"], "my-kinect", "hand"),
        (["--data", "data/my-kinect", "data.case=people"], "my-kinect", "people"),
        (["data.dataset=elsewhere", "data.case=any"], "elsewhere", "any"),
        ([], "custom", "custom"),  # a dry run needs no dataset, and there are two
    ],
)
def test_the_short_forms_of_a_recipe_for_any_data(sgn, put_dataset, arguments, dataset, case):
    put_dataset("my-kinect", splits=fixed("hand", "people"))
    put_dataset("one", splits=fixed("hand"))
    done = sgn("train", "--recipe", "custom-best", "--dry-run", "--json", *arguments)
    expected = load_recipe("custom-best", [f"data.dataset={dataset}", f"data.case={case}"])
    assert json.loads(done.out) == to_dict(expected)


@pytest.mark.parametrize(
    ("arguments", "dataset", "case"),
    [
        ([], "custom", "people"),
        (["data.dataset=custom"], "custom", "people"),
        (["--data", "data/mine", "data.case=custom"], "mine", "custom"),
        (["--data", "data/mine", "--case", "other"], "mine", "other"),
    ],
)
def test_a_dataset_and_a_case_may_be_called_custom(sgn, put_dataset, arguments, dataset, case):
    put_dataset("custom", splits=fixed("people"))
    put_dataset("mine", splits=fixed("custom", "other"))
    done = sgn("train", "--recipe", "custom-best", "--dry-run", "--json", *arguments)
    chosen = json.loads(done.out)["data"]
    assert (chosen["dataset"], chosen["case"]) == (dataset, case)


def test_the_recipe_of_a_dataset_called_custom_takes_no_other(sgn, put_dataset):
    put_dataset("mine", splits=fixed("cs"))
    done = sgn("train", "--recipe", "custom-best", "data.case=cs", "--dry-run", "--json")
    assert json.loads(done.out)["data"]["dataset"] == "custom"


def test_the_only_case_of_ones_own_need_not_be_named(sgn, put_dataset):
    put_dataset("my-kinect", splits=fixed("hand"))
    done = sgn("train", "--dry-run", "--json")
    assert json.loads(done.out)["data"]["case"] == "hand"


def test_a_source_that_fixes_the_papers_case_takes_its_recipe(sgn, put_dataset):
    put_dataset("ntu60", splits=fixed("cv"))
    done = sgn("train", "--case", "xview", "--dry-run", "--json")
    assert json.loads(done.out) == to_dict(load_recipe("ntu60-cv"))
    done = sgn("train", "--case", "cs", "--dry-run")
    check_error(done, "ntu60 has no case 'cs'; its source defines the split", "--case cs")


@pytest.mark.parametrize("case", [(), ("--case", "cs")])
def test_a_word_that_is_no_override_is_named_without_a_dataset(sgn, case):
    done = sgn("train", *case, "nonsense")
    assert done.code == 2
    assert "nonsense (command line)  is not section.key=value, like optim.batch_size=32" in done.err


def test_a_dataset_without_splits_says_what_it_needs(sgn, put_dataset):
    put_dataset("my-kinect")
    for arguments in ([], ["--case", "cs"]):
        done = sgn("train", "--dry-run", *arguments)
        assert done.code == 1
        assert "prepare it again with --overwrite; if it has no case then, add `splits`" in done.err


def test_case_and_override_must_agree(sgn, put_dataset):
    put_dataset("ntu60")
    done = sgn("train", "--case", "cs", "data.case=cv", "--dry-run")
    check_error(done, "--case cs and data.case=cv contradict each other", "overrides")


def test_several_datasets_are_listed(sgn, put_dataset):
    put_dataset("ntu60")
    put_dataset("synth")
    done = sgn("train", "--case", "cs", "--dry-run")
    problems = "\n  data/ntu60  ntu60\n  data/synth  synth"
    check_error(done, f"there are 2 prepared datasets{problems}", "data")


def test_data_is_a_dataset_or_the_folder_of_one(put_dataset, tmp_path):
    path = put_dataset("ntu60", "elsewhere/mine")
    assert choose_dataset(str(path)) == path
    assert choose_dataset(str(tmp_path / "elsewhere")) == path


def test_a_recipe_finds_its_dataset_among_several(put_dataset):
    put_dataset("ntu60")
    put_dataset("synth")
    assert choose_dataset(None, name="synth") == Path("data/synth")
    with pytest.raises(UsageError, match="there are 2 prepared datasets"):
        choose_dataset(None)


def test_tuning_takes_the_first_case(put_dataset):
    put_dataset("ntu60")
    recipe = choose_recipe(None, None, data=None, default_case="first")
    assert recipe == load_recipe("ntu60-cs")
    with pytest.raises(UsageError, match="several cases"):
        choose_recipe(None, None, data=None, default_case="only")


def test_a_list_of_classes_may_have_a_byte_order_mark(tmp_path):
    """Editors on Windows write one."""
    path = tmp_path / "classes.txt"
    path.write_bytes(b"\xef\xbb\xbfclap\r\nwave\r\n")
    assert read_class_list(path) == ("clap", "wave")


def test_all_wrong_lines_of_a_list_of_classes_are_named(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("clap\n\nwave\nclap\n")
    with pytest.raises(UsageError, match="the list of classes has 2 problems") as caught:
        read_class_list(path)
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("line 2", "has an empty line"),
        ("line 4", "repeats line 1"),
    ]
