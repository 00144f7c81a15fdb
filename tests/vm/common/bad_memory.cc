// SPDX-License-Identifier: MIT

#include "bad_memory.h"

#include <fcntl.h>
#include <sys/io.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>

namespace dune::vmtest {

namespace {

constexpr uint16_t kFramePort = 0x8920, kCheckPort = 0x8924;
constexpr uint32_t kInstructions = 3000;  // between two looks at where the CPU is
constexpr int kLoads = 20'000'000;
constexpr int64_t kPage = 4096;

}  // namespace

const char* open_bad_memory() {
    if (access("/sys/devices/system/machinecheck", F_OK) != 0) {
        return "Linux without machine checks";
    }
    // Only the patched emulator has the ports; who knows what else would be there?
    std::ifstream file("/proc/cmdline");
    const std::string line{std::istreambuf_iterator<char>(file), {}};
    if (line.find("machine_buffer=") == std::string::npos || ioperm(kFramePort, 8, 1) != 0 ||
        is_still_to_be_met()) {
        return "nothing that raises machine checks";
    }
    return nullptr;
}

uint32_t frame_of(const void* address) {
    uint64_t entry = 0;
    const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const auto page = static_cast<off_t>(reinterpret_cast<uint64_t>(address) / kPage);
    if (pread(fd, &entry, sizeof(entry), page * 8) != sizeof(entry)) {
        entry = 0;
    }
    close(fd);
    return static_cast<uint32_t>(entry);
}

void go_bad(uint32_t frame, Where where, int cpu) {
    outl(frame, kFramePort);
    outl(static_cast<uint32_t>(where) << 28 | static_cast<uint32_t>(cpu) << 24 | kInstructions,
         kCheckPort);
}

bool is_still_to_be_met() {
    return inl(kCheckPort) != static_cast<uint32_t>(Where::kNowhere);
}

void read_on(const char* page) {
    for (int i = 0; i < kLoads; i++) {
        static_cast<void>(*const_cast<const volatile char*>(page));
    }
}

}  // namespace dune::vmtest
