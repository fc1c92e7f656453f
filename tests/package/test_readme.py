"""README promises nothing that a file or a target does not hold."""

import re

import pytest
from checkout import ROOT

from benchmarks.reports import readme

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_figures_are_those_of_the_results_file():
    assert readme.main(["--check"]) == 0, "out of date: run python -m benchmarks.reports.readme"


def test_other_figures_are_noticed(tmp_path, capsys):
    document = tmp_path / "README.md"
    changed, count = re.subn(r"(forward\+backward-->)0\.18<", r"\g<1>0.09<", TEXT)
    assert count == 1
    document.write_text(changed, encoding="utf-8")
    assert readme.main(["--check", str(document)]) == 1
    assert "is '0.09', the files have '0.18'" in capsys.readouterr().err


def test_every_figure_of_speed_and_memory_is_quoted_from_a_file():
    """Words in between are free, a number with a unit of ours is not."""
    without_quotes = re.sub(r"<!--bench .*?<!--/bench-->", "", TEXT, flags=re.DOTALL)
    assert not re.findall(r"\d (?:U|GB|ms|µs)\b", without_quotes)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make (\w+)", TEXT))))
def test_make_has_the_target(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w/.-]+)\)", TEXT))))
def test_the_file_it_links_to_is_there(path):
    assert (ROOT / path).exists()
