// SPDX-License-Identifier: MIT
// Page tables as the CPU sees them: what libdune/vm.h puts into entries, and what comes of it.
#include <sys/mman.h>

#include <csetjmp>
#include <cstring>
#include <thread>
#include <vector>

#include "support.h"

namespace {

using namespace dune::test;

/** Addresses at which nothing of Linux' is, each test has some. */
char* space(unsigned number) {
    return reinterpret_cast<char*>(0x356000000000 + number * BIG_1GB_PGSIZE);
}

bool cpu_has(std::uint32_t leaf, std::uint32_t subleaf, char reg, unsigned bit) {
    std::uint32_t a, b, c, d;
    cpuid_count(leaf, subleaf, &a, &b, &c, &d);
    return ((reg == 'b' ? b : reg == 'c' ? c : d) >> bit & 1) != 0;
}

struct {
    volatile std::uint64_t code;
    volatile std::uintptr_t address;
    volatile int count;
    sigjmp_buf back;
} fault;

void leave_by_jump(std::uintptr_t address, std::uint64_t code, dune_tf*) {
    fault.address = address;
    fault.code = code;
    fault.count = fault.count + 1;
    sti();
    siglongjmp(fault.back, 1);
}

/** The error code of the page fault that an access makes; -1 if it makes none. */
template <class Access>
long fault_of(Access access) {
    fault.count = 0;
    if (sigsetjmp(fault.back, 0) == 0)
        access();
    return fault.count == 0 ? -1 : static_cast<long>(fault.code);
}

class RuntimeVm : public RuntimeTest {
  protected:
    void SetUp() override {
        RuntimeTest::SetUp();
        dune_register_pgflt_handler(leave_by_jump);
    }
    void TearDown() override { dune_register_pgflt_handler(nullptr); }
};

void write_to(char* where) {
    *static_cast<volatile char*>(where) = 1;
}

char read_from(const char* where) {
    return *static_cast<const volatile char*>(where);
}

TEST_F(RuntimeVm, RightsAreTheEntrys) {
    // Linux would allow all of it.
    Pages memory(1, PROT_READ | PROT_WRITE | PROT_EXEC, space(39));
    char* const page = space(0);
    ASSERT_EQ(
        dune_vm_map_phys(pgroot, page, PGSIZE, reinterpret_cast<void*>(dune_va_to_pa(memory.at())),
                         PERM_R | PERM_W),
        0);
    *page = static_cast<char>(0xc3);  // ret
    const auto call = [page] { reinterpret_cast<void (*)()>(page)(); };
    EXPECT_EQ(fault_of(call), static_cast<long>(FEC_P | FEC_I));
    EXPECT_EQ(fault.address, reinterpret_cast<std::uintptr_t>(page));
    ASSERT_EQ(dune_vm_mprotect(pgroot, page, PGSIZE, PERM_R | PERM_X), 0);
    EXPECT_EQ(fault_of(call), -1);
    EXPECT_EQ(fault_of([page] { write_to(page); }), static_cast<long>(FEC_P | FEC_W));
    ASSERT_EQ(dune_vm_mprotect(pgroot, page, PGSIZE, PERM_NONE), 0);
    EXPECT_EQ(fault_of([page] { read_from(page); }), 0);
    ASSERT_EQ(dune_vm_mprotect(pgroot, page, PGSIZE, PERM_R), 0);
    EXPECT_EQ(fault_of([page] { read_from(page); }), -1);
    EXPECT_EQ(read_from(page), static_cast<char>(0xc3));
    ASSERT_EQ(dune_vm_unmap(pgroot, page, PGSIZE), 0);
    EXPECT_EQ(fault_of([page] { read_from(page); }), 0);
}

/** Memory of Linux' in pages of a size: the same at both addresses; a part of it changed. */
void check_large_pages(char* alias, std::size_t size, int perm, int create) {
    // More than the machine may have: most of it is never touched.
    void* const mapping =
        mmap(space(40 + static_cast<unsigned>(create)), size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    ASSERT_NE(mapping, MAP_FAILED);
    char* const memory = static_cast<char*>(mapping);
    char* const far = memory + size - PGSIZE;
    *memory = 5;
    *far = 6;
    const physaddr_t pa = dune_va_to_pa(memory);
    ASSERT_NE(pa, 0U);
    ASSERT_EQ(
        dune_vm_map_phys(pgroot, alias, size, reinterpret_cast<void*>(pa), PERM_R | PERM_W | perm),
        0);
    ptent_t* entry = nullptr;
    ASSERT_EQ(dune_vm_lookup(pgroot, alias, create, &entry), 0);
    EXPECT_EQ(*entry & (PTE_P | PTE_PS), PTE_P | PTE_PS);
    EXPECT_EQ(read_from(alias), 5);
    EXPECT_EQ(read_from(alias + size - PGSIZE), 6);
    *static_cast<volatile char*>(alias + 3 * PGSIZE) = 7;
    EXPECT_EQ(memory[3 * PGSIZE], 7);
    // One page of it: the large one is cut, and its rest stays as it was.
    ASSERT_EQ(dune_vm_mprotect(pgroot, alias + 3 * PGSIZE, PGSIZE, PERM_R), 0);
    EXPECT_EQ(fault_of([=] { write_to(alias + 3 * PGSIZE); }), static_cast<long>(FEC_P | FEC_W));
    EXPECT_EQ(fault_of([=] { write_to(alias + 4 * PGSIZE); }), -1);
    EXPECT_EQ(fault_of([=] { write_to(alias + size - PGSIZE); }), -1);
    EXPECT_EQ(*far, 1);
    ASSERT_EQ(dune_vm_unmap(pgroot, alias, size), 0);
    EXPECT_EQ(fault_of([=] { read_from(alias + 4 * PGSIZE); }), 0);
    EXPECT_EQ(*far, 1) << "it is Linux' memory still";
    munmap(memory, size);
}

TEST_F(RuntimeVm, LargePages) {
    check_large_pages(space(1), BIG_PGSIZE, PERM_BIG, CREATE_BIG);
    ASSERT_EQ(dune_vm_map_pages(pgroot, space(2), BIG_PGSIZE, PERM_R | PERM_W | PERM_BIG), 0);
    for (std::size_t at = 0; at < BIG_PGSIZE; at += 64 * PGSIZE)
        EXPECT_EQ(read_from(space(2) + at), 0) << "pages of the pool are zeroed";
    write_to(space(2) + BIG_PGSIZE - 1);
    ASSERT_EQ(dune_vm_unmap(pgroot, space(2), BIG_PGSIZE), 0);
}

TEST_F(RuntimeVm, PagesOfAGib) {
    if (!cpu_has(0x80000001, 0, 'd', 26))
        GTEST_SKIP() << "this CPU has no pages of 1 GiB";
    check_large_pages(space(3), BIG_1GB_PGSIZE, PERM_BIG_1GB, CREATE_BIG_1GB);
}

int count_dirty(const void* arg, ptent_t* entry, void*) {
    auto* const counts = *static_cast<int* const*>(arg);
    counts[0] += (*entry & PTE_A) != 0 ? 1 : 0;
    counts[1] += (*entry & PTE_D) != 0 ? 1 : 0;
    return 0;
}

TEST_F(RuntimeVm, AccessedAndDirtyAreTheCpus) {
    constexpr std::size_t kPages = 16;
    char* const pages = space(4);
    ASSERT_EQ(dune_vm_map_pages(pgroot, pages, kPages * PGSIZE, PERM_R | PERM_W), 0);
    for (std::size_t i = 0; i < kPages; ++i) {
        ptent_t* entry = nullptr;
        ASSERT_EQ(dune_vm_lookup(pgroot, pages + i * PGSIZE, CREATE_NONE, &entry), 0);
        *entry &= ~(PTE_A | PTE_D);
        dune_flush_tlb_one(reinterpret_cast<unsigned long>(pages + i * PGSIZE));
    }
    for (std::size_t i = 0; i < kPages; i += 2)
        read_from(pages + i * PGSIZE);
    for (std::size_t i = 0; i < kPages; i += 4)
        write_to(pages + i * PGSIZE);
    int counts[2] = {};
    int* const argument = counts;
    ASSERT_EQ(dune_vm_page_walk(pgroot, pages, pages + kPages * PGSIZE - 1, count_dirty, &argument),
              0);
    EXPECT_EQ(counts[0], 8);
    EXPECT_EQ(counts[1], 4);
    ASSERT_EQ(dune_vm_unmap(pgroot, pages, kPages * PGSIZE), 0);
}

/** Two address spaces that differ in one page. */
class TwoSpaces {
  public:
    explicit TwoSpaces(char* page) : page_(page), home_(read_cr3()) {
        EXPECT_EQ(dune_vm_map_pages(pgroot, page, PGSIZE, PERM_R | PERM_W), 0);
        *page = 0;
        for (int i = 0; i < 2; ++i) {
            roots_[i] = dune_vm_clone(pgroot);
            EXPECT_NE(roots_[i], nullptr);
            EXPECT_EQ(dune_vm_map_pages(roots_[i], page, PGSIZE, PERM_R | PERM_W), 0);
            contents(i)[0] = static_cast<char>(i + 1);
        }
    }
    ~TwoSpaces() {
        load_cr3(home_);
        for (ptent_t* const root : roots_)
            dune_vm_free(root);
        EXPECT_EQ(dune_vm_unmap(pgroot, page_, PGSIZE), 0);
    }
    TwoSpaces(const TwoSpaces&) = delete;
    TwoSpaces& operator=(const TwoSpaces&) = delete;

    unsigned long cr3(int i) const { return dune_va_to_pa(roots_[i]); }
    ptent_t* root(int i) const { return roots_[i]; }
    unsigned long home() const { return home_; }
    /** The page that a space has there, at the pool's own address. */
    char* contents(int i) const {
        return static_cast<char*>(dune_page2va(dune_vm_lookup_page(roots_[i], page_)));
    }

  private:
    char* const page_;
    const unsigned long home_;
    ptent_t* roots_[2];
};

TEST_F(RuntimeVm, SeveralRoots) {
    char* const page = space(5);
    const TwoSpaces spaces(page);
    for (int round = 0; round < 10; ++round) {
        for (int i = 0; i < 2; ++i) {
            load_cr3(spaces.cr3(i));
            EXPECT_EQ(read_from(page), i + 1);
        }
        load_cr3(spaces.home());
        EXPECT_EQ(read_from(page), 0);
    }
}

// Linux never sees a PCID of ours, nor does a change of CR3 here leave the guest.
TEST_F(RuntimeVm, ProcessContextIdentifiers) {
    constexpr unsigned kPcidBit = 17, kInvpcidBit = 10;
    if (!cpu_has(1, 0, 'c', kPcidBit))
        GTEST_SKIP() << "this CPU has no PCIDs";
    char* const page = space(6);
    const TwoSpaces spaces(page);
    const unsigned long cr4 = read_cr4();
    write_cr4(cr4 | CR4_PCIDE);
    const auto go_to = [&](int i) {
        load_cr3(spaces.cr3(i) | static_cast<unsigned long>(i + 1) | CR3_NOFLUSH);
    };
    for (int round = 0; round < 10; ++round) {
        for (int i = 0; i < 2; ++i) {
            go_to(i);
            EXPECT_EQ(read_cr3() & 0xfff, static_cast<unsigned long>(i + 1));
            EXPECT_EQ(read_from(page), i + 1);
        }
    }
    // A page of the other space is replaced. What the TLB has of it lives on until it is told.
    go_to(0);
    const auto replace = [&](char contents) {
        EXPECT_EQ(dune_vm_map_pages(spaces.root(1), page, PGSIZE, PERM_R | PERM_W), 0);
        spaces.contents(1)[0] = contents;
    };
    if (cpu_has(7, 0, 'b', kInvpcidBit)) {
        replace(12);
        invpcid(INVPCID_ADDRESS, 2, page);
        go_to(1);
        EXPECT_EQ(read_from(page), 12);
        go_to(0);
        replace(13);
        invpcid(INVPCID_SINGLE, 2, nullptr);
        go_to(1);
        EXPECT_EQ(read_from(page), 13);
        go_to(0);
        replace(14);
        invpcid(INVPCID_ALL, 0, nullptr);
        go_to(1);
        EXPECT_EQ(read_from(page), 14);
        go_to(0);
    }
    replace(15);
    load_cr3(spaces.cr3(1) | 2);  // without CR3_NOFLUSH
    EXPECT_EQ(read_from(page), 15);
    load_cr3(spaces.home());
    write_cr4(cr4);
}

TEST_F(RuntimeVm, GlobalPagesOutliveAChangeOfCr3) {
    char* const page = space(7);
    const TwoSpaces spaces(page);
    for (int i = 0; i < 2; ++i) {
        ptent_t* entry = nullptr;
        ASSERT_EQ(dune_vm_lookup(spaces.root(i), page, CREATE_NONE, &entry), 0);
        *entry |= PTE_G;
    }
    const unsigned long cr4 = read_cr4();
    write_cr4(cr4 | CR4_PGE);
    load_cr3(spaces.cr3(0));
    EXPECT_EQ(read_from(page), 1);
    load_cr3(spaces.cr3(1));
    dune_flush_tlb_one(reinterpret_cast<unsigned long>(page));
    EXPECT_EQ(read_from(page), 2);
    // dune_vm_mprotect() flushes such pages one by one, for a change of CR3 would not.
    ASSERT_EQ(dune_vm_mprotect(spaces.root(1), page, PGSIZE, PERM_R), 0);
    EXPECT_EQ(fault_of([page] { write_to(page); }), static_cast<long>(FEC_P | FEC_W));
    load_cr3(spaces.home());
    write_cr4(cr4);
    dune_flush_tlb_one(reinterpret_cast<unsigned long>(page));
}

// Threads in ring 0 change neighbours in the same tables, each its own pages.
TEST_F(RuntimeVm, ThreadsChangeOneRoot) {
    constexpr int kThreads = 4, kRounds = 150;
    dune_register_pgflt_handler(nullptr);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i)
        threads.emplace_back([i] {
            ASSERT_EQ(dune_enter(), 0);
            for (int round = 0; round < kRounds && !HasFailure(); ++round) {
                char* const page = space(8) + (round % 60 * kThreads + i) * PGSIZE;
                ASSERT_EQ(dune_vm_map_pages(pgroot, page, PGSIZE, PERM_R | PERM_W), 0);
                *page = static_cast<char>(i + 1);
                ASSERT_EQ(dune_vm_mprotect(pgroot, page, PGSIZE, PERM_R), 0);
                ASSERT_EQ(read_from(page), i + 1);
                ASSERT_EQ(dune_vm_mprotect(pgroot, page, PGSIZE, PERM_R | PERM_W), 0);
                write_to(page);
                ptent_t* entry = nullptr;
                ASSERT_EQ(dune_vm_lookup(pgroot, page, CREATE_NONE, &entry), 0);
                ASSERT_EQ(*entry & (PTE_P | PTE_W | PTE_D), PTE_P | PTE_W | PTE_D);
                ASSERT_EQ(dune_vm_unmap(pgroot, page, PGSIZE), 0);
                ASSERT_EQ(dune_vm_lookup(pgroot, page, CREATE_NONE, &entry), -ENOENT);
            }
        });
    for (auto& thread : threads)
        thread.join();
}

TEST_F(RuntimeVm, BadRangesAreErrors) {
    char* const page = space(9);
    ptent_t* entry = nullptr;
    const auto high = reinterpret_cast<void*>(std::uintptr_t{1} << 47);
    EXPECT_EQ(dune_vm_map_pages(pgroot, page + 1, PGSIZE, PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_map_pages(pgroot, page, PGSIZE - 1, PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_map_pages(pgroot, page, 0, PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_map_pages(pgroot, page, PGSIZE, PERM_W), -EINVAL);
    EXPECT_EQ(dune_vm_map_pages(pgroot, page + PGSIZE, BIG_PGSIZE, PERM_R | PERM_BIG), -EINVAL);
    EXPECT_EQ(dune_vm_map_pages(pgroot, high, PGSIZE, PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_map_phys(pgroot, page, PGSIZE, reinterpret_cast<void*>(1), PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_mprotect(pgroot, high, PGSIZE, PERM_R), -EINVAL);
    EXPECT_EQ(dune_vm_mprotect(pgroot, page, PGSIZE, PERM_R), -EINVAL) << "nothing is there";
    EXPECT_EQ(dune_vm_unmap(pgroot, page, PGSIZE), -EINVAL);
    EXPECT_EQ(dune_vm_unmap(pgroot, page, ~std::size_t{0} - PGMASK), -EINVAL);
    EXPECT_EQ(dune_vm_lookup(pgroot, page, CREATE_NONE, &entry), -ENOENT);
    EXPECT_EQ(dune_vm_lookup(pgroot, high, CREATE_NORMAL, &entry), -EINVAL);
    EXPECT_EQ(dune_vm_lookup_page(pgroot, page), nullptr);
    EXPECT_EQ(dune_va_to_pa(high), 0U);
}

}  // namespace
