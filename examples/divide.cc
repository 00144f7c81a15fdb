// SPDX-License-Identifier: MIT
// Catch a divide error: the handler gives the division a result and goes on behind it.
#include <dune/process.h>
#include <dune/trap.h>

#include <cstdint>
#include <cstdio>

namespace {

int errors = 0;

/** DIV, two bytes long with a register operand. */
std::uint32_t divide(std::uint32_t dividend, std::uint32_t divisor) {
    std::uint32_t rest = 0;
    asm volatile("divl %[divisor]" : "+a"(dividend), "+d"(rest) : [divisor] "c"(divisor) : "cc");
    return dividend;
}

void on_divide_error(dune::Frame* frame) {
    constexpr std::uint64_t kDivLength = 2;
    ++errors;
    frame->rax = 0xffffffff;
    frame->rip += kDivLength;
}

}  // namespace

int main() {
    const auto process = dune::Process::enter();
    if (!process)
        return 1;  // why has been said on stderr
    const dune::TrapGuard guard(dune::Vector::DivideError, on_divide_error);
    std::printf("42 / 6 = %u\n", divide(42, 6));
    std::printf("42 / 0 = %u, errors: %d\n", divide(42, 0), errors);
    return errors == 1 ? 0 : 1;
}
