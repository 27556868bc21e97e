"""A slice of the fuzzer; `make fuzz` runs more of it."""

import hostile_data
import pytest


@pytest.mark.parametrize("seed", range(4))
def test_no_data_file_breaks_preprocess_or_import(tmp_path, seed):
    for case in range(40):
        folder = tmp_path / str(case)
        folder.mkdir()
        hostile_data.run(case, seed, folder)
