"""`tcm-kernels demo`: train a small network with and without the loss, and look at the difference.

Open-world, as the loss is meant: the network learns some classes and is judged on others that it has never
seen. Everything is trained twice from the same start on the same batches, once with a base loss alone and
once with the TCM loss added, for a few seeds. What is printed is computed from the results, also where they
do not flatter the loss.

    command.py      options, exit codes, files     comparison.py  table, verdict, results.json
    glyphs/         2,109 printed characters       digits/        ten handwritten digits
    repeatable.py   one thread, own seeds
"""

from .command import add_arguments, main

__all__ = ["add_arguments", "main"]
