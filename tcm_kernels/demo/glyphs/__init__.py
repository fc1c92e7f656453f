"""Glyphs, a data set that ships as code: printed characters as classes, type faces as their samples.

    alphabet = load_alphabet()                          drawn once in seconds, then read from the cache
    split = split_at_random(alphabet, seed=0)           classes to learn from, to choose by, to judge on
    samples = draw_samples(alphabet, split.test, views=2, seed=0)

alphabet.py   the characters                samples.py        splits, distorted images
training.py   the network that learns       paired.py         the demo's trainings, with and without TCM
processes.py  several of them at a time     measures.py       what they are judged by
run.py        from settings to files        figure.py         utilities.png
                                            contact_sheet.py  a look at the samples
"""

from .alphabet import FACES, SIDE, Alphabet, load_alphabet
from .samples import Classes, Samples, Split, draw_samples, long_tailed, split_at_random, split_by_script

__all__ = [
    "FACES",
    "SIDE",
    "Alphabet",
    "Classes",
    "Samples",
    "Split",
    "draw_samples",
    "load_alphabet",
    "long_tailed",
    "split_at_random",
    "split_by_script",
]
