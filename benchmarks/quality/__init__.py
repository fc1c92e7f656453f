"""Does the loss keep its promise? Base losses with and without TCM, on classes never seen in training.

Runs are paired: the same initial weights and the same batches, with TCM and without.

    python -m benchmarks.quality                the study: hours on two cores; goes on where it stopped
    python -m benchmarks.quality --size short   ten minutes, says little, shows everything
    python -m benchmarks.quality --report       tables and pictures from the records that are there

    plan.py       what is run, by value           losses.py      the base losses
    chain.py      one loss on one split           tuning.py      how settings are chosen
    running.py    one run                         measures.py    what it is judged by
    records.py    runs.csv and draws.csv          summary.py     the arms, compared
    intervals.py  how sure a difference is        matched.py     the effect at equal accuracy
    study.py      two chains at a time            report.py      study.md, study.html, pictures
    step_time.py  what the loss costs of a step   quotes.py      figures in README and docs/recipe.md
    real/         data sets of the user's own

Everything is there to be run again: the records follow from the seeds, the rest from the records.
"""
