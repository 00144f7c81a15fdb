// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <functional>
#include <random>
#include <string>

#include "dune/elf.h"
#include "elf_builder.h"
#include "fuzz/elf_target.h"
#include "libdune/elf.h"

namespace dune::test {
namespace {

using elf::Image;

Result<Image> parse(const std::vector<unsigned char>& file) {
    return Image::parse(std::as_bytes(std::span(file)));
}

class TemporaryFile {
  public:
    explicit TemporaryFile(const std::vector<unsigned char>& content) {
        const int fd = mkstemp(path_);
        EXPECT_GE(fd, 0);
        EXPECT_EQ(write(fd, content.data(), content.size()), static_cast<ssize_t>(content.size()));
        close(fd);
    }
    ~TemporaryFile() { unlink(path_); }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    const char* path() const { return path_; }

  private:
    char path_[32] = "/tmp/libdune-elf-XXXXXX";
};

TEST(ElfImage, ReadsAGoodProgram) {
    for (const Elf64_Half type : {ET_DYN, ET_EXEC}) {
        const std::uint64_t base = type == ET_EXEC ? 0x400000 : 0;
        const std::vector<unsigned char> file = good_program(type).bytes();
        const Result<Image> image = parse(file);
        ASSERT_TRUE(image.ok()) << image.code();
        EXPECT_EQ(image->relocatable(), type == ET_DYN);
        EXPECT_EQ(image->entry(), base + 0x280);
        EXPECT_EQ(image->interpreter(), "/lib64/ld.so");
        EXPECT_FALSE(image->executable_stack());
        EXPECT_EQ(image->phdr_address(), base + sizeof(Elf64_Ehdr));
        EXPECT_EQ(image->phdr_count(), 5);
        ASSERT_EQ(image->segments().size(), 2U);
        EXPECT_EQ(image->segments()[0].prot, PROT_READ | PROT_EXEC);
        EXPECT_EQ(image->segments()[1].prot, PROT_READ | PROT_WRITE);
        EXPECT_EQ(image->segments()[1].mem_size, 0x2000U);
        EXPECT_EQ(image->first_page(), base);
        EXPECT_EQ(image->end_page(), base + 0x4000);
        EXPECT_TRUE(image->fits(0));
        EXPECT_EQ(image->fits(0x5555'5555'4000), type == ET_DYN);
        EXPECT_FALSE(image->fits(1));
        EXPECT_FALSE(image->fits(Image::kAddressEnd - 0x3000));
        EXPECT_FALSE(image->fits(~0ULL - 4095));
    }
}

TEST(ElfImage, ReadsThisProgram) {
    std::vector<unsigned char> file(1 << 16);
    FILE* const self = fopen("/proc/self/exe", "rb");
    ASSERT_NE(self, nullptr);
    file.resize(fread(file.data(), 1, file.size(), self));
    fseek(self, 0, SEEK_END);
    const auto size = static_cast<std::uint64_t>(ftell(self));
    fclose(self);
    const Result<Image> image = Image::parse(std::as_bytes(std::span(file)), size);
    ASSERT_TRUE(image.ok()) << image.code();
    EXPECT_GE(image->segments().size(), 2U);
    EXPECT_NE(image->phdr_address(), 0U);
    EXPECT_TRUE(image->interpreter().has_value());
}

TEST(ElfImage, RefusesDamage) {
    const struct {
        const char* what;
        std::function<void(ElfBuilder&)> damage;
        int code = -ENOEXEC;
    } cases[] = {
        {"magic", [](ElfBuilder& e) { e.header.e_ident[0] = 'F'; }},
        {"32 bit", [](ElfBuilder& e) { e.header.e_ident[EI_CLASS] = ELFCLASS32; }},
        {"big endian", [](ElfBuilder& e) { e.header.e_ident[EI_DATA] = ELFDATA2MSB; }},
        {"version", [](ElfBuilder& e) { e.header.e_version = 2; }},
        {"machine", [](ElfBuilder& e) { e.header.e_machine = EM_386; }},
        {"object file", [](ElfBuilder& e) { e.header.e_type = ET_REL; }},
        {"core file", [](ElfBuilder& e) { e.header.e_type = ET_CORE; }},
        {"small header", [](ElfBuilder& e) { e.header.e_ehsize = 10; }},
        {"header size", [](ElfBuilder& e) { e.header.e_phentsize = 55; }},
        {"headers outside", [](ElfBuilder& e) { e.header.e_phoff = 1 << 20; }},
        {"headers overflow", [](ElfBuilder& e) { e.header.e_phoff = ~0ULL - 8; }},
        {"too many headers", [](ElfBuilder& e) { e.header.e_phnum = 0xfffe; }},
        {"number elsewhere", [](ElfBuilder& e) { e.header.e_phnum = PN_XNUM; }},
        {"nothing to load",
         [](ElfBuilder& e) { e.segments[2].p_type = e.segments[3].p_type = PT_NULL; }},
        {"file part larger", [](ElfBuilder& e) { e.segments[2].p_filesz = 0x301; }},
        {"beyond the file", [](ElfBuilder& e) { e.segments[3].p_filesz = 0x1fff; }},
        {"offset beyond", [](ElfBuilder& e) { e.segments[3].p_offset = 0x100300; }},
        {"offset overflow", [](ElfBuilder& e) { e.segments[3].p_offset = ~0ULL - 0xcff; }},
        {"file without memory", [](ElfBuilder& e) { e.segments[3].p_memsz = 0; }},
        {"huge memory", [](ElfBuilder& e) { e.segments[3].p_memsz = 1ULL << 47; }},
        {"memory overflow", [](ElfBuilder& e) { e.segments[3].p_memsz = ~0ULL; }},
        {"kernel address", [](ElfBuilder& e) { e.segments[3].p_vaddr = 0xffff800000000300; }},
        {"not congruent", [](ElfBuilder& e) { e.segments[3].p_vaddr = 0x1301; }},
        {"alignment no power", [](ElfBuilder& e) { e.segments[3].p_align = 0x3000; }},
        {"alignment huge", [](ElfBuilder& e) { e.segments[3].p_align = 1ULL << 63; }},
        {"shared page", [](ElfBuilder& e) { e.segments[3].p_vaddr = 0x300; }},
        {"descending", [](ElfBuilder& e) { std::swap(e.segments[2], e.segments[3]); }},
        {"overlap", [](ElfBuilder& e) { e.segments[2].p_memsz = 0x1001; }},
        {"entry in data", [](ElfBuilder& e) { e.header.e_entry = 0x1300; }},
        {"entry behind", [](ElfBuilder& e) { e.header.e_entry = 0x300; }},
        {"entry nowhere", [](ElfBuilder& e) { e.header.e_entry = ~0ULL; }},
        {"two interpreters", [](ElfBuilder& e) { e.segments[0] = e.segments[1]; }},
        {"interpreter outside", [](ElfBuilder& e) { e.segments[1].p_offset = 1 << 20; }},
        {"interpreter overflow", [](ElfBuilder& e) { e.segments[1].p_offset = ~0ULL - 2; }},
        {"interpreter unterminated", [](ElfBuilder& e) { e.segments[1].p_filesz = 12; }},
        {"interpreter cut", [](ElfBuilder& e) { e.put(0x204, std::string_view("\0", 1)); }},
        {"interpreter empty", [](ElfBuilder& e) { e.segments[1].p_filesz = 1; }},
        {"interpreter huge", [](ElfBuilder& e) { e.segments[1].p_filesz = 5000; }},
        {"two stacks", [](ElfBuilder& e) { e.segments[0] = e.segments[4]; }},
        {"too many segments",
         [](ElfBuilder& e) {
             for (std::uint64_t i = 0; i < 64; ++i)
                 e.add(PT_LOAD, PF_R, 0, 0x10000 + i * 0x1000, 1, 1);
             e.header.e_phoff = e.content.size();
             e.put(e.header.e_phoff, {reinterpret_cast<const char*>(e.segments.data()),
                                      e.segments.size() * sizeof(Elf64_Phdr)});
             e.header.e_phnum = static_cast<Elf64_Half>(e.segments.size());
             e.segments.clear();
         },
         -E2BIG},
    };
    for (const auto& c : cases) {
        ElfBuilder elf = good_program();
        c.damage(elf);
        EXPECT_EQ(parse(elf.bytes(0x1000)).code(), c.code) << c.what;
    }
    EXPECT_TRUE(parse(good_program().bytes(0x1000)).ok());
}

TEST(ElfImage, AcceptsWhatIsOddButRight) {
    ElfBuilder elf = good_program();
    elf.segments[3].p_align = 0;  // none
    elf.segments[2].p_align = 1;
    elf.segments[4].p_flags |= PF_X;
    elf.segments[0].p_type = PT_NULL;  // AT_PHDR does not need PT_PHDR
    Result<Image> image = parse(elf.bytes());
    ASSERT_TRUE(image.ok());
    EXPECT_TRUE(image->executable_stack());
    EXPECT_NE(image->phdr_address(), 0U);
    EXPECT_EQ(image->align(), 4096U);
    elf.segments[4].p_type = PT_NOTE;
    elf.header.e_entry = 0;  // a library
    elf.segments[3].p_align = 2 << 20;
    image = parse(elf.bytes());
    ASSERT_TRUE(image.ok());
    EXPECT_TRUE(image->executable_stack()) << "no mark: the old default";
    EXPECT_EQ(image->align(), 2U << 20);
    EXPECT_FALSE(image->fits(4096));
    elf.header.e_shoff = ~0ULL;  // loading looks at no sections
    EXPECT_TRUE(parse(elf.bytes()).ok());
}

TEST(ElfImage, RefusesEveryTruncation) {
    const std::vector<unsigned char> file = good_program().bytes();
    for (std::size_t size = 0; size < 0x320; ++size)
        EXPECT_EQ(parse({file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size)}).code(),
                  -ENOEXEC)
            << size;
}

TEST(Elf, IteratesOverHeaders) {
    std::vector<unsigned char> file = good_program().bytes();
    dune_elf elf = {};
    int calls = 0;
    elf.priv = &calls;
    ASSERT_EQ(dune_elf_open_mem(&elf, file.data(), static_cast<int>(file.size())), 0);
    EXPECT_EQ(elf.priv, &calls);
    const dune_elf_phcb count_ph = [](dune_elf* e, Elf64_Phdr*) {
        return ++*static_cast<int*>(e->priv) == 4 ? 99 : 0;
    };
    EXPECT_EQ(dune_elf_iter_ph(&elf, count_ph), 99);
    EXPECT_EQ(calls, 4);
    static std::vector<std::string> names;
    names.clear();
    EXPECT_EQ(dune_elf_iter_sh(&elf,
                               [](dune_elf*, const char* name, int number, Elf64_Shdr*) {
                                   EXPECT_EQ(static_cast<std::size_t>(number), names.size());
                                   names.emplace_back(name);
                                   return 0;
                               }),
              0);
    EXPECT_EQ(names, (std::vector<std::string>{"", ".text", ".shstrtab"}));
    EXPECT_EQ(dune_elf_close(&elf), 0);
    EXPECT_EQ(dune_elf_close(&elf), -EINVAL);
    EXPECT_EQ(dune_elf_iter_ph(&elf, count_ph), -EINVAL);
    EXPECT_EQ(dune_elf_dump(&elf), -EINVAL);
}

TEST(Elf, ReadsTablesAtOddAddresses) {
    std::vector<unsigned char> file = good_program().bytes();
    file.insert(file.begin(), 0);
    dune_elf elf = {};
    ASSERT_EQ(dune_elf_open_mem(&elf, file.data() + 1, static_cast<int>(file.size() - 1)), 0);
    EXPECT_EQ(elf.phdr[2].p_type, static_cast<Elf64_Word>(PT_LOAD));
    EXPECT_EQ(dune_elf_close(&elf), 0);
}

TEST(Elf, RefusesBadSections) {
    const std::function<void(Elf64_Ehdr&, Elf64_Shdr*)> damages[] = {
        [](Elf64_Ehdr& h, Elf64_Shdr*) { h.e_shentsize = 63; },
        [](Elf64_Ehdr& h, Elf64_Shdr*) { h.e_shoff = ~0ULL; },
        [](Elf64_Ehdr& h, Elf64_Shdr*) { h.e_shnum = 0xfff0; },
        [](Elf64_Ehdr& h, Elf64_Shdr*) { h.e_shstrndx = 3; },
        [](Elf64_Ehdr& h, Elf64_Shdr*) { h.e_shstrndx = 1; },
        [](Elf64_Ehdr&, Elf64_Shdr* s) { s[1].sh_name = 17; },
        [](Elf64_Ehdr&, Elf64_Shdr* s) { s[1].sh_size = 1 << 30; },
        [](Elf64_Ehdr&, Elf64_Shdr* s) { s[1].sh_offset = ~0ULL; },
        [](Elf64_Ehdr&, Elf64_Shdr* s) { s[2].sh_size = 16; },
        [](Elf64_Ehdr&, Elf64_Shdr* s) { s[2].sh_size = 0; },
    };
    for (const auto& damage : damages) {
        std::vector<unsigned char> file = good_program().bytes();
        auto* const header = reinterpret_cast<Elf64_Ehdr*>(file.data());
        damage(*header, reinterpret_cast<Elf64_Shdr*>(file.data() + good_program().header.e_shoff));
        dune_elf elf = {};
        EXPECT_EQ(dune_elf_open_mem(&elf, file.data(), static_cast<int>(file.size())), -ENOEXEC)
            << &damage - damages;
        EXPECT_EQ(elf.mem, nullptr);
    }
}

TEST(Elf, OpensFiles) {
    const TemporaryFile good(good_program().bytes());
    dune_elf elf = {};
    ASSERT_EQ(dune_elf_open(&elf, good.path()), 0);
    EXPECT_GE(elf.fd, 0);
    EXPECT_EQ(elf.hdr.e_type, ET_DYN);
    testing::internal::CaptureStdout();
    EXPECT_EQ(dune_elf_dump(&elf), 0);
    fflush(stdout);
    const std::string dump = testing::internal::GetCapturedStdout();
    EXPECT_NE(dump.find("INTERP"), std::string::npos);
    EXPECT_NE(dump.find(".shstrtab"), std::string::npos);
    EXPECT_EQ(dune_elf_close(&elf), 0);

    const TemporaryFile empty({});
    EXPECT_EQ(dune_elf_open(&elf, empty.path()), -ENOEXEC);
    EXPECT_EQ(elf.fd, -1);
    EXPECT_EQ(dune_elf_open(&elf, "/nonexistent"), -ENOENT);
    EXPECT_EQ(dune_elf_open(&elf, "/"), -ENOEXEC);
    EXPECT_EQ(dune_elf_open(&elf, "/dev/zero"), -ENOEXEC);
    EXPECT_EQ(dune_elf_open(nullptr, good.path()), -EINVAL);
    EXPECT_EQ(dune_elf_open(&elf, nullptr), -EINVAL);
    EXPECT_EQ(dune_elf_open_mem(&elf, &elf, -1), -EINVAL);
    EXPECT_EQ(dune_elf_open_mem(&elf, nullptr, 10), -EINVAL);
}

TEST(Elf, LoadsSegmentsFromFileAndMemory) {
    std::vector<unsigned char> content = good_program().bytes();
    const TemporaryFile file(content);
    for (const bool from_file : {true, false}) {
        dune_elf elf = {};
        ASSERT_EQ(from_file
                      ? dune_elf_open(&elf, file.path())
                      : dune_elf_open_mem(&elf, content.data(), static_cast<int>(content.size())),
                  0);
        constexpr std::size_t kSpace = 0x10000;
        auto* const base = static_cast<char*>(
            mmap(nullptr, kSpace, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        ASSERT_NE(base, MAP_FAILED);
        const auto bias = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(base));
        ASSERT_EQ(dune_elf_load_ph(&elf, &elf.phdr[2], bias), 0);
        ASSERT_EQ(dune_elf_load_ph(&elf, &elf.phdr[3], bias), 0);
        EXPECT_EQ(std::memcmp(base + 0x280, "\xf4", 1), 0);
        EXPECT_EQ(std::memcmp(base + 0x1300, "some data of this many (32) byte", 32), 0);
        for (std::size_t i = 0x1320; i < 0x4000; ++i)
            ASSERT_EQ(base[i], 0) << "not zero at " << i;
        base[0x1300] = 'x';
        base[0x3300 - 1] = 'x';
        // Read only: the kernel cannot write there for us.
        const int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        EXPECT_EQ(read(zero, base, 1), -1);
        close(zero);

        EXPECT_EQ(dune_elf_load_ph(&elf, &elf.phdr[1], bias), -EINVAL) << "not PT_LOAD";
        EXPECT_EQ(dune_elf_load_ph(&elf, &elf.phdr[2], bias + 8), -EINVAL);
        EXPECT_EQ(dune_elf_load_ph(&elf, &elf.phdr[2], off_t{1} << 47), -EINVAL);
        EXPECT_EQ(dune_elf_load_ph(&elf, &elf.phdr[2], -4096), -EINVAL) << "below 0";
        EXPECT_EQ(dune_elf_load_ph(&elf, &elf.phdr[2], LONG_MIN), -EINVAL);
        Elf64_Phdr forged = elf.phdr[3];
        forged.p_filesz = forged.p_memsz = 1 << 20;
        EXPECT_EQ(dune_elf_load_ph(&elf, &forged, bias), -EINVAL) << "beyond the file";
        forged = elf.phdr[3];
        forged.p_memsz = ~0ULL;
        EXPECT_EQ(dune_elf_load_ph(&elf, &forged, bias), -EINVAL);
        forged.p_memsz = forged.p_filesz = 0;
        EXPECT_EQ(dune_elf_load_ph(&elf, &forged, bias), 0) << "nothing to do";
        EXPECT_EQ(dune_elf_close(&elf), 0);
        munmap(base, kSpace);
    }
}

// What the fuzzer does, without one: runs everywhere, and the same each time.
TEST(ElfMutation, NoChangeOfAGoodFileBreaksAPromise) {
    std::mt19937_64 random(2012);
    const std::uint64_t values[] = {
        0,      1,      2,        0xff,       0xfff,      0x1000, 0x1001,       0x7fff,
        0x8000, 0xffff, 1U << 31, 1ULL << 47, 1ULL << 63, ~0ULL,  ~0ULL - 4095, 0xfffffff0};
    const std::vector<unsigned char> seeds[] = {good_program(ET_DYN).bytes(),
                                                good_program(ET_EXEC).bytes()};
    const std::size_t headers = sizeof(Elf64_Ehdr) + 5 * sizeof(Elf64_Phdr);
    for (int round = 0; round < 60'000; ++round) {
        std::vector<unsigned char> file = seeds[random() % 2];
        for (std::uint64_t changes = random() % 6 + 1; changes != 0; --changes) {
            const std::size_t where =
                random() % 4 != 0 ? random() % headers : random() % (file.size() - 8);
            switch (random() % 3) {
                case 0:
                    file[where] = static_cast<unsigned char>(random());
                    break;
                case 1:
                    file[where] ^= static_cast<unsigned char>(1U << random() % 8);
                    break;
                default: {
                    const std::uint64_t value = values[random() % std::size(values)];
                    const std::size_t size = std::size_t{1} << random() % 4;
                    std::memcpy(file.data() + where / size * size, &value, size);
                }
            }
        }
        if (random() % 8 == 0)
            file.resize(random() % file.size());
        file.shrink_to_fit();
        LLVMFuzzerTestOneInput(file.data(), file.size());
    }
}

}  // namespace
}  // namespace dune::test
