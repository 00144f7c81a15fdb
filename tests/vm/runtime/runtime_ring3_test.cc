// SPDX-License-Identifier: MIT
// Ring 3: system calls, faults, and what hostile code tries.
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <thread>

#include "support.h"

extern "C" {
extern char ring3_code[], ring3_getpid[], ring3_arguments[], ring3_registers[], ring3_cli[],
    ring3_hlt[], ring3_read_cr3[], ring3_in_port[], ring3_vmcall[], ring3_int80[], ring3_popf[],
    ring3_odd_flags[], ring3_odd_stack[], ring3_wrgsbase[], ring3_fs_read[], ring3_load[],
    ring3_store[], ring3_jump[], ring3_spin[], ring3_xmm[], ring3_divide[], ring3_int1[],
    ring3_int3[], ring3_int4[], ring3_int14[], ring3_int200[], ring3_selector[], ring3_odd_load[],
    ring3_odd_push[], ring3_far_jump[], ring3_far_return[], ring3_iret_ring0[];
}

namespace {

using namespace dune::test;

constexpr std::uint64_t kDone = 1000;
constexpr std::uint64_t kAdd = 1001;
constexpr int kFaulted = -100;

std::atomic<int> calls;
thread_local dune_tf fault_frame;
thread_local int fault_vector;

void on_syscall(dune_tf* tf) {
    ++calls;
    if (tf->rax == kDone)
        dune_ret_from_user(static_cast<int>(tf->rdi));
    if (tf->rax == kAdd)
        tf->rax = ARG0(tf) + ARG1(tf) + ARG2(tf) + ARG3(tf) + ARG4(tf) + ARG5(tf);
    else
        dune_passthrough_syscall(tf);
}

std::uintptr_t fault_addr;
std::uint64_t fault_code;

template <int kVector>
void on_fault(dune_tf* tf) {
    fault_frame = *tf;
    fault_vector = kVector;
    if ((tf->cs & 3) == 0) {
        std::fprintf(stderr, "ring 0 took vector %d, CR2 %#lx, error code %#lx\n", kVector,
                     fault_addr, fault_code);
        dune_dump_trap_frame(tf);
        abort();
    }
    dune_ret_from_user(kFaulted);
}

void on_page_fault(std::uintptr_t addr, std::uint64_t fec, dune_tf* tf) {
    fault_addr = addr;
    fault_code = fec;
    on_fault<T_PGFLT>(tf);
}

/** Memory that ring 3 may use, with these permissions. */
class Shared : public Pages {
  public:
    explicit Shared(std::size_t count, int perm = PERM_USTACK) : Pages(count) {
        for (std::size_t i = 0; i < count; ++i) {
            *static_cast<volatile char*>(at(i)) = 0;
            map(i, perm);
        }
    }
    ~Shared() {
        for (std::size_t i = 0; i < size() / PGSIZE; ++i)
            map(i, PERM_R | PERM_W | PERM_X);
    }

  private:
    void map(std::size_t i, int perm) const {
        const physaddr_t pa = dune_va_to_pa(at(i));
        EXPECT_EQ(dune_vm_map_phys(pgroot, at(i), PGSIZE, reinterpret_cast<void*>(pa), perm), 0);
    }
};

class RuntimeRing3 : public RuntimeTest {
  protected:
    void SetUp() override {
        RuntimeTest::SetUp();
        calls = 0;
        stack_.emplace(4);
        ASSERT_EQ(dune_vm_map_phys(pgroot, ring3_code, PGSIZE,
                                   reinterpret_cast<void*>(dune_va_to_pa(ring3_code)), PERM_UCODE),
                  0);
        dune_register_syscall_handler(on_syscall);
        dune_register_intr_handler(T_GPFLT, on_fault<T_GPFLT>);
        dune_register_intr_handler(T_ILLOP, on_fault<T_ILLOP>);
        dune_register_pgflt_handler(on_page_fault);
    }
    void TearDown() override {
        stack_.reset();
        for (int vector = 0; vector < 32; ++vector)
            dune_register_intr_handler(vector, nullptr);
        dune_register_pgflt_handler(nullptr);
    }

    int run(const char* code, std::uint64_t rdi = 0) {
        dune_tf tf = {};
        tf.rip = reinterpret_cast<std::uint64_t>(code);
        tf.rsp = stack_->address(4);
        tf.rdi = rdi;
        return dune_jump_to_user(&tf);
    }

