# SPDX-License-Identifier: MIT
"""Byte channels between the machine and its host, agreed with guest/hostio.h."""

PAYLOAD = 10
STDOUT = 11
STDERR = 12
RESULTS = 13
CONTROL = 14
STDIN = 15
KERNEL_LOG = 16
