// SPDX-License-Identifier: MIT
//
// Random page-table operations against a std::map, also with memory running out at every
// allocation they make.
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <random>

#include "fake_backing.h"
#include "vm_model.h"

namespace dune::test {
namespace {

// Few enough pages that operations meet, at places where all levels end.
constexpr std::uint64_t kArea = 0x5555'4000'0000 - 4 * k2M;
constexpr std::uint64_t kAreaLen = 8 * k2M;

struct Operation {
    enum Kind { MapPhys, MapPages, Protect, Unmap, Insert, LookupCreate } kind;
    std::uint64_t va;
    std::uint64_t len;
    physaddr_t pa;
    int perm;
};

std::ostream& operator<<(std::ostream& os, const Operation& o) {
    return os << "kind " << o.kind << std::hex << " va " << o.va << " len " << o.len << " pa "
              << o.pa << " perm " << o.perm << std::dec;
}

class Generator {
  public:
    explicit Generator(unsigned seed) : random_(seed) {}

    Operation next() {
        static constexpr int kPerms[] = {
            PERM_R,          PERM_R | PERM_W,   PERM_R | PERM_X,  PERM_NONE,
            PERM_R | PERM_U, PERM_R | PERM_COW, PERM_R | PERM_UC, PERM_R | PERM_W | PERM_USR2};
        Operation o{};
        const unsigned dice = pick(20);
        o.kind = dice < 5    ? Operation::MapPhys
                 : dice < 8  ? Operation::MapPages
                 : dice < 14 ? Operation::Protect
                 : dice < 18 ? Operation::Unmap
                 : dice < 19 ? Operation::Insert
                             : Operation::LookupCreate;
        o.perm = kPerms[pick(std::size(kPerms))];
        const bool big =
            (o.kind == Operation::MapPhys || o.kind == Operation::MapPages) && pick(3) == 0;
        const std::uint64_t unit = big ? k2M : k4K;
        const std::uint64_t units = kAreaLen / unit;
        const std::uint64_t start = pick(units);
        std::uint64_t count = 1;
        if (o.kind == Operation::Protect && pick(3) == 0)
            count = units - start;
        else if (o.kind != Operation::Insert && o.kind != Operation::LookupCreate)
            count = 1 + pick(std::min<std::uint64_t>(units - start, big ? 2 : 700));
        if (big)
            o.perm |= PERM_BIG;
        o.va = kArea + start * unit;
        o.len = count * unit;
        o.pa = 0x20'0000'0000 + pick(64) * unit;
        return o;
    }
    std::uint64_t pick(std::uint64_t n) { return random_() % n; }

  private:
    std::mt19937 random_;
};

class VmModel : public ::testing::Test {
  protected:
    void SetUp() override {
        root_ = static_cast<ptent_t*>(dune_page2va(mm::page_alloc_zeroed()));
        guest_ = dune_page_alloc();
    }
    void TearDown() override {
        dune_vm_free(root_);
        EXPECT_EQ(guest_->ref, 1U);
        dune_page_put(guest_);
    }

    int run(const Operation& o) {
        ptent_t* slot = nullptr;
        switch (o.kind) {
            case Operation::MapPhys:
                return dune_vm_map_phys(root_, at(o.va), o.len, at(o.pa), o.perm);
            case Operation::MapPages:
                return dune_vm_map_pages(root_, at(o.va), o.len, o.perm);
            case Operation::Protect:
                return dune_vm_mprotect(root_, at(o.va), o.len, o.perm);
            case Operation::Unmap:
                return dune_vm_unmap(root_, at(o.va), o.len);
            case Operation::Insert:
                return dune_vm_insert_page(root_, at(o.va), guest_, o.perm);
            case Operation::LookupCreate:
                return dune_vm_lookup(root_, at(o.va), CREATE_NORMAL, &slot);
        }
        return -ENOSYS;
    }

    // In the model a large page that is touched in part becomes small ones.
    static void split(Model& model, std::uint64_t va) {
        const auto it = model.find(va);
        if (it == model.end() || it->second.size == k4K)
            return;
        const std::uint64_t base = va & ~(k2M - 1);
        for (std::uint64_t p = base; p < base + k2M; p += k4K)
            model[p].size = k4K;
    }
    static void split_ends(Model& model, const Operation& o) {
        if (o.va % k2M != 0)
            split(model, o.va);
        if ((o.va + o.len) % k2M != 0)
            split(model, o.va + o.len - k4K);
    }

