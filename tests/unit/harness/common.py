# SPDX-License-Identifier: MIT
"""Where the harness lies, for the tests of it."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
HARNESS = ROOT / "tests" / "vm" / "harness"
sys.path.insert(0, str(HARNESS))
