#!/usr/bin/env python3
# SPDX-License-Identifier: MIT

import unittest

import protocol


def parse(text):
    parser = protocol.Parser()
    for line in text.splitlines():
        parser.feed(line)
    return parser


class ProtocolTest(unittest.TestCase):
    def test_pass_fail_and_skip(self):
        parser = parse("booting\r\n@vm begin a S.one\r\n@vm end a S.one pass 12\r\n"
                       "@vm begin a S.two\n@vm | expected 1\n@vm |   indented\n"
                       "@vm end a S.two fail 7\n"
                       "@vm begin b -\n@vm end b - skip 0\n@vm done\n")
        self.assertTrue(parser.started and parser.done)
        self.assertEqual([(r.program, r.case, r.outcome, r.milliseconds) for r in parser.results],
                         [("a", "S.one", "pass", 12), ("a", "S.two", "fail", 7),
                          ("b", "-", "skip", 0)])
        self.assertEqual(parser.results[1].output, ["expected 1", "  indented"])

    def test_machine_dies_in_a_test(self):
        parser = parse("@vm begin a S.one\n@vm end a S.one pass 1\n@vm begin a S.two\n"
                       "[    1.0] BUG: kernel NULL pointer dereference\n[    1.1] Kernel panic\n")
        self.assertEqual(parser.current, ("a", "S.two"))
        self.assertFalse(parser.done)
        parser.lost("the machine ended (status 3)")
        last = parser.results[-1]
        self.assertEqual((last.case, last.outcome), ("S.two", "fail"))
        self.assertIn("[    1.1] Kernel panic", last.output)
        self.assertEqual(last.output[-1], "--- failed: the machine ended (status 3)")
        self.assertIsNone(parser.current)

    def test_console_text_before_a_record_on_the_same_line(self):
        parser = parse("[ 1.0] half a line@vm begin a S.one\n@vm end a S.one pass 1\n")
        self.assertEqual(len(parser.results), 1)

    def test_end_of_another_case_is_no_result(self):
        parser = parse("@vm begin a S.one\n@vm end a S.two pass 1\n")
        self.assertEqual(parser.results, [])
        self.assertEqual(parser.current, ("a", "S.one"))

    def test_the_kernels_complaint_fails_the_test_that_caused_it(self):
        parser = parse("@vm begin a S.one\n@vm k dune: hello\n@vm end a S.one pass 1\n"
                       "@vm begin a S.two\n"
                       "@vm k WARNING: CPU: 0 PID: 1 at kern/vcpu.c:1 f+0x0/0x1 [dune]\n"
                       "@vm end a S.two pass 1\n@vm begin a S.three\n@vm end a S.three pass 1\n")
        self.assertEqual([r.outcome for r in parser.results], ["pass", "fail", "pass"])
        self.assertTrue(parser.complained)
        self.assertTrue(parser.results[1].output[-1].startswith("--- failed: the kernel complained"))

    def test_programs_killed_on_purpose_are_no_complaint(self):
        parser = parse("@vm begin a S.one\n"
                       "@vm k traps: t[77] general protection fault ip:401136 sp:7ffe error:0\n"
                       "@vm k t[78]: segfault at 0 ip 0000000000401136 sp 00007ffe error 4\n"
                       "@vm end a S.one pass 1\n")
        self.assertEqual([r.outcome for r in parser.results], ["pass"])

    def test_garbage_is_console_text(self):
        parser = parse("@vm end\n@vm begin\n@vm nonsense 1 2\n@vm end a S.one pass x\n")
        self.assertEqual(parser.results, [])
        self.assertFalse(parser.started)
        self.assertEqual(len(parser.console), 4)

    def test_output_may_hold_the_prefix(self):
        parser = parse("@vm begin a S.one\n@vm | @vm end a S.one pass 1\n@vm end a S.one fail 1\n")
        self.assertEqual([r.outcome for r in parser.results], ["fail"])

    def test_nothing_is_lost_between_tests(self):
        parser = parse("@vm begin a S.one\n@vm end a S.one pass 1\n")
        parser.lost("gone")
        self.assertEqual(len(parser.results), 1)


if __name__ == "__main__":
    unittest.main()
