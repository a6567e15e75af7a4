"""What holds for every test, and for the programs that tests start: none fails for how slow a busy machine is."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# Before anything imports numpy. Its threads wait for each other by spinning: where several workers share the
# processors, learning a type takes ten times as much of them on all as on one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What a shell runs in the background does not hear Ctrl-C, and nor would the programs that tests send it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure: Hypothesis allows an example 200 ms by default. CI looks at the same examples each time;
# chance finds what it finds at a desk, and not in a change that has nothing to do with it.
settings.register_profile(
    "tierwise",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="FIXED_EXAMPLES" in os.environ,
)
settings.load_profile("tierwise")
