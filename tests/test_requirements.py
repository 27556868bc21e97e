"""The locked versions and the list of their hashes are of one mind."""

import re

from imports import ROOT


def test_every_locked_package_but_torch_has_a_hash() -> None:
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8").split()
    lines = (ROOT / "requirements.hashes").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"(\S+==\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    assert all(found), "not of the form name==version --hash=sha256:…"

    def plain(each: str) -> str:
        name, _, version = each.partition("==")
        return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"

    hashed = {plain(match[1]) for match in found if match}
    assert hashed == {plain(each) for each in locked if not each.startswith("torch==")}, "run `make lock`"
