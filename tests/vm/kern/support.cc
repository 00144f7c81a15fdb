// SPDX-License-Identifier: MIT

#include "support.h"

#include <elf.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <time.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

namespace support {

namespace {

constexpr const char* kZram = "/dev/zram0";

// A version-1 swap header: the number of the last page, and the magic at the page's end.
bool make_swap(const char* device, uint32_t pages) {
    std::vector<char> header(kPage);
    const uint32_t info[2] = {1, pages - 1};
    std::memcpy(header.data() + 1024, info, sizeof(info));
    std::memcpy(header.data() + kPage - 10, "SWAPSPACE2", 10);
    const int fd = open(device, O_WRONLY | O_CLOEXEC);
    const bool ok = fd >= 0 && write(fd, header.data(), kPage) == static_cast<ssize_t>(kPage);
    close(fd);
    return ok;
}

}  // namespace

pid_t fork_or_end() {
    const pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        abort();
    }
    return pid;
}

int wait_status(pid_t pid) {
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

bool pin_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0;
}

std::optional<uint64_t> host_msr(uint32_t msr, int cpu) {
    // Each CPU's file is made when the driver is loaded.
    static const int loaded = system("modprobe msr 2>/dev/null");
    static_cast<void>(loaded);
    uint64_t value = 0;
    const int fd = open(("/dev/cpu/" + std::to_string(cpu) + "/msr").c_str(), O_RDONLY);
    const bool read = fd >= 0 && pread(fd, &value, sizeof(value), msr) == sizeof(value);
    close(fd);
    return read ? std::optional(value) : std::nullopt;
}

std::vector<uint64_t> kernel_symbols(const std::vector<std::string>& names) {
    std::vector<uint64_t> found(names.size());
    size_t missing = names.size();
    std::ifstream symbols("/proc/kallsyms");
    for (std::string line; missing != 0 && std::getline(symbols, line);) {
        for (size_t i = 0; i < names.size(); i++) {
            if (found[i] == 0 && line.ends_with(names[i]) &&
                line[line.size() - names[i].size() - 1] == ' ') {
                found[i] = std::stoull(line, nullptr, 16);
                missing--;
            }
        }
    }
    return found;
}

bool read_kernel(uint64_t address, void* to, size_t size) {
    const int fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
    Elf64_Ehdr header;
    bool done = false;
    if (fd >= 0 && pread(fd, &header, sizeof(header), 0) == sizeof(header)) {
        for (int i = 0; i < header.e_phnum && !done; i++) {
            Elf64_Phdr segment;
            const auto at =
                static_cast<off_t>(header.e_phoff + sizeof(segment) * static_cast<size_t>(i));
            if (pread(fd, &segment, sizeof(segment), at) == sizeof(segment) &&
                segment.p_type == PT_LOAD && address - segment.p_vaddr < segment.p_memsz) {
                const auto offset =
                    static_cast<off_t>(segment.p_offset + address - segment.p_vaddr);
                done = pread(fd, to, size, offset) == static_cast<ssize_t>(size);
            }
        }
    }
    close(fd);
    return done;
}

bool write_file(const char* path, const char* word) {
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const auto size = static_cast<ssize_t>(std::strlen(word));
    const bool ok = write(fd, word, static_cast<size_t>(size)) == size;
    close(fd);
    return ok;
}

std::string read_file(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

bool host_has(const std::string& flag) {
    const std::string text = read_file("/proc/cpuinfo");
    const size_t flags = text.find("\nflags");
    if (flags == std::string::npos) {
        return false;
    }
    const std::string line = text.substr(flags, text.find('\n', flags + 1) - flags);
    return (line + " ").find(" " + flag + " ") != std::string::npos;
}

uint64_t number_in(const char* path, const std::string& name) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string word;
        uint64_t value = 0;
        if (words >> word >> value && (word == name || word == name + ":")) {
            return value;
        }
    }
    return 0;
}

ZramSwap::ZramSwap() {
    if (system("modprobe zram 2>/dev/null") == 0 &&
        write_file("/sys/block/zram0/disksize", "32M") && make_swap(kZram, 32 << 8)) {
        on_ = swapon(kZram, 0) == 0;
    }
    before_ = number_in("/proc/vmstat", "pswpout");
}

ZramSwap::~ZramSwap() {
    off();
    write_file("/sys/block/zram0/reset", "1");
}

uint64_t ZramSwap::pages_out() const {
    return number_in("/proc/vmstat", "pswpout") - before_;
}

bool ZramSwap::off() {
    const bool ok = !on_ || swapoff(kZram) == 0;
    on_ = on_ && !ok;
    return ok;
}

void page_out(char* start, size_t size) {
    for (char* page = start; page < start + size; page += kPage) {
        madvise(page, kPage, MADV_PAGEOUT);
        madvise(page, kPage, MADV_PAGEOUT);
    }
}

}  // namespace support
