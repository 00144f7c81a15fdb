# SPDX-License-Identifier: MIT
"""Following a path through compiled code, as objdump shows it, and counting its instructions."""

import dataclasses
import re
import subprocess

from .results import ResultsError

LIMIT = 600  # instructions of one function on one path
INSTRUCTION = re.compile(r"^\s+([0-9a-f]+):\t(\S+)\s*(.*)$")
SYMBOL = re.compile(r"^([0-9a-f]+) <(.+)>:$")
RELOCATION = re.compile(r"^\s+[0-9a-f]+:\s+R_\S+\s+(\S+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    mnemonic: str
    operands: str
    symbol: str  # of a relocation

    @property
    def text(self):
        return f"{self.mnemonic} {self.operands} {self.symbol}"

    @property
    def target(self):
        """Address of a direct jump in the same section, else None."""
        match = re.match(r"([0-9a-f]+) <", self.operands)
        return int(match[1], 16) if match and not self.symbol else None


class Code:
    """The .text of an object."""

    def __init__(self, path):
        done = subprocess.run(["objdump", "-dr", "--no-show-raw-insn", "-j", ".text", "-j", ".dune.gate", path],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0 or not done.stdout:
            raise ResultsError(f"cannot disassemble {path}: {done.stderr.strip() or 'objdump failed'}")
        self.symbols, self.code = {}, {}
        address = None
        for line in done.stdout.splitlines():
            if match := RELOCATION.match(line):
                old = self.code[address]
                self.code[address] = Instruction(old.mnemonic, old.operands, re.sub(r"-0x[0-9a-f]+$", "", match[1]))
            elif match := INSTRUCTION.match(line):
                address = int(match[1], 16)
                # A linker makes "addr32 call" of a call by the global offset table.
                words = f"{match[2]} {match[3]}".removeprefix("addr32 ").split(maxsplit=1)
                self.code[address] = Instruction(words[0], words[1] if len(words) > 1 else "", "")
            elif match := SYMBOL.match(line):
                self.symbols[match[2]] = int(match[1], 16)
        addresses = sorted(self.code)
        self.next = dict(zip(addresses, addresses[1:]))

    def path(self, start, until, avoid=(), calls=(), through=""):
        """The instructions from a symbol to one that matches `until` (included).

        Of the paths that call exactly what `calls` names (regular expressions, in this order), hold
        nothing that matches `avoid` and something that matches `through`, the one that falls through
        its first branches.
        """
        if start not in self.symbols:
            raise ResultsError(f"there is no function {start}")
        until, through, avoid = re.compile(until), re.compile(through), [re.compile(each) for each in avoid]
        calls = [re.compile(each) for each in calls]
        dead = set()

        def walk(address, seen_calls, seen, trail):
            # Iterative along straight code, recursive at branches alone.
            here = []
            while True:
                state = (address, seen_calls, seen)
                instruction = self.code.get(address)
                if instruction is None or state in dead or state in trail or len(trail) + len(here) > LIMIT:
                    return None
                text = instruction.text
                if any(each.search(text) for each in avoid):
                    return None
                here.append(instruction)
                seen = seen or through.search(text) is not None
                if until.search(text) and seen and seen_calls == len(calls):
                    return here
                if instruction.mnemonic.startswith(("ret", "iret", "ud2", "sysret")):
                    return None
                if instruction.mnemonic == "call":
                    if self.is_patched(instruction):
                        pass
                    elif seen_calls < len(calls) and calls[seen_calls].search(self.callee(instruction)):
                        seen_calls += 1
                    else:
                        return None
                elif instruction.mnemonic.startswith("j"):
                    if instruction.mnemonic == "jmp":
                        if instruction.target is None:
                            return None
                        address = instruction.target
                        continue
                    trail = trail | {state}
                    for way in (self.next.get(address), instruction.target):
                        if way is not None and (rest := walk(way, seen_calls, seen, trail)) is not None:
                            return here + rest
                    dead.add(state)
                    return None
                address = self.next.get(address)

        found = walk(self.symbols[start], 0, False, frozenset())
        if found is None:
            raise ResultsError(f"no path through {start} to {until.pattern}")
        return found

    @staticmethod
    def is_patched(instruction):
        """Calls that the kernel replaces at load: nothing (__fentry__), or one instruction (CLI, STI)."""
        return instruction.symbol.startswith(("__fentry__", "pv_ops"))

    @staticmethod
    def callee(instruction):
        return instruction.symbol or instruction.operands
