"""Does the loss keep its promise? Base losses with and without TCM, on classes never seen in training.

    python -m benchmarks.quality                the study: about four hours on two cores; goes on where it stopped
    python -m benchmarks.quality --size short   ten minutes, says little, shows everything
    python -m benchmarks.quality --report       tables and pictures from the records that are there

    plan.py       what is run, by value           losses.py    the base losses
    chain.py      one loss on one split           tuning.py    how settings are chosen
    running.py    one run                         measures.py  what it is judged by
    records.py    runs.csv and draws.csv          intervals.py, matched.py, table.py, figures.py, page.py
    real/         the same question on data sets that users have
"""
