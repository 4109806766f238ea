"""What Python imports first in a child process whose PYTHONPATH names this folder: trouble for it to meet."""

import importlib
import itertools
import os
import sys
import time

if "FAULT_FOLDER" in os.environ:
    sys.path.append(os.path.dirname(os.path.dirname(__file__)))
    from faults import Faults

    Faults.from_environment(os.environ).install(setattr)

if "CLOCK_OF_READINGS" in os.environ:  # a clock that goes on by so many seconds when it is read: no machine is too slow
    _readings = itertools.count()
    time.perf_counter = time.monotonic = lambda: next(_readings) * float(os.environ["CLOCK_OF_READINGS"])

for _failing in os.environ.get("ALWAYS_FAILS", "").split():  # fcntl.flock:38 lets it fail with errno 38
    _name, _, _errno = _failing.partition(":")
    _module, _, _function = _name.rpartition(".")

    def _fail(*_args: object, _errno: int = int(_errno)) -> None:
        raise OSError(_errno, os.strerror(_errno))

    setattr(importlib.import_module(_module), _function, _fail)

if "CLOCK_BACKWARDS" in os.environ:  # the wall clock loses a second in every one
    _start, _time = time.time(), time.time
    time.time = lambda: 2 * _start - _time()
