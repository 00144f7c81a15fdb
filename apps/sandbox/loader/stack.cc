// SPDX-License-Identifier: MIT
//
// A new program's stack (System V ABI, AMD64 supplement, figure 3.9).

#include <elf.h>
#include <string.h>

#include "loader/loader.h"

namespace dune::sandbox {

namespace {

constexpr char kPlatform[] = "x86_64";

class Writer {
  public:
    explicit Writer(uint64_t at) : at_(reinterpret_cast<uint64_t*>(at)) {}
    void put(uint64_t value) { *at_++ = value; }
    void put_aux(uint64_t type, uint64_t value) {
        put(type);
        put(value);
        StartInfo& start = process.start;
        start.aux[start.aux_count][0] = type;
        start.aux[start.aux_count++][1] = value;
    }
    // Pointers to `count` strings from `string` on, and the NULL behind them; returns what follows.
    uint64_t put_strings(uint64_t string, uint32_t count) {
        for (; count > 0; count--) {
            put(string);
            string += strlen(reinterpret_cast<const char*>(string)) + 1;
        }
        put(0);
        return string;
    }

  private:
    uint64_t* at_;
};

}  // namespace

StackPlan build_stack(uint64_t top, const ExecImage& image, AuxValue* aux, size_t aux_count,
                      const uint8_t (&random)[16]) {
    StackPlan plan{};
    plan.strings = top - 8 - image.used;  // Linux leaves a null word at the very top
    plan.platform = plan.strings - sizeof(kPlatform);
    plan.random = (plan.platform - sizeof(random)) & ~15ull;
    memset(reinterpret_cast<void*>(top - 8), 0, 8);
    memcpy(reinterpret_cast<void*>(plan.strings), image.text, image.used);
    memcpy(reinterpret_cast<void*>(plan.platform), kPlatform, sizeof(kPlatform));
    memcpy(reinterpret_cast<void*>(plan.random), random, sizeof(random));

    const size_t words = 1 + image.argc + 1 + image.envc + 1 + 2 * aux_count;
    plan.sp = (plan.random - words * sizeof(uint64_t)) & ~15ull;

    Writer writer(plan.sp);
    const uint64_t argv = plan.strings + strlen(reinterpret_cast<const char*>(plan.strings)) + 1;
    writer.put(image.argc);
    const uint64_t envp = writer.put_strings(argv, image.argc);
    process.start.arguments = {argv, envp};
    process.start.environment = {envp, writer.put_strings(envp, image.envc)};
    process.start.aux_count = 0;
    for (size_t i = 0; i < aux_count; i++) {
        uint64_t value = aux[i].value;
        if (value == kRandomAt) {
            value = plan.random;
        } else if (value == kPlatformAt) {
            value = plan.platform;
        } else if (value == kExecFnAt) {
            value = plan.strings;
        }
        writer.put_aux(aux[i].type, value);
    }
    return plan;
}

}  // namespace dune::sandbox
