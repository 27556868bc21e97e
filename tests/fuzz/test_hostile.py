"""A slice of the fuzzer; `make fuzz` runs more of it."""

import hostile_data
import hostile_folders
import hostile_params
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(4))
def test_no_data_file_breaks_preprocess_or_import(tmp_path, seed):
    for case in range(40):
        folder = tmp_path / str(case)
        folder.mkdir()
        hostile_data.run(case, seed, folder)


def test_no_parameters_break_the_check(tmp_path):
    sound = hostile_params.prepare(tmp_path / "data")
    with hostile_params.workplace(tmp_path):
        outcomes = {hostile_params.run(case, 0, tmp_path, sound) for case in range(60)}
    assert outcomes == {"refused", "taken"}


def test_no_damaged_folder_is_another_model(tmp_path):
    sound = hostile_folders.prepare(tmp_path / "sound")
    outcomes = set()
    for case in range(40):
        folder = tmp_path / str(case)
        folder.mkdir()
        outcomes.add(hostile_folders.run(case, 0, folder, sound))
    assert "refused" in outcomes
