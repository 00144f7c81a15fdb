# SPDX-License-Identifier: MIT
"""How quick scripts/machine run is. CTest runs this file with nothing beside it."""

import os
import resource
import time
import unittest

import support
from support import run

SIZE = 50_000_000
COPY_SECONDS = 2
WARM_SECONDS = 1.5


def processor_seconds(*arguments, **options):
    """User and system time of a run of the machine, which other work on this system does not stretch."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run(*arguments, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Speed(support.Case):
    def test_fifty_megabytes_each_way(self):
        data = os.urandom(SIZE)
        (self.scratch / "in").write_bytes(data)
        base = processor_seconds("--", "true")
        within = processor_seconds("--copy-in", f"{self.scratch}/in:/tmp/in", "--", "true")
        both = processor_seconds("--copy-in", f"{self.scratch}/in:/tmp/in", "--copy-out",
                                 f"/tmp/in:{self.scratch}/out", "--", "true")
        self.assertEqual((self.scratch / "out").read_bytes(), data)
        self.assertLess(within - base, COPY_SECONDS)
        self.assertLess(both - within, COPY_SECONDS)

    def test_fifty_megabytes_through_a_pipe(self):
        data = os.urandom(SIZE)
        base = processor_seconds("--", "true")
        piped = processor_seconds("--copy-out", f"/tmp/in:{self.scratch}/out", "--", "sh", "-c", "cat >/tmp/in",
                                  input=data, text=False)
        self.assertTrue((self.scratch / "out").read_bytes() == data, "something else arrived")
        self.assertLess(piped - base, 2 * COPY_SECONDS)  # and out again

    def test_a_warm_start_is_quick(self):
        times = []
        for _ in range(5):
            started = time.monotonic()
            self.assertEqual(run("--", "uname", "-r").returncode, 0)
            times.append(time.monotonic() - started)
        # Where others use the processors as well, each gets its share only.
        share = max(1, os.getloadavg()[0] / os.cpu_count())
        self.assertLess(min(times), WARM_SECONDS * share)


if __name__ == "__main__":
    unittest.main()
