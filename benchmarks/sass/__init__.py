"""Predictions from compiled code, not measurements: clocks a tile of sweep, dense tiles and patterns.

    python -m benchmarks.sass                      both backends, sm_80 and sm_90a, D = 512, bfloat16
    python -m benchmarks.sass --backend triton --chip 90 --dim 128 --json FILE

    parse.py      machine code -> instructions
    loops.py      instructions -> loops, ways through a loop
    pipes.py      instruction -> pipe, bytes
    compiled.py   the kernels' machine code
    model.py      instructions of a tile -> clocks
    __main__.py   the table

No GPU is needed. What this says is a model, to be put beside the first measurement; it stands in no README.
"""
