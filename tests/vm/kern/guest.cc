// SPDX-License-Identifier: MIT

#include "guest.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <ostream>

#include "traps.h"

// rdi: argument, rsi: function. After it, leave with 0.
asm(R"(
    .text
    .globl guest_start
guest_start:
    call *%rsi
    xor %edi, %edi
    mov $0x44550000, %eax
    vmcall
    ud2
)");
extern "C" const char guest_start[];
static_assert(DUNE_HC_LEAVE == 0x44550000, "guest_start above");

namespace guest {

namespace {

constexpr uint64_t kTableEntry = 0x67;  // present, writable, user, accessed, dirty
constexpr uint64_t kLargeEntry = 0xe7;
constexpr unsigned kTables = 96;
alignas(4096) uint64_t tables[kTables][512];

volatile sig_atomic_t handlers, handlers_that_restart;

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::abort();
}

}  // namespace

void note_handler(bool restarts) {
    handlers = handlers + 1;
    handlers_that_restart = handlers_that_restart + restarts;
}

// In line: after a vfork() the child goes on with the parent's stack, so the parent must not
// return over a frame that the child has used since.
[[gnu::always_inline]] inline long raw_call(long nr, long a, long b, long c, long d, long e,
                                            long f) {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

long host_call(long nr, long a, long b, long c, long d, long e, long f) {
    return raw_call(nr, a, b, c, d, e, f);
}

// By system call: not every CPU has RDFSBASE.
uint64_t read_fs_base() {
    uint64_t base = 0;
    host_call(SYS_arch_prctl, ARCH_GET_FS, reinterpret_cast<long>(&base));
    return base;
}

Machine::Machine() {
    open_device();
}

Machine& Machine::get() {
    static Machine machine;
    if (machine.pid_ != getpid()) {
        // A forked child: its mirror is its own, and empty.
        close(machine.fd_);
        machine.open_device();
        const auto shown = machine.slots_;
        for (uint32_t slot = 1; slot < shown.size(); slot++) {
            dune_slots slots = {sizeof(slots), slot, 1, 0,
                                reinterpret_cast<uint64_t>(&shown[slot])};
            if (ioctl(machine.fd_, DUNE_SET_SLOTS, &slots) != 0) {
                fail("DUNE_SET_SLOTS");
            }
        }
    }
    return machine;
}

void Machine::open_device() {
    fd_ = open(DUNE_DEVICE, O_RDWR | O_CLOEXEC);
    info_ = {};
    info_.size = sizeof(info_);
    if (fd_ < 0 || ioctl(fd_, DUNE_GET_INFO, &info_) != 0) {
        fail(DUNE_DEVICE);
    }
    pid_ = getpid();
    if (slots_.empty()) {
        slots_.push_back(DUNE_SLOT_NONE);
        show(tables, sizeof(tables));
    }
}

void Machine::map_slot(uint32_t slot, uint32_t va_slot) {
    uint64_t table = 0;
    unsigned index = va_slot >> 9;
    for (int level = 4; level > 2; level--) {
        uint64_t& entry = tables[table][index];
        if (entry == 0) {
            if (next_table_ == kTables) {
                fail("guest page tables");
            }
            entry = gpa(tables[next_table_++]) | kTableEntry;
        }
        const uint64_t base = gpa(tables[0]);
        table = ((entry & ~0xfffULL) - base) / sizeof(tables[0]);
        index = va_slot & 511;
    }
    for (uint64_t i = 0; i < 512; i++) {
        tables[table][i] = (static_cast<uint64_t>(slot) << DUNE_SLOT_SHIFT | i << 21) | kLargeEntry;
    }
}

void Machine::show_slot(uint32_t va_slot) {
    for (const uint32_t shown : slots_) {
        if (shown == va_slot) {
            return;
        }
    }
    dune_slots slots = {sizeof(slots), static_cast<uint32_t>(slots_.size()), 1, 0,
                        reinterpret_cast<uint64_t>(&va_slot)};
    if (ioctl(fd_, DUNE_SET_SLOTS, &slots) != 0) {
        fail("DUNE_SET_SLOTS");
    }
    slots_.push_back(va_slot);
}

void Machine::show(const void* address, size_t size) {
    const std::lock_guard guard(lock_);
    const auto start = reinterpret_cast<uint64_t>(address);
    const size_t before = slots_.size();
    for (uint64_t s = start >> DUNE_SLOT_SHIFT; s <= (start + size - 1) >> DUNE_SLOT_SHIFT; s++) {
        show_slot(static_cast<uint32_t>(s));
    }
    for (size_t slot = before; slot < slots_.size(); slot++) {
        map_slot(static_cast<uint32_t>(slot), slots_[slot]);
    }
}

void Machine::show_everything() {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        unsigned long start, end;
        if (std::sscanf(line.c_str(), "%lx-%lx", &start, &end) == 2 && start >> 47 == 0) {
            show(reinterpret_cast<void*>(start), end - start);
        }
    }
}

