// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "dune/procmap.h"
#include "procmap/maps_parser.h"

namespace dune::test {
namespace {

using procmap::MapsParser;

struct Area {
    unsigned long begin, end, offset;
    std::string perms, path;
    int type;
    friend bool operator==(const Area&, const Area&) = default;
};

std::ostream& operator<<(std::ostream& os, const Area& a) {
    return os << std::hex << a.begin << "-" << a.end << " " << a.perms << " " << a.offset << " "
              << a.type << " '" << a.path << "'";
}

Area area_of(const dune_procmap_entry& e) {
    return {e.begin,  e.end,
            e.offset, {e.r ? 'r' : '-', e.w ? 'w' : '-', e.x ? 'x' : '-', e.p ? 'p' : 's'},
            e.path,   e.type};
}

struct Parsed {
    int rc;
    std::vector<Area> areas;
};

Parsed parse(std::string_view text, std::size_t piece = 4096) {
    Parsed parsed{};
    MapsParser parser(
        [](void* context, const dune_procmap_entry& e) {
            static_cast<Parsed*>(context)->areas.push_back(area_of(e));
            return 0;
        },
        &parsed);
    for (; parsed.rc == 0 && !text.empty(); text.remove_prefix(std::min(piece, text.size())))
        parsed.rc = parser.feed(text.substr(0, piece));
    if (parsed.rc == 0)
        parsed.rc = parser.finish();
    return parsed;
}

TEST(MapsParser, ReadsEveryKindOfLine) {
    const char text[] =
        "00400000-00452000 r-xp 00000000 08:02 173521                             /usr/bin/dbus\n"
        "00e03000-00e24000 rw-p 00000000 00:00 0                                  [heap]\n"
        "35b1800000-35b1820000 r--s 0001f000 08:02 135522  /tmp/a name with  spaces (deleted)\n"
        "7f2c6ff8c000-7f2c7078c000 rw-p 00000000 00:00 0 \n"
        "7f2c7078c000-7f2c7078d000 ---p 00000000 00:00 0\n"
        "7f2c7078d000-7f2c7078e000 -w-s 00000000 00:05 5  /dev/zero (deleted)\n"
        "7f2c7078e000-7f2c7078f000 rw-p 00000000 00:00 0  [anon:some name]\n"
        "7f2c7078f000-7f2c70790000 rw-s 00000000 00:01 9  [anon_shmem:other]\n"
        "7fffb2c0d000-7fffb2c2e000 rw-p 00000000 00:00 0  [stack]\n"
        "7fffb2c2e000-7fffb2c2f000 rw-p 00000000 00:00 0  [stack:1234]\n"
        "7fffb2d44000-7fffb2d48000 r--p 00000000 00:00 0  [vvar]\n"
        "7fffb2d48000-7fffb2d4a000 r--p 00000000 00:00 0  [vvar_vclock]\n"
        "7fffb2d4a000-7fffb2d4c000 r-xp 00000000 00:00 0  [vdso]\n"
        "7fffb2d4c000-7fffb2d4d000 r-xp 00000000 00:00 0  [uprobes]\n"
        "7fffb2d4d000-7fffb2d4e000 r-xp ffffffffff 103:0a 18446744073709551615  /[odd\n"
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n";
    const std::vector<Area> expected = {
        {0x400000, 0x452000, 0, "r-xp", "/usr/bin/dbus", PROCMAP_TYPE_FILE},
        {0xe03000, 0xe24000, 0, "rw-p", "[heap]", PROCMAP_TYPE_HEAP},
        {0x35b1800000, 0x35b1820000, 0x1f000, "r--s", "/tmp/a name with  spaces (deleted)",
         PROCMAP_TYPE_FILE},
        {0x7f2c6ff8c000, 0x7f2c7078c000, 0, "rw-p", "", PROCMAP_TYPE_ANONYMOUS},
        {0x7f2c7078c000, 0x7f2c7078d000, 0, "---p", "", PROCMAP_TYPE_ANONYMOUS},
        {0x7f2c7078d000, 0x7f2c7078e000, 0, "-w-s", "/dev/zero (deleted)", PROCMAP_TYPE_FILE},
        {0x7f2c7078e000, 0x7f2c7078f000, 0, "rw-p", "[anon:some name]", PROCMAP_TYPE_ANONYMOUS},
        {0x7f2c7078f000, 0x7f2c70790000, 0, "rw-s", "[anon_shmem:other]", PROCMAP_TYPE_ANONYMOUS},
        {0x7fffb2c0d000, 0x7fffb2c2e000, 0, "rw-p", "[stack]", PROCMAP_TYPE_STACK},
        {0x7fffb2c2e000, 0x7fffb2c2f000, 0, "rw-p", "[stack:1234]", PROCMAP_TYPE_STACK},
        {0x7fffb2d44000, 0x7fffb2d48000, 0, "r--p", "[vvar]", PROCMAP_TYPE_VVAR},
        {0x7fffb2d48000, 0x7fffb2d4a000, 0, "r--p", "[vvar_vclock]", PROCMAP_TYPE_VVAR},
        {0x7fffb2d4a000, 0x7fffb2d4c000, 0, "r-xp", "[vdso]", PROCMAP_TYPE_VDSO},
        {0x7fffb2d4c000, 0x7fffb2d4d000, 0, "r-xp", "[uprobes]", PROCMAP_TYPE_UNKNOWN},
        {0x7fffb2d4d000, 0x7fffb2d4e000, 0xffffffffff, "r-xp", "/[odd", PROCMAP_TYPE_FILE},
        {0xffffffffff600000, 0xffffffffff601000, 0, "--xp", "[vsyscall]", PROCMAP_TYPE_VSYSCALL},
    };
    for (const std::size_t piece : {1U, 2U, 7U, 64U, 4096U}) {
        const Parsed parsed = parse(text, piece);
        EXPECT_EQ(parsed.rc, 0);
        EXPECT_EQ(parsed.areas, expected) << "in pieces of " << piece;
    }
}

TEST(MapsParser, KeepsTheBeginningOfAnEndlessPath) {
    const std::string path = "/" + std::string(MapsParser::kMaxPath * 3, 'x');
    const Parsed parsed = parse("1000-2000 r--p 0 0:0 1 " + path +
                                "\n"
                                "3000-4000 r--p 0 0:0 1 /y\n");
    ASSERT_EQ(parsed.rc, 0);
    ASSERT_EQ(parsed.areas.size(), 2U);
    EXPECT_EQ(parsed.areas[0].path, path.substr(0, MapsParser::kMaxPath));
    EXPECT_EQ(parsed.areas[1].path, "/y");
}

TEST(MapsParser, RefusesOtherText) {
    for (const char* text : {
             "\n",
             "hello\n",
             "-2000 r--p 0 0:0 0\n",
             "1000- r--p 0 0:0 0\n",
             "1000-2000 r--p 0 0:0\n",
             "1000-2000 r--p 0 0:0 \n",
             "1000-2000 rwxp0 0 0:0 0\n",
             "1000-2000 wr-p 0 0:0 0\n",
             "1000-2000 r--- 0 0:0 0\n",
             "1000-2000 r-- 0 0:0 0\n",
             "1000-2000 r--p g 0:0 0\n",
             "1000-2000 r--p 0 00 0\n",
             "1000-2000 r--p 0 0:0 a\n",
             "2000-1000 r--p 0 0:0 0\n",
             "1000-1000 r--p 0 0:0 0\n",
             "1000-10000000000000000 r--p 0 0:0 0\n",
             "1000-2000 r--p 0 0:0 18446744073709551616 \n",
             "1000-2000 r--p 0 0:0 0",
             "1000-2000 r--p 0 0:0 0 /cut",
             "1000",
         })
        EXPECT_EQ(parse(text).rc, -EINVAL) << text;
    EXPECT_EQ(parse("").rc, 0);
}

std::vector<Area> my_areas() {
    std::vector<Area> areas;
    const Result<void> rc =
        for_each_area([&areas](const dune_procmap_entry& e) { areas.push_back(area_of(e)); });
    EXPECT_TRUE(rc.ok()) << rc.code();
    return areas;
}

TEST(Procmap, SeesThisProcess) {
    const long page = sysconf(_SC_PAGESIZE);
    auto* const memory = static_cast<char*>(mmap(nullptr, 3 * static_cast<std::size_t>(page),
                                                 PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(memory + page, static_cast<std::size_t>(page), PROT_READ | PROT_EXEC);
    munmap(memory + 2 * page, static_cast<std::size_t>(page));
    const auto middle = reinterpret_cast<unsigned long>(memory + page);
    const auto here = reinterpret_cast<unsigned long>(&page);
    const auto vdso = getauxval(AT_SYSINFO_EHDR);
    bool middle_seen = false;
    bool stack_seen = false;
    bool vdso_seen = vdso == 0;
    unsigned long last = 0;
    for (const Area& a : my_areas()) {
        EXPECT_GE(a.begin, last) << "ascending";
        last = a.end;
        if (a.begin == middle) {
            middle_seen = true;
            EXPECT_EQ(a.perms, "r-xp");
            EXPECT_EQ(a.end, middle + static_cast<unsigned long>(page));
        }
        stack_seen |= here >= a.begin && here < a.end && a.type == PROCMAP_TYPE_STACK;
        vdso_seen |= a.begin == vdso && a.type == PROCMAP_TYPE_VDSO;
    }
    EXPECT_TRUE(middle_seen);
    EXPECT_TRUE(stack_seen);
    EXPECT_TRUE(vdso_seen);
    munmap(memory, 2 * static_cast<std::size_t>(page));
}

TEST(Procmap, SaysWhatTheFileSays) {
    // Nothing allocates between the two readings: compare what is not anonymous.
    std::vector<std::string> expected;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);)
        if (const std::size_t slash = line.find('/'); slash != std::string::npos)
            expected.push_back(line.substr(0, line.find(' ')) + line.substr(slash));
    std::vector<std::string> found;
    for (const Area& a : my_areas())
        if (a.type == PROCMAP_TYPE_FILE) {
            std::ostringstream text;
            text << std::hex;
            text.fill('0');
            text.width(8);
            text << a.begin << "-";
            text.width(8);
            text << a.end;
            found.push_back(text.str() + a.path);
        }
    EXPECT_EQ(found, expected);
}

TEST(Procmap, EndsWithTheResultOfTheCallable) {
    int calls = 0;
    const Result<void> rc =
        for_each_area([&calls](const dune_procmap_entry&) { return ++calls == 3 ? -77 : 0; });
    EXPECT_EQ(rc.code(), -77);
    EXPECT_EQ(calls, 3);
}

TEST(Procmap, PublishedFunctions) {
    static int calls;
    calls = 0;
    errno = 42;
    EXPECT_EQ(dune_procmap_iterate([](const dune_procmap_entry* e) {
                  EXPECT_NE(e->path, nullptr);
                  ++calls;
              }),
              0);
    EXPECT_EQ(errno, 42) << "a handler's reading does not disturb what it interrupted";
    EXPECT_GT(calls, 5);
    EXPECT_EQ(dune_procmap_iterate(nullptr), -EINVAL);
    testing::internal::CaptureStdout();
    dune_procmap_dump();
    EXPECT_NE(testing::internal::GetCapturedStdout().find("stack     [stack]"), std::string::npos);
}

}  // namespace
}  // namespace dune::test