    // What the operation should have done; the tables tell which pages were taken.
    void predict(Model& model, const Operation& o, int rc) {
        const auto first = model.lower_bound(o.va);
        const auto last = model.lower_bound(o.va + o.len);
        const ptent_t bits = mm::perm_bits(o.perm);
        const std::uint64_t size = (o.perm & PERM_BIG) != 0 ? k2M : k4K;
        switch (o.kind) {
            case Operation::LookupCreate:
                EXPECT_EQ(rc, 0);
                return;
            case Operation::Unmap:
                EXPECT_EQ(rc, first == last ? -EINVAL : 0);
                split_ends(model, o);
                model.erase(model.lower_bound(o.va), model.lower_bound(o.va + o.len));
                return;
            case Operation::Protect:
                EXPECT_EQ(rc, first == last ? -EINVAL : 0);
                split_ends(model, o);
                for (auto it = model.lower_bound(o.va); it != model.lower_bound(o.va + o.len); ++it)
                    it->second.flags = bits | (it->second.flags & PTE_POOL);
                return;
            case Operation::MapPhys:
            case Operation::MapPages:
            case Operation::Insert:
                EXPECT_EQ(rc, 0);
                split_ends(model, o);
                for (std::uint64_t offset = 0; offset < o.len; offset += k4K) {
                    ModelPage& page = model[o.va + offset];
                    page = {o.pa + offset, bits, size};
                    if (o.kind == Operation::MapPhys)
                        continue;
                    page.flags |= PTE_POOL;
                    struct page* const pg = dune_vm_lookup_page(root_, at(o.va + offset));
                    ASSERT_NE(pg, nullptr);
                    page.pa = dune_page2pa(pg);
                    ASSERT_TRUE(o.kind != Operation::Insert || pg == guest_);
                }
                // A small page in a large one: all of it was split. A large one swallows.
                if (size == k4K && o.kind != Operation::LookupCreate)
                    for (std::uint64_t va = o.va; va < o.va + o.len; va += k2M)
                        split(model, va);
                return;
        }
    }

    // References: each page of the pool has as many as entries name it.
    void check_references(const Model& model) {
        std::map<physaddr_t, unsigned> expected;
        for (const auto& [va, page] : model)
            if ((page.flags & PTE_POOL) != 0)
                ++expected[page.pa];
        ++expected[dune_page2pa(guest_)];
        for (const auto& [pa, references] : expected)
            ASSERT_EQ(dune_pa2page(pa)->ref, references) << std::hex << pa;
    }

    FakeBacking backing_;
    ptent_t* root_ = nullptr;
    page* guest_ = nullptr;
};

TEST_F(VmModel, RandomOperations) {
    for (unsigned seed = 1; seed <= 4; ++seed) {
        Generator generator(seed);
        Model model = read_tables(root_);
        for (int i = 0; i < 250; ++i) {
            const Operation o = generator.next();
            fake().forget_flushes();
            const int rc = run(o);
            const Model before = model;
            predict(model, o, rc);
            const Model now = read_tables(root_);
            ASSERT_TRUE(same(model, now)) << "seed " << seed << " step " << i << ": " << o;
            ASSERT_NO_FATAL_FAILURE(check_references(now)) << o;
            // A changed translation is out of the TLB.
            for (const auto& [va, page] : before) {
                const auto it = now.find(va);
                const bool changed =
                    it == now.end() || it->second.pa != page.pa || it->second.flags != page.flags;
                ASSERT_TRUE((page.flags & PTE_P) == 0 || !changed || fake().was_flushed(va))
                    << std::hex << va << " " << o;
            }
        }
    }
}

TEST_F(VmModel, NothingIsHalfDoneWhenMemoryRunsOut) {
    Generator generator(99);
    unsigned failures = 0;
    for (int i = 0; i < 120; ++i) {
        const Operation o = generator.next();
        const Model before = read_tables(root_);
        const std::size_t used = mm::pool_stats().used;
        // One page more each time, until there is enough.
        int rc = -ENOMEM;
        for (std::size_t spare = 0; rc == -ENOMEM; spare = spare < 16 ? spare + 1 : spare * 5 / 4) {
            mm::pool_set_limit(used + spare);
            rc = run(o);
            mm::pool_set_limit(MAX_PAGES);
            if (rc != -ENOMEM)
                break;
            ++failures;
            ASSERT_EQ(mm::pool_stats().used, used) << "pages were lost: " << o;
            ASSERT_TRUE(same(before, read_tables(root_))) << o;
        }
        ASSERT_TRUE(rc == 0 || rc == -EINVAL) << rc << " " << o;
    }
    EXPECT_GT(failures, 200U) << "the test has lost its subject";
}

TEST_F(VmModel, CloneIsAllOrNothing) {
    Generator generator(5);
    for (int i = 0; i < 60; ++i)
        run(generator.next());
    const Model before = read_tables(root_);
    const std::size_t used = mm::pool_stats().used;
    ptent_t* copy = nullptr;
    std::size_t spare = 0;
    for (; copy == nullptr; ++spare) {
        ASSERT_LT(spare, 64U);
        ASSERT_EQ(mm::pool_stats().used, used);
        ASSERT_TRUE(same(before, read_tables(root_)));
        mm::pool_set_limit(used + spare);
        copy = dune_vm_clone(root_);
    }
    EXPECT_GT(spare, 5U);
    mm::pool_set_limit(MAX_PAGES);
    Model expected = before;
    for (auto& [va, page] : expected)
        if ((page.flags & (PTE_W | PTE_POOL)) == (PTE_W | PTE_POOL))
            page.flags = (page.flags & ~PTE_W) | PTE_COW;
    EXPECT_TRUE(same(expected, read_tables(copy)));
    EXPECT_TRUE(same(expected, read_tables(root_)));
    dune_vm_free(copy);
    EXPECT_EQ(mm::pool_stats().used, used);
    check_references(read_tables(root_));
}

}  // namespace
}  // namespace dune::test
