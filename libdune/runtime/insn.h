// SPDX-License-Identifier: MIT
/**
 * @file
 * Instructions of 64-bit code that keep to the general registers: length, control flow, and which
 * registers they name (SDM vol. 2, appendix A). All others, and rare ones, are unknown; so is what
 * gives RSP a new value, other than PUSH, POP, CALL, RET and ADD and SUB of a constant.
 */
#pragma once

#include <cstdint>

namespace dune::rt {

/** A register's bit; numbers as in their encoding: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8… */
constexpr std::uint16_t reg_bit(unsigned number) noexcept {
    return static_cast<std::uint16_t>(1U << number);
}
inline constexpr std::uint16_t kRax = reg_bit(0);
inline constexpr std::uint16_t kRcx = reg_bit(1);
inline constexpr std::uint16_t kRdx = reg_bit(2);
inline constexpr std::uint16_t kRsp = reg_bit(4);
inline constexpr std::uint16_t kRsi = reg_bit(6);
inline constexpr std::uint16_t kRdi = reg_bit(7);

struct Insn {
    enum class Kind : std::uint8_t {
        Unknown,     ///< anything may happen
        Plain,       ///< goes on with the next one
        Return,      ///< RET
        Stop,        ///< UD2
        Jump,        ///< to target
        Branch,      ///< to target or on
        Call,        ///< of target
        JumpByWord,  ///< to the address in the word at target
        CallByWord,  ///< of it
    };
    Kind kind = Kind::Unknown;
    std::uint8_t length = 0;     ///< 0 if unknown
    std::uint16_t uses = 0;      ///< registers that are read, or written in part
    std::uint16_t replaces = 0;  ///< those that get a whole new value, whatever they had
    const std::uint8_t* target = nullptr;
    std::int32_t stack = 0;         ///< bytes that are taken from the stack; negative: given back
    bool by_stack_pointer = false;  ///< a memory operand is at RSP + this:
    std::int32_t stack_offset = 0;
};

/**
 * Decode an instruction.
 * @param code must be readable as far as the CPU would fetch
 * Context: any; no memory, no locks.
 */
Insn decode(const std::uint8_t* code) noexcept;

}  // namespace dune::rt