uint64_t Machine::gpa(const void* address) const {
    const auto va = reinterpret_cast<uint64_t>(address);
    for (size_t slot = 1; slot < slots_.size(); slot++) {
        if (slots_[slot] == va >> DUNE_SLOT_SHIFT) {
            return slot << DUNE_SLOT_SHIFT | (va & ((1ULL << DUNE_SLOT_SHIFT) - 1));
        }
    }
    return 0;
}

uint64_t Machine::cr3() const {
    return gpa(tables[0]);
}

dune_stats Machine::stats() const {
    dune_stats stats = {};
    stats.size = sizeof(stats);
    if (ioctl(fd_, DUNE_GET_STATS, &stats) != 0) {
        fail("DUNE_GET_STATS");
    }
    return stats;
}

std::ostream& operator<<(std::ostream& out, const End& end) {
    return out << "error " << end.error << ", exit " << end.exit << ", argument 0x" << std::hex
               << end.argument << std::dec << " " << end.text;
}

Vcpu& Vcpu::get() {
    thread_local std::unique_ptr<Vcpu> vcpu;
    if (!vcpu || vcpu->pid_ != getpid()) {
        if (vcpu) {
            // The parent's: its mappings were not copied, its file is only a name.
            close(vcpu->fd_);
            static_cast<void>(vcpu.release());
        }
        vcpu = std::make_unique<Vcpu>();
    }
    return *vcpu;  // NOLINT(clang-analyzer-cplusplus.NewDelete): make_unique() above
}

Vcpu::Vcpu() : pid_(getpid()) {
    Machine& machine = Machine::get();
    dune_vcpu_create create = {};
    create.size = sizeof(create);
    fd_ = ioctl(machine.fd(), DUNE_CREATE_VCPU, &create);
    if (fd_ < 0) {
        fail("DUNE_CREATE_VCPU");
    }
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    void* door = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd_, machine.info().door_offset);
    if (page == MAP_FAILED || door == MAP_FAILED) {
        fail("mmap of a vCPU");
    }
    page_ = static_cast<dune_vcpu_page*>(page);
    door_ = static_cast<volatile char*>(door);
    stack_ = map(kStackSize);
    cpu_ = make_cpu();
}

Vcpu::~Vcpu() {
    if (pid_ != getpid()) {
        return;
    }
    munmap(page_, 4096);
    munmap(const_cast<char*>(door_), 4096);
    munmap(stack_, kStackSize);
    free_cpu(cpu_);
    close(fd_);
}

