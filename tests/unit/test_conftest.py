"""What tests/conftest.py sets for the whole suite."""

from ..conftest import SHARES_A_FIXTURE


def test_the_cores_are_chosen_before_xdist_reads_the_option(pytestconfig):
    """Else the whole suite runs in one process, without a message."""
    called = [each.plugin_name for each in pytestconfig.hook.pytest_cmdline_main.get_hookimpls()]
    ours = next(position for position, name in enumerate(called) if name.endswith("conftest.py"))
    assert ours > called.index("xdist")  # the last is called first


def test_files_that_share_a_fixture_exist(pytestconfig):
    """One that was renamed would silently build its fixture in every process."""
    missing = [path for path in SHARES_A_FIXTURE if not (pytestconfig.rootpath / path).is_file()]
    assert not missing
