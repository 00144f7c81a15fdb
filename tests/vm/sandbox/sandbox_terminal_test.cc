// SPDX-License-Identifier: MIT
//
// An interactive shell in the sandbox, on a terminal: line editing, job control, signals from keys.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

namespace dune::sandbox_test {
namespace {

constexpr int kPatienceMs = 20000;

// A command on a pseudo-terminal of its own.
class Terminal {
  public:
    explicit Terminal(std::vector<const char*> argv) {
        const winsize size = {24, 80, 0, 0};
        pid_ = forkpty(&master_, nullptr, nullptr, &size);
        if (pid_ == 0) {
            setenv("TERM", "dumb", 1);
            argv.push_back(nullptr);
            execvp(argv[0], const_cast<char**>(argv.data()));
            _exit(127);
        }
    }
    ~Terminal() {
        close(master_);
        if (pid_ > 0) {
            kill(pid_, SIGKILL);
            waitpid(pid_, nullptr, 0);
        }
    }
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    void type(const std::string& keys) {
        EXPECT_EQ(write(master_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
    }

    // Waits for a text behind what was waited for before.
    void expect(const std::string& text) {
        size_t found;
        while ((found = seen_.find(text, at_)) == std::string::npos) {
            pollfd poll_fd = {master_, POLLIN, 0};
            char room[1024];
            const ssize_t n =
                poll(&poll_fd, 1, kPatienceMs) > 0 ? read(master_, room, sizeof(room)) : -1;
            ASSERT_GT(n, 0) << "no \"" << text << "\" in: " << seen_.substr(at_);
            seen_.append(room, static_cast<size_t>(n));
        }
        at_ = found + text.size();
    }

    void resize(unsigned short columns) {
        const winsize size = {24, columns, 0, 0};
        EXPECT_EQ(ioctl(master_, TIOCSWINSZ, &size), 0);
    }

    int wait() {
        int status = -1;
        waitpid(pid_, &status, 0);
        pid_ = -1;
        return status;
    }

  private:
    pid_t pid_ = -1;
    int master_ = -1;
    std::string seen_;
    size_t at_ = 0;
};

// Shells tell the status of the command before in their prompt.
constexpr char kPrompt[] = "PS1='status $?> '\n";

void use_shell(Terminal& terminal) {
    terminal.type(kPrompt);
    terminal.expect("status 0> ");
    terminal.type("test -t 0 && test -t 1 && echo on a $((1 + 1))-way terminal\n");
    terminal.expect("on a 2-way terminal");
    terminal.expect("status 0> ");
    // Ctrl-C is for the command, not for the shell, nor for the sandbox.
    terminal.type("sleep 1000\n");
    usleep(300000);
    terminal.type("\x03");
    terminal.expect("status 130> ");
    // Ctrl-Z, the list of jobs, on in the background, and to the foreground again.
    terminal.type("sleep 1000\n");
    usleep(300000);
    terminal.type("\x1a");
    terminal.expect("Stopped");
    terminal.expect("status 148> ");
    terminal.type("bg; jobs -r\n");
    terminal.expect("Running");
    terminal.expect("status 0> ");
    terminal.type("fg\n");
    usleep(300000);
    terminal.type("\x1c");  // Ctrl-backslash
    terminal.expect("status 131> ");
    // A pipeline is a job, too.
    terminal.type("sleep 1000 | cat\n");
    usleep(300000);
    terminal.type("\x03");
    terminal.expect("status 130> ");
    // End of input, of a program and at last of the shell.
    terminal.type("cat\nline\n\x04");
    terminal.expect("line\r\nline\r\n");
    terminal.expect("status 0> ");
    terminal.type("trap 'echo now $(stty size)' WINCH\n");
    terminal.expect("status 0> ");
    terminal.resize(132);
    terminal.type("true\n");
    terminal.expect("now 24 132");
    terminal.type("exit 7\n");
    EXPECT_EQ(terminal.wait(), 7 << 8);
}

TEST(Terminal, ShellOnPlainLinux) {
    Terminal terminal({"bash", "--norc", "--noprofile", "--noediting"});
    use_shell(terminal);
}

TEST(Terminal, ShellInTheSandbox) {
    Terminal terminal({"dune-sandbox", "--", "bash", "--norc", "--noprofile", "--noediting"});
    use_shell(terminal);
}

// With a parent that waits to report, which must neither die of the keys nor stop.
TEST(Terminal, ShellWithStatistics) {
    Terminal terminal(
        {"dune-sandbox", "--stats", "--", "bash", "--norc", "--noprofile", "--noediting"});
    use_shell(terminal);
}

// Keys for a program that the sandbox itself runs in the foreground.
TEST(Terminal, KeysForTheProgram) {
    Terminal terminal({"bash", "--norc", "--noprofile", "--noediting"});
    terminal.type(kPrompt);
    terminal.expect("status 0> ");
    terminal.type("dune-sandbox -- sleep 1000\n");
    usleep(500000);
    terminal.type("\x03");
    terminal.expect("status 130> ");
    terminal.type("dune-sandbox -- sleep 1000\n");
    usleep(500000);
    terminal.type("\x1a");
    terminal.expect("Stopped");
    terminal.expect("status 148> ");
    terminal.type("kill %1; fg\n");
    terminal.expect("status 143> ");
    terminal.type("echo through a pipe | dune-sandbox -- tr a-z A-Z | cat\n");
    terminal.expect("THROUGH A PIPE");
    terminal.type("exit\n");
    EXPECT_EQ(terminal.wait(), 0);
}

}  // namespace
}  // namespace dune::sandbox_test
