// SPDX-License-Identifier: MIT
//
// Runs a fuzz target over the files of a corpus, each also cut short at several
// lengths. A fault ends the program; the file's name has been printed by then.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kCuts = 16;

// A copy of exactly this size, so that AddressSanitizer sees a read past its end.
void run_prefix(const std::vector<uint8_t>& content, size_t size) {
    const std::vector<uint8_t> input(content.begin(),
                                     content.begin() + static_cast<std::ptrdiff_t>(size));
    LLVMFuzzerTestOneInput(input.data(), input.size());
}

void replay(const std::filesystem::path& path) {
    std::printf("%s\n", path.c_str());
    std::fflush(stdout);
    std::ifstream file(path, std::ios::binary);
    const std::vector<uint8_t> content{std::istreambuf_iterator<char>(file), {}};
    for (size_t i = 0; i <= kCuts; i++) {
        run_prefix(content, content.size() * i / kCuts);
    }
}

}  // namespace

int main(int argc, char** argv) {
    size_t count = 0;
    for (int i = 1; i < argc; i++) {
        for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
            if (entry.is_regular_file()) {
                replay(entry.path());
                count++;
            }
        }
    }
    if (count == 0) {
        std::fputs("replay: the corpus has no files\n", stderr);
        return 1;
    }
    return 0;
}
