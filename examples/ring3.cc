// SPDX-License-Identifier: MIT
// Run a function in ring 3: it reaches nothing but its own pages, and asks for the rest.
#include <dune/process.h>
#include <dune/trap.h>

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>

namespace {

constexpr std::uint64_t kPrintNumber = 1;
constexpr std::uint64_t kFinish = 2;

/** The only system calls of the guest below. */
std::uint64_t ask(std::uint64_t what, std::uint64_t argument) {
    asm volatile("syscall" : "+a"(what) : "D"(argument) : "rcx", "r11", "memory");
    return what;
}

/**
 * What runs in ring 3. It is in pages of its own, and calls nothing that is not: `ask` is inlined.
 */
[[gnu::section(".text.guest"), gnu::aligned(4096), gnu::flatten, gnu::noinline,
  gnu::optimize("no-tree-vectorize")]] void
guest(std::uint64_t n) {
    std::uint64_t a = 0;
    std::uint64_t b = 1;
    for (; n != 0; --n) {
        ask(kPrintNumber, a);
        const std::uint64_t next = a + b;
        a = b;
        b = next;
    }
    ask(kFinish, 0);
}

void on_system_call(dune::Frame* frame) {
    if (frame->rax == kFinish)
        dune_ret_from_user(0);
    std::printf("%llu ", static_cast<unsigned long long>(ARG0(frame)));
}

void on_page_fault(std::uintptr_t address, std::uint64_t, dune::Frame*) {
    std::printf("ring 3 tried to use %#lx\n", static_cast<unsigned long>(address));
    dune_ret_from_user(1);
}

bool share(void* page, dune::Perm perm) {
    return dune::Process::tables()
        .map({static_cast<std::byte*>(page), PGSIZE}, dune_va_to_pa(page), perm)
        .ok();
}

}  // namespace

int main() {
    const auto process = dune::Process::enter();
    if (!process)
        return 1;
    void* const stack =
        mmap(nullptr, PGSIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    using dune::Perm;
    if (stack == MAP_FAILED || !share(stack, Perm::ReadWrite | Perm::User) ||
        !share(reinterpret_cast<void*>(&guest), Perm::ReadExecute | Perm::User))
        return 1;

    const dune::SyscallGuard calls(on_system_call);
    const dune::PageFaultGuard faults(on_page_fault);
    dune::Frame frame = {};
    frame.rip = reinterpret_cast<std::uint64_t>(&guest);
    // A function finds its stack 8 bytes off a multiple of 16, as after a call.
    frame.rsp = reinterpret_cast<std::uint64_t>(stack) + PGSIZE - 8;
    frame.rdi = 20;
    const int result = dune_jump_to_user(&frame);
    std::printf("\nring 3 ended with %d\n", result);
    return result;
}
