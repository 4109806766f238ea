"""What Python imports first in a child process whose PYTHONPATH names this folder: trouble for it to meet."""

import os
import sys
import time

if "FAULT_FOLDER" in os.environ:
    sys.path.append(os.path.dirname(os.path.dirname(__file__)))
    from faults import Faults

    Faults.from_environment(os.environ).install(setattr)

if "CLOCK_BACKWARDS" in os.environ:  # the wall clock loses a second in every one
    _start, _time = time.time(), time.time
    time.time = lambda: 2 * _start - _time()
