"""README promises nothing that a file or a target does not hold."""

import json
import re

import pytest
from checkout import ROOT

from benchmarks.reports import readme

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_figures_are_those_of_the_results_file():
    assert readme.main(["--check"]) == 0, "out of date: run python -m benchmarks.reports.readme"


def test_other_figures_are_noticed():
    results = json.loads(readme.RESULTS.read_text(encoding="utf-8"))
    for record in results["records"]:
        for step in record["competitors"]["tcm_kernels"]["steps"].values():
            step["ratio_to_unit"]["median"] /= 2
    assert readme.updated(TEXT, results) != TEXT


def test_figures_without_a_place_are_an_error():
    results = json.loads(readme.RESULTS.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="markers for 'headline'"):
        readme.updated("no markers", results)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make (\w+)", TEXT))))
def test_make_has_the_target(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w/.-]+)\)", TEXT))))
def test_the_file_it_links_to_is_there(path):
    assert (ROOT / path).exists()
