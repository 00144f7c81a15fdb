// SPDX-License-Identifier: MIT
// The list of threads in Dune mode, and interrupts from one to another.
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "../mm/spinlock.h"
#include "process.h"
#include "sys.h"

namespace dune::rt {
namespace {

mm::SpinLock lock;
Thread* first;
std::uint32_t last_id;

std::uint32_t current_cpu() noexcept {
    unsigned cpu = 0;
    sys(SYS_getcpu, &cpu, nullptr, nullptr);
    return cpu;
}

}  // namespace

void threads_add(Thread& thread) noexcept {
    const std::uint32_t cpu = current_cpu();
    const mm::SpinGuard guard(lock);
    thread.cpu = cpu;
    thread.apic_id = ++last_id;
    thread.next = first;
    first = &thread;
}

void threads_remove(Thread& thread) noexcept {
    const mm::SpinGuard guard(lock);
    for (Thread** link = &first; *link != nullptr; link = &(*link)->next)
        if (*link == &thread) {
            *link = thread.next;
            return;
        }
}

void threads_forget() noexcept {
    lock.unlock();  // whoever held it is not in this process
    first = nullptr;
}

bool threads_find(bool (*f)(Thread&, void*) noexcept, void* context) noexcept {
    const mm::SpinGuard guard(lock);
    for (Thread* thread = first; thread != nullptr; thread = thread->next)
        if (f(*thread, context))
            return true;
    return false;
}

}  // namespace dune::rt

using namespace dune::rt;

extern "C" {

uint32_t dune_apic_id(void) {
    Thread* const thread = dune_in_guest() ? self() : current();
    if (thread == nullptr)
        return 0;
    thread->cpu = current_cpu();
    return thread->apic_id;
}

uint32_t dune_apic_id_for_cpu(uint32_t cpu, bool* error) {
    struct Wanted {
        std::uint32_t cpu, id;
    } wanted = {cpu, 0};
    const bool found = threads_find(
        [](Thread& thread, void* context) noexcept {
            auto* const want = static_cast<Wanted*>(context);
            want->id = thread.apic_id;
            return thread.cpu == want->cpu;
        },
        &wanted);
    if (error != nullptr)
        *error = !found;
    return found ? wanted.id : 0;
}

void dune_apic_send_ipi(uint8_t vector, uint32_t apic_id) {
    struct Wanted {
        std::uint32_t id, vector;
    } wanted = {apic_id, vector};
    // The list is locked meanwhile: a vCPU that goes closes its file after it left the list.
    threads_find(
        [](Thread& thread, void* context) noexcept {
            const auto* const want = static_cast<const Wanted*>(context);
            if (thread.apic_id != want->id)
                return false;
            sys(SYS_ioctl, thread.vcpu_fd, DUNE_INTERRUPT, &want->vector);
            return true;
        },
        &wanted);
}

void dune_apic_eoi(void) {
}

}  // extern "C"
