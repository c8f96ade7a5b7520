"""The list of planted mistakes follows the sources. `make planted` plants them: see plant.py."""

import pytest
from plant import ROOT, mistakes


@pytest.mark.parametrize("mistake", mistakes(), ids=lambda mistake: mistake["what"])
def test_a_mistake_can_be_planted(mistake):
    assert set(mistake) == {"what", "file", "old", "new", "test"}
    assert (ROOT / mistake["file"]).read_text().count(mistake["old"]) == 1
    assert mistake["new"] != mistake["old"]
    test = ROOT / mistake["test"].split()[0].split("::")[0]
    assert test.exists(), f"no test {test}"
