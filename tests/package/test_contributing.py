"""What CONTRIBUTING.md and docs/design.md name is there, and all environment variables are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkout import ROOT

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "docs/design.md").read_text(encoding="utf-8")
READING = re.compile(
    r"""(?:environ\.get\(|environ\[|getenv\(|is_set\()\s*"(\w+)"|"(\w+)" not in os\.environ"""
)
OF_OTHERS = {"WORLD_SIZE", "RANK", "LOCAL_RANK"}  # torchrun's, which sets them by itself


def _read_by_the_sources() -> set[str]:
    files = [
        ROOT / "setup.py",
        *(path for folder in ("tcm_kernels", "csrc") for path in (ROOT / folder).rglob("*")),
    ]
    texts = (
        path.read_text(encoding="utf-8")
        for path in files
        if path.suffix in (".py", ".h", ".cuh", ".cpp", ".cu")
    )
    return {a or b for text in texts for a, b in READING.findall(text)}


def _told() -> set[str]:
    table = CONTRIBUTING[CONTRIBUTING.index("## Environment variables") :]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([A-Z_]+)", cell)}


def test_all_environment_variables_that_are_read_are_told() -> None:
    read = _read_by_the_sources()
    assert len(read) > 10, "the pattern no longer finds them"
    assert sorted(read - _told() - OF_OTHERS) == []


def test_none_is_told_that_nothing_reads() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("tcm_kernels", "csrc", "tests")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".h", ".cpp") and path != Path(__file__)
    )
    sources += (ROOT / "setup.py").read_text(encoding="utf-8")
    assert [name for name in sorted(_told()) if name not in sources] == []


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make (\w[\w.]*)", CONTRIBUTING + DESIGN))))
def test_make_has_the_target(target: str) -> None:
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


PATHS = re.compile(r"`((?:csrc|tests|tcm_kernels|benchmarks|docs)/[\w/.*]*?[\w*]/?)`|\]\(([\w/.-]+)\)")


@pytest.mark.parametrize(
    ("page", "path"),
    sorted({("CONTRIBUTING.md", a or b) for a, b in PATHS.findall(CONTRIBUTING)})
    + sorted({("docs/design.md", a or b) for a, b in PATHS.findall(DESIGN)}),
)
def test_what_it_names_is_there(page: str, path: str) -> None:
    assert (
        any(ROOT.glob(path))
        if "*" in path
        else (ROOT / path).exists() or ((ROOT / page).parent / path).exists()
    )


def test_the_lint_of_a_commit_runs_the_tools_of_make_lint() -> None:
    hooks = set(
        re.findall(
            r"entry: \.venv/bin/([\w-]+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
        )
    )
    recipe = re.search(
        r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert recipe is not None
    assert hooks == set(re.findall(r"(?:-m |bin/)([\w-]+)", recipe[1]))


def test_the_workflow_runs_what_everybody_can_run() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert re.findall(r"- run: (\S+)", workflow) == [".ci/run"]
