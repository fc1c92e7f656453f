"""Where the sources are: the folder of setup.py, csrc and benchmarks."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
