// SPDX-License-Identifier: MIT
//
// How dune-vm-runner asks a test program for cases. The program starts once, and forks a process
// for each case before it has touched anything: as alone as one of its own, without the exec, the
// dynamic linking and the first touches, which are most of a short case's time in the emulator.
//
// The program's environment names a socket (SOCK_SEQPACKET). A request is the name of a case; the
// answers are its process id (pid_t) and, when it has ended, its status as of waitpid() (int). The
// end of the requests ends the program. All cases write to the program's own output.

#ifndef DUNE_TESTS_VM_RUNNER_CASE_SERVER_H
#define DUNE_TESTS_VM_RUNNER_CASE_SERVER_H

namespace dune::vmtest {

constexpr const char* kCaseSocketVariable = "DUNE_VM_CASE_SOCKET";
constexpr unsigned kMaxCaseName = 512;

}  // namespace dune::vmtest

#endif
