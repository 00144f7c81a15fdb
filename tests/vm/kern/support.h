// SPDX-License-Identifier: MIT
//
// What several tests of dune.ko need of Linux: children and how they ended, files of /sys and
// /proc, memory to swap to.

#ifndef DUNE_TESTS_VM_KERN_SUPPORT_H
#define DUNE_TESTS_VM_KERN_SUPPORT_H

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace support {

constexpr size_t kPage = 4096;

// A pointer as an argument of a system call.
inline long arg(const void* pointer) {
    return reinterpret_cast<long>(pointer);
}

// fork() that ends the program where there can be no child: kill(-1) would end the whole machine.
pid_t fork_or_end();

// The status of waitpid(), signals or not.
int wait_status(pid_t pid);

// Runs `child` in a child process, which should end by itself; its wait status.
template <typename F>
int status_of(F&& child) {
    const pid_t pid = fork_or_end();
    if (pid == 0) {
        child();
        _exit(99);
    }
    return wait_status(pid);
}

// CLOCK_MONOTONIC in seconds.
double now();

// Writes a word to a file of /sys or /proc with no allocation; false if it can't be.
bool write_file(const char* path, const char* word);
// The whole file; empty if there is none.
std::string read_file(const std::string& path);
// The number after `name` in a file such as /proc/vmstat or /proc/meminfo; 0 if it is not there.
uint64_t number_in(const char* path, const std::string& name);

// Keeps the calling thread on one CPU; false if it can't be.
bool pin_to(int cpu);
// One of a CPU's MSRs, by the msr driver; nothing if it can't be read. Root.
std::optional<uint64_t> host_msr(uint32_t msr, int cpu);

// Where symbols of the kernel's lie, or, as "name\t[dune]", of the module's; 0 if Linux does not
// tell. To read its list takes seconds of an emulator, so all at once. Root.
std::vector<uint64_t> kernel_symbols(const std::vector<std::string>& names);
// Reads kernel memory; false if /proc/kcore does not have it. Root.
bool read_kernel(uint64_t address, void* to, size_t size);

// Does /proc/cpuinfo name a feature?
bool host_has(const std::string& flag);

// Swaps to a zram device of 32 MiB for as long as it lives. Root.
class ZramSwap {
  public:
    ZramSwap();
    ~ZramSwap();
    ZramSwap(const ZramSwap&) = delete;
    ZramSwap& operator=(const ZramSwap&) = delete;

    bool ok() const { return on_; }
    // Pages that Linux has written to swap since it was made.
    uint64_t pages_out() const;
    // Takes all back. Returns whether it could.
    bool off();

  private:
    bool on_ = false;
    uint64_t before_ = 0;
};

// Has Linux write to swap what the guest uses: madvise(MADV_PAGEOUT), twice for each page. Before
// 6.10 it forgets the accessed bits of the process' page table and then looks for references,
// those that notifiers report among them: the first turn clears these, and only the second pages
// out, if the guest has not come by meanwhile.
void page_out(char* start, size_t size);

}  // namespace support

#endif
