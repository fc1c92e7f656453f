"""Everything that only a machine with a GPU can tell, in two calls of less than ten minutes each.

    make gpu                    build, tests, memcheck, headline shapes, profile, small batches
    make gpu STEPS=rest         what has no record yet: densities, histogram, other sanitizers, large shapes,
                                training step, and whatever the first call did not come to
    python -m benchmarks.gpu --dry-run      the plan, on any machine

Such a machine may be bare, without a network, and taken away after ten minutes. So what is run is a plan by
value (plan.py): a tuple of steps made by a pure function of the machine and of what is known already, whose
limits, waiting for a step to die included, fit into the time. A step is a process of its own that stops
itself (runner.py), writes its figures as it goes, and takes nothing down with it. All figures go into the
device's one file, and what was not measured stands there with its reason (state.py): that file is all that
a second call on another bare machine needs.

    machine.py       what there is to work with
    plan.py          the steps, their order and their limits
    state.py         what is known, and how steps went, in the results files
    runner.py        one step: limits, signals, outcomes
    log.py           all output, head and tail
    report.py        the table at the end
    kernels.py       what is run under the profiler and under the sanitizers
    profile.py       the profiler's counters, condensed
    pytest_log.py    the tests: their order, tracebacks as they happen, kernels that hang or break the GPU
"""