    std::optional<Shared> stack_;
};

TEST_F(RuntimeRing3, SystemCalls) {
    EXPECT_EQ(run(ring3_getpid), getpid());
    EXPECT_EQ(calls, 2);
    EXPECT_EQ(run(ring3_arguments), 63);
    EXPECT_EQ(run(ring3_registers), 0);
    for (int i = 0; i < 1000; ++i)
        ASSERT_EQ(run(ring3_arguments), 63);
}

TEST_F(RuntimeRing3, VectorRegistersSurviveSystemCalls) {
    EXPECT_EQ(run(ring3_xmm), 0x12345);
}

TEST_F(RuntimeRing3, PrivilegedInstructionsAreRefused) {
    for (const char* code : {ring3_cli, ring3_hlt, ring3_read_cr3, ring3_in_port, ring3_int80}) {
        EXPECT_EQ(run(code), kFaulted);
        EXPECT_EQ(fault_vector, T_GPFLT);
        EXPECT_EQ(fault_frame.cs & 3, 3U);
        EXPECT_EQ(fault_frame.rip, reinterpret_cast<std::uint64_t>(code));
    }
    EXPECT_EQ(run(ring3_vmcall), kFaulted);
    EXPECT_EQ(fault_vector, T_ILLOP);
}

TEST_F(RuntimeRing3, FlagsStayHarmless) {
    const int flags = run(ring3_popf);
    EXPECT_EQ(flags & FL_IOPL_MASK, 0);
    EXPECT_NE(flags & FL_IF, 0);
    EXPECT_EQ(run(ring3_odd_flags), 7);
    EXPECT_EQ(run(ring3_odd_stack), 8);
    EXPECT_GT(getppid(), 0);
}

TEST_F(RuntimeRing3, FramesWithBadValues) {
    dune_tf tf = {};
    tf.rip = 0x0000800000000000;  // what SYSRET must not see
    tf.rsp = stack_->address(4);
    tf.rcx = tf.rip;
    EXPECT_EQ(dune_jump_to_user(&tf), kFaulted);
    EXPECT_EQ(fault_vector, T_GPFLT);
    tf.rip = 0xffff800000000000;
    EXPECT_EQ(dune_jump_to_user(&tf), kFaulted);
    EXPECT_EQ(fault_vector, T_PGFLT);
    tf.rip = reinterpret_cast<std::uint64_t>(ring3_getpid);
    tf.rsp = 0x8000000000000000;
    tf.cs = 0x10;
    tf.ss = 0x18;
    tf.rflags = ~std::uint64_t{0} & ~std::uint64_t{FL_TF};
    EXPECT_EQ(dune_jump_to_user(&tf), getpid());
}

TEST_F(RuntimeRing3, HandlerMakesABadReturnAddress) {
    dune_register_syscall_handler([](dune_tf* tf) {
        if (tf->rax == kDone)
            dune_ret_from_user(1);
        tf->rip = 0x0000900000000000;
        tf->rcx = tf->rip;
    });
    EXPECT_EQ(run(ring3_getpid), kFaulted);
    EXPECT_EQ(fault_vector, T_GPFLT);
}

template <int... kVectors>
void register_faults() {
    (dune_register_intr_handler(kVectors, on_fault<kVectors>), ...);
}

TEST_F(RuntimeRing3, ExceptionsComeFromRing3) {
    register_faults<T_DEBUG, T_BRKPT, T_OFLOW, T_STACK, T_ALIGN>();
    const struct {
        const char* code;
        int vector;
        std::uint64_t error;
        std::uint64_t rflags;
    } kCases[] = {
        {ring3_int3, T_BRKPT, 0, 0},          {ring3_int4, T_OFLOW, 0, 0},
        {ring3_int1, T_GPFLT, 0x0a, 0},       {ring3_int14, T_GPFLT, 0x72, 0},
        {ring3_int200, T_GPFLT, 0x642, 0},    {ring3_selector, T_GPFLT, 0x58, 0},
        {ring3_odd_load, T_ALIGN, 0, FL_AC},  {ring3_getpid, T_DEBUG, 0, FL_TF},
        {ring3_odd_push, T_STACK, 0, 0},      {ring3_far_jump, T_GPFLT, 0, 0},
        {ring3_iret_ring0, T_GPFLT, 0x10, 0},
    };
    for (const auto& test : kCases) {
        dune_tf tf = {};
        tf.rip = reinterpret_cast<std::uint64_t>(test.code);
        tf.rsp = stack_->address(3);
        tf.rflags = test.rflags;
        fault_vector = -1;
        EXPECT_EQ(dune_jump_to_user(&tf), kFaulted);
        EXPECT_EQ(fault_vector, test.vector) << &test - kCases;
        EXPECT_EQ(fault_frame.err, test.error) << &test - kCases;
    }
    EXPECT_GT(getppid(), 0);
}

/** Ring 3 goes to 32-bit code by itself: the GDT has it. A handler may not send it beyond 4 GiB. */
TEST_F(RuntimeRing3, ThirtyTwoBitCode) {
    constexpr std::uintptr_t kLow = 0x10000000;
    const Pages low(1, PROT_READ | PROT_WRITE | PROT_EXEC, reinterpret_cast<void*>(kLow));
    *low.at() = 0;
    ASSERT_EQ(
        dune_vm_map_phys(pgroot, low.at(), PGSIZE, reinterpret_cast<void*>(dune_va_to_pa(low.at())),
                         PERM_UCODE | PERM_W),
        0);
    register_faults<T_BRKPT, T_OFLOW, T_BOUND>();
    const auto run32 = [&](std::initializer_list<unsigned char> code) {
        std::copy(code.begin(), code.end(), low.at());
        dune_tf tf = {};
        tf.rip = reinterpret_cast<std::uint64_t>(ring3_far_return);
        tf.rsp = kLow + PGSIZE - 64;
        tf.rdi = kLow;
        fault_vector = -1;
        EXPECT_EQ(dune_jump_to_user(&tf), kFaulted);
        EXPECT_EQ(fault_frame.cs, 0x23U);
        return fault_vector;
    };
    EXPECT_EQ(run32({0xb0, 0x7f, 0x04, 0x01, 0xce}), T_OFLOW);        // INTO
    EXPECT_EQ(run32({0xb8, 5, 0, 0, 0, 0x62, 0x04, 0x24}), T_BOUND);  // BOUND
    EXPECT_EQ(run32({0x0f, 0x05}), T_ILLOP);                          // SYSCALL
    EXPECT_EQ(run32({0x0f, 0x34}), T_GPFLT);                          // SYSENTER
    EXPECT_EQ(run32({0xcc}), T_BRKPT);
    dune_register_intr_handler(T_BRKPT, [](dune_tf* tf) { tf->rip = 0x123400000000; });
    EXPECT_EQ(run32({0xcc}), T_GPFLT);
    EXPECT_EQ(fault_frame.rip, 0x123400000000U);
    EXPECT_EQ(
        dune_vm_map_phys(pgroot, low.at(), PGSIZE, reinterpret_cast<void*>(dune_va_to_pa(low.at())),
                         PERM_R | PERM_W | PERM_X),
        0);
}

TEST_F(RuntimeRing3, SegmentBases) {
    if ((read_cr4() & CR4_FSGSBASE) != 0) {
        EXPECT_EQ(run(ring3_wrgsbase, 0x7ff000), 0x7ff);
        EXPECT_GT(getppid(), 0);  // the library's own GS is as it was
        EXPECT_NE(dune_apic_id(), 0U);
    }
    Shared tls(1);
    reinterpret_cast<std::uint64_t*>(tls.at())[0] = 0x777;
    dune_set_user_fs(tls.address());
    EXPECT_EQ(dune_get_user_fs(), tls.address());
    EXPECT_EQ(run(ring3_fs_read), 0x777);
    EXPECT_EQ(dune_get_user_fs(), tls.address());
    dune_set_user_fs(0x8000000000000000);  // refused
    EXPECT_EQ(dune_get_user_fs(), tls.address());
    dune_set_user_fs(0);
}

TEST_F(RuntimeRing3, MemoryOfRing0IsOutOfReach) {
    static std::uint64_t secret = 1;
    const auto address = reinterpret_cast<std::uint64_t>(&secret);
    EXPECT_EQ(run(ring3_load, address), kFaulted);
    EXPECT_EQ(fault_addr, address);
    EXPECT_EQ(fault_code, FEC_P | FEC_U);
    EXPECT_EQ(run(ring3_store, address), kFaulted);
    EXPECT_EQ(fault_code, FEC_P | FEC_U | FEC_W);
    EXPECT_EQ(secret, 1U);
    EXPECT_EQ(run(ring3_jump, reinterpret_cast<std::uint64_t>(&dune_passthrough_syscall)),
              kFaulted);
    EXPECT_EQ(run(ring3_load, 0x123456000),
              kFaulted);  // where nothing is, there is a signal on Linux
}

TEST_F(RuntimeRing3, Nested) {
    static Shared inner(1);
    dune_register_syscall_handler([](dune_tf* tf) {
        if (tf->rax == kDone)
            dune_ret_from_user(static_cast<int>(tf->rdi));
        dune_tf other = {};
        other.rip = reinterpret_cast<std::uint64_t>(ring3_load);
        other.rsp = inner.address(1);
        other.rdi = inner.address();
        *reinterpret_cast<std::uint64_t*>(inner.at()) = 500;
        tf->rax = static_cast<std::uint64_t>(dune_jump_to_user(&other)) + 1;
    });
    EXPECT_EQ(run(ring3_getpid), 501);
    EXPECT_EQ(run(ring3_xmm), 0x12345);
}

TEST_F(RuntimeRing3, SignalsInterruptIt) {
    static volatile std::uint64_t* flag;
    Shared shared(1);
    flag = reinterpret_cast<std::uint64_t*>(shared.at());
    static volatile int from;
    from = 0;
    ASSERT_EQ(dune_register_signal_handler(SIGALRM,
                                           [](dune_tf* tf) {
                                               from = static_cast<int>(tf->cs & 3);
                                               *flag = 1;
                                           }),
              0);
    const itimerval timer = {{0, 0}, {0, 3000}};
    setitimer(ITIMER_REAL, &timer, nullptr);
    EXPECT_EQ(run(ring3_spin, shared.address()), 9);
    EXPECT_EQ(from, 3);
    dune_register_signal_handler(SIGALRM, nullptr);
    struct sigaction action = {};
    action.sa_handler = [](int) { *flag = 2; };
    sigaction(SIGALRM, &action, nullptr);
    *flag = 0;
    setitimer(ITIMER_REAL, &timer, nullptr);
    EXPECT_EQ(run(ring3_spin, shared.address()), 9);
    EXPECT_EQ(*flag, 2U);
    signal(SIGALRM, SIG_DFL);
}

TEST_F(RuntimeRing3, HandlersSkipInstructions) {
    dune_register_intr_handler(T_DIVIDE, [](dune_tf* tf) { tf->rip += 2; });
    EXPECT_EQ(run(ring3_divide), 11);
}

TEST_F(RuntimeRing3, CopyHelpersCheck) {
    Shared shared(2);
    Shared readonly(1, PERM_R | PERM_U);
    Pages kernel(1);
    char buffer[64] = "text";
    for (int round = 0; round < 2; ++round) {
        EXPECT_EQ(dune_copy_to_user(shared.at(1) - 2, "abcd", 5), 0);
        EXPECT_EQ(dune_copy_from_user(buffer, shared.at(1) - 2, 5), 0);
        EXPECT_STREQ(buffer, "abcd");
        EXPECT_EQ(dune_copy_to_user(readonly.at(), buffer, 4), -EFAULT);
        EXPECT_EQ(dune_copy_from_user(buffer, readonly.at(), 4), 0);
        EXPECT_EQ(dune_copy_from_user(buffer, kernel.at(), 4), -EFAULT);
        EXPECT_EQ(dune_copy_to_user(kernel.at(), buffer, 4), -EFAULT);
        EXPECT_EQ(dune_copy_from_user(buffer, reinterpret_cast<void*>(0x1000), 4), -EFAULT);
        EXPECT_EQ(dune_copy_from_user(buffer, reinterpret_cast<void*>(~0UL - 2), 4), -EFAULT);
        mprotect(shared.at(), PGSIZE, PROT_NONE);  // Linux refuses what the tables allow
        EXPECT_EQ(dune_copy_from_user(buffer, shared.at(), 4), -EFAULT);
        mprotect(shared.at(), PGSIZE, PROT_READ | PROT_WRITE);
        dune_protect_supervisor();
    }
    EXPECT_EQ(run(ring3_getpid), getpid());
}

TEST_F(RuntimeRing3, SupervisorModeAccessPrevention) {
    Shared shared(1);
    const Outcome outcome = in_child([&] {
        dune_register_pgflt_handler(nullptr);
        if ((dune_protect_supervisor() & CR4_SMAP) == 0)
            raise(SIGSEGV);  // a CPU without it
        return *static_cast<volatile char*>(shared.at());
    });
    EXPECT_TRUE(outcome.killed(SIGSEGV)) << outcome.status;
}

TEST_F(RuntimeRing3, InThreads) {
    std::atomic<int> good{0};
    std::thread threads[4];
    for (auto& thread : threads)
        thread = std::thread([&] {
            if (dune_enter() != 0)
                return;
            Shared stack(1);
            for (int i = 0; i < 200; ++i) {
                dune_tf tf = {};
                tf.rip = reinterpret_cast<std::uint64_t>(ring3_registers);
                tf.rsp = stack.address(1);
                good += dune_jump_to_user(&tf) == 0;
            }
        });
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(good, 800);
}

TEST_F(RuntimeRing3, WithoutHandlerItIsSaid) {
    dune_register_syscall_handler(nullptr);
    const Outcome outcome = in_child([this] { return run(ring3_getpid); });
    EXPECT_TRUE(outcome.killed(SIGSYS)) << outcome.status;
    EXPECT_NE(outcome.stderr_.find("no handler"), std::string::npos) << outcome.stderr_;
}

}  // namespace
