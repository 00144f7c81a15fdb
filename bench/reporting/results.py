# SPDX-License-Identifier: MIT
"""Reading results in Google Benchmark's JSON form."""

import json


class ResultsError(Exception):
    """A file that cannot be used; the message is for a person."""


class Results:
    """The cases of one run of dune-bench: name -> counters."""

    def __init__(self, path):
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            self.context = data["context"]
            runs = [run for run in data["benchmarks"] if run.get("run_type", "iteration") == "iteration"]
        except OSError as error:
            raise ResultsError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ResultsError(f"{path} does not hold results of dune-bench") from None
        self.failed = {name_of(run): run.get("error_message", "") for run in runs if run.get("error_occurred")}
        self.cases = {name_of(run): run for run in runs if not run.get("error_occurred")}
        self.emulator = self.context.get("machine") == "emulator"
        self.unit = "instructions" if self.emulator else "cycles"

    def value(self, name, counter=None):
        """A counter (what an operation costs if none is named) of a case, or None."""
        case = self.cases.get(name)
        return None if case is None else case.get(counter or self.unit)

    def exits(self, name):
        return self.value(name, "exits")

    def exit_reasons(self, name):
        """{reason: exits an operation}."""
        case = self.cases.get(name, {})
        return {key[len("exits_"):]: value for key, value in case.items() if key.startswith("exits_")}


def name_of(run):
    """Google Benchmark adds how a case was run to its name."""
    return run["name"].split("/iterations:")[0].split("/manual_time")[0]


def number(value):
    """As one reads it: 258, 12,345, 29.5, 0.02."""
    if value is None:
        return "–"
    if value and abs(value) < 100 and abs(value - round(value)) > 0.04:
        return f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"
    return f"{value:,.0f}"
