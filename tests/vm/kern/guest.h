// SPDX-License-Identifier: MIT
//
// A small way into the guest for tests of dune.ko, without libdune: it opens the
// device, shows the process' memory in guest-physical slots, builds page tables
// (virtual = virtual, 2-MiB entries, usable from ring 3 as well), makes a vCPU for
// each thread that asks, and runs a C++ function in ring 0 and back.
//
// Functions say where they may be called: host mode, or in the guest. Code that runs
// in the guest must not use the SYSCALL instruction, and so no allocation and no
// stdio; it calls the kernel by guest::call().

#ifndef DUNE_TESTS_VM_KERN_GUEST_H
#define DUNE_TESTS_VM_KERN_GUEST_H

#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "kern/dune.h"

namespace guest {

// A raw system call in host mode: result or -errno.
long host_call(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0);

// One from the guest (ring 0), by VMCALL: result or -errno.
inline long call(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    asm volatile("vmcall"
                 : "=a"(result)
                 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "memory");
    return result;
}

// The same, always the slow way (through host mode).
inline long slow_call(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                      long f = 0) {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    register long r11 asm("r11") = nr;
    asm volatile("vmcall"
                 : "=a"(result)
                 : "a"(static_cast<long>(DUNE_HC_SYSCALL)), "D"(a), "S"(b), "d"(c), "r"(r10),
                   "r"(r8), "r"(r9), "r"(r11)
                 : "memory");
    return result;
}

// What this process has open, shows and maps. Host mode.
class Machine {
  public:
    // The process' one; opens /dev/dune at the first use, and again after a fork.
    static Machine& get();

    int fd() const { return fd_; }
    const dune_info& info() const { return info_; }
    bool has(uint64_t feature) const { return info_.features & feature; }

    // Shows all 1-GiB slots of [address, address + size), and maps them.
    void show(const void* address, size_t size);
    // The same for all that /proc/self/maps lists.
    void show_everything();
    // Guest-physical address of a shown one; 0 if it is not.
    uint64_t gpa(const void* address) const;
    uint64_t cr3() const;
    dune_stats stats() const;

  private:
    Machine();
    void open_device();
    void show_slot(uint32_t va_slot);
    void map_slot(uint32_t slot, uint32_t va_slot);

    int fd_ = -1;
    int pid_ = 0;
    dune_info info_ = {};
    std::mutex lock_;
    std::vector<uint32_t> slots_;  // by guest-physical slot
    unsigned next_table_ = 1;      // table 0 is the root
};

// How a stay in the guest ended.
struct End {
    long error = 0;         // of DUNE_RUN, 0 or -errno
    uint32_t exit = 0;      // DUNE_EXIT_*
    uint64_t argument = 0;  // of DUNE_HC_LEAVE
    std::string text;       // of a death

    bool left() const { return error == 0 && exit == DUNE_EXIT_LEAVE; }
    bool died() const { return error == 0 && exit == DUNE_EXIT_DEATH; }
};
std::ostream& operator<<(std::ostream& out, const End& end);

struct Options {
    bool fast = true;    // let the module do system calls
    bool gate = false;   // VMCALL from anywhere is trusted
    bool door = false;   // always enter by page fault
    bool traps = false;  // with GDT, IDT and TSS (traps.h)
    bool rescan = true;  // look at /proc/self/maps before
};
inline constexpr Options kWithTraps = {.traps = true};

struct Cpu;

// The calling thread's way into the guest. Host mode.
class Vcpu {
  public:
    // Made at the first use in a thread, and again after a fork.
    static Vcpu& get();

    Vcpu();
    ~Vcpu();
    Vcpu(const Vcpu&) = delete;
    Vcpu& operator=(const Vcpu&) = delete;

    int fd() const { return fd_; }
    dune_vcpu_page& page() const { return *page_; }
    volatile char* door() const { return door_; }
    Cpu* cpu() const { return cpu_; }

    End enter(void (*function)(void*), void* argument, const Options& options);
    // Puts what enter() starts with into the page, and runs nothing.
    void prepare(void (*function)(void*), void* argument, const Options& options);
    // Runs what the page says until the guest leaves, dies or is refused.
    End run(const Options& options);
    // One entry, by ioctl or by the door; 0 or -errno.
    long run_once(bool by_door);

  private:
    void do_call(const Options& options, int handlers_before);
    [[noreturn, gnu::noinline]] void go_on_in_child(dune_vcpu_page snapshot, uint64_t fs_base,
                                                    const Options& options);

    int fd_ = -1;
    int pid_ = 0;
    dune_vcpu_page* page_ = nullptr;
    volatile char* door_ = nullptr;
    char* stack_ = nullptr;
    Cpu* cpu_ = nullptr;
};

constexpr size_t kStackSize = 256 * 1024;

// Runs a callable in ring 0 of this thread's vCPU.
template <typename F>
End enter(F&& function, const Options& options = {}) {
    using Plain = std::remove_reference_t<F>;
    return Vcpu::get().enter([](void* f) { (*static_cast<Plain*>(f))(); },
                             const_cast<void*>(static_cast<const void*>(&function)), options);
}

// Leaves at once, out of whatever runs. In the guest.
[[noreturn]] inline void leave(uint64_t argument) {
    asm volatile("vmcall" : : "a"(static_cast<long>(DUNE_HC_LEAVE)), "D"(argument) : "memory");
    __builtin_unreachable();
}

// Signal handlers of tests call this, so that interrupted calls end as Linux ends them.
void note_handler(bool restarts);

uint64_t read_fs_base();

// Anonymous memory that the guest sees. Host mode.
char* map(size_t size, int protection = 3, int flags = 0);

}  // namespace guest

#endif
