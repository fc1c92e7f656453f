"""Configurations of the study on real data sets, made small enough for miniature folders."""

from __future__ import annotations

from pathlib import Path

import miniature_data_sets as miniature

from benchmarks.quality.real import config

MINIATURE = {
    "backbone": '"small"', "pretrained": "false", "embedding_size": "8", "image_size": "16", "resize": "18",
    "classes_per_batch": "3", "images_per_class": "4", "steps": "4",
}  # fmt: skip


def written(folder: Path, name: str = "cub", **changes: str) -> Path:
    """The configuration of a set with other values, as TOML; a value of "" leaves the key out."""
    lines = []
    for line in (config.FOLDER / f"{name}.toml").read_text().splitlines():
        key = line.partition("=")[0].strip()
        value = (MINIATURE | changes).get(key)
        if value != "":
            lines.append(line if value is None else f"{key} = {value}")
    path = folder / f"mini-{name}.toml"
    miniature.write_lines(path, lines)
    return path
