"""`python -m tcm_kernels`: the same commands as `tcm-kernels`."""

import sys

from .cli import main

sys.exit(main())
