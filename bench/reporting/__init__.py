# SPDX-License-Identifier: MIT
"""What becomes of the results of dune-bench."""