char* map(size_t size, int protection, int flags) {
    void* memory = mmap(nullptr, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (memory == MAP_FAILED) {
        fail("mmap");
    }
    Machine::get().show(memory, size);
    return static_cast<char*>(memory);
}

void Vcpu::prepare(void (*function)(void*), void* argument, const Options& options) {
    Machine& machine = Machine::get();
    if (options.rescan) {
        machine.show_everything();
    }
    std::memset(&page_->regs, 0, sizeof(page_->regs));
    page_->regs.rdi = reinterpret_cast<uint64_t>(argument);
    page_->regs.rsi = reinterpret_cast<uint64_t>(function);
    page_->regs.rsp = reinterpret_cast<uint64_t>(stack_ + kStackSize - 256);
    page_->rip = reinterpret_cast<uint64_t>(guest_start);
    if (options.traps) {
        start_with_traps(*page_, cpu_);
    }
    page_->rflags = 2;
    page_->cr3 = machine.cr3();
    page_->fs_base = read_fs_base();
    page_->gate_start = options.gate ? 0x1000 : 0;
    page_->gate_end = options.gate ? ~0ULL >> 17 : 0;
    page_->set = DUNE_SET_RESET | DUNE_SET_RIP | DUNE_SET_CR3 | DUNE_SET_FS_BASE | DUNE_SET_GATE;
    page_->flags = options.fast ? DUNE_RUN_FAST : 0;
}

End Vcpu::enter(void (*function)(void*), void* argument, const Options& options) {
    prepare(function, argument, options);
    return run(options);
}

long Vcpu::run_once(bool by_door) {
    if (by_door) {
        asm volatile(".byte 0x8a, 0x00 # mov (%%rax), %%al" : : "a"(door_) : "memory");
        if (page_->exit != 0) {
            return 0;
        }
    }
    return host_call(SYS_ioctl, fd_, DUNE_RUN);
}

End Vcpu::run(const Options& options) {
    bool by_door = options.door;
    for (;;) {
        const int handlers_before = handlers;
        if (const long error = run_once(by_door); error != 0) {
            return {error, 0, 0, {}};
        }
        switch (page_->exit) {
            case DUNE_EXIT_BOUNCE:
                by_door = options.door || !page_->progress;
                continue;
            case DUNE_EXIT_SYSCALL:
                do_call(options, handlers_before);
                by_door = options.door;
                continue;
            default:
                return {0, page_->exit, page_->regs.rdi,
                        page_->exit == DUNE_EXIT_DEATH ? page_->death.text : ""};
        }
    }
}

namespace {

bool makes_a_process(long nr, uint64_t flags) {
    if (nr == SYS_clone3) {
        flags = *reinterpret_cast<const uint64_t*>(flags);  // the first of struct clone_args
        nr = SYS_clone;
    }
    return nr == SYS_fork || nr == SYS_vfork ||
           (nr == SYS_clone && (!(flags & CLONE_VM) || flags & CLONE_VFORK));
}

// What Linux does of its own when a call was interrupted (signal(7)).
bool ends_with_eintr(int restart, int handled, int restarting) {
    switch (restart) {
        case 512:  // ERESTARTSYS
            return handled > restarting;
        case 514:  // ERESTARTNOHAND
        case 516:  // ERESTART_RESTARTBLOCK
            return handled > 0;
    }
    return false;
}

}  // namespace

void Vcpu::do_call(const Options& options, int handlers_before) {
    static_assert(sizeof(sig_atomic_t) == sizeof(int));
    dune_regs& r = page_->regs;
    const int handled = handlers - handlers_before;
    const int restarting = handlers_that_restart;
    handlers_that_restart = 0;
    if (ends_with_eintr(page_->restart, handled, restarting)) {
        r.rax = static_cast<uint64_t>(-EINTR);
        return;
    }
    const auto nr = static_cast<long>(r.rax);
    // A null pointer is for Linux to refuse.
    if ((nr == SYS_clone3 && r.rdi == 0) || !makes_a_process(nr, r.rdi)) {
        r.rax = static_cast<uint64_t>(host_call(
            nr, static_cast<long>(r.rdi), static_cast<long>(r.rsi), static_cast<long>(r.rdx),
            static_cast<long>(r.r10), static_cast<long>(r.r8), static_cast<long>(r.r9)));
        return;
    }
    const dune_vcpu_page snapshot = *page_;
    const uint64_t fs_base = read_fs_base();
    const long pid =
        raw_call(nr, static_cast<long>(r.rdi), nr == SYS_clone3 ? static_cast<long>(r.rsi) : 0,
                 static_cast<long>(r.rdx), static_cast<long>(r.r10), 0, 0);
    if (pid == 0) {
        go_on_in_child(snapshot, fs_base, options);
    }
    r.rax = static_cast<uint64_t>(pid);
}

// In the child: a vCPU of its own, where the parent's was. Nothing of the parent's stack
// is given back, as after vfork() it is the parent's still.
void Vcpu::go_on_in_child(dune_vcpu_page snapshot, uint64_t fs_base, const Options& options) {
    auto* vcpu = new Vcpu();
    dune_vcpu_page& page = vcpu->page();
    page.regs = snapshot.regs;
    page.regs.rax = 0;
    page.rip = snapshot.rip;
    page.rflags = snapshot.rflags;
    page.cr3 = Machine::get().cr3();
    page.fs_base = fs_base;
    page.set = DUNE_SET_RIP | DUNE_SET_CR3 | DUNE_SET_FS_BASE;
    page.flags = snapshot.flags;
    const End end = vcpu->run(options);
    _exit(end.left() ? static_cast<int>(end.argument & 0xff) : 120);
}

}  // namespace guest
