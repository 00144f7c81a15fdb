// SPDX-License-Identifier: MIT
/** @file The opcode maps of insn.cc: what those that it knows have for operands (SDM vol. 2, A.3).
 */
#pragma once

#include <cstdint>

#include "insn.h"

namespace dune::rt::opcodes {

/** What an opcode's operands are; the one of ModRM.reg first, as far as there is one. */
enum class Form : std::uint8_t {
    Bad,
    None,       // no operand but perhaps an immediate
    Modify,     // ModRM: both registers are used
    Move,       // ModRM: reg gets r/m
    Store,      // ModRM: r/m gets reg
    Lea,        // ModRM: reg gets r/m's address
    Extend,     // ModRM: reg gets r/m, which may be a byte
    Rm,         // ModRM: r/m is used, reg is a part of the opcode or no general register
    SetRm,      // ModRM: r/m is replaced, reg is no general register
    MemoryRm,   // as Rm, and r/m must be memory
    BitRm,      // as Rm, of 0F BA
    Nop,        // ModRM that means nothing
    Opcode,     // register in the opcode's low bits, used
    SetOpcode,  // the same, replaced
};

enum Flag : std::uint8_t {
    kByte = 1,         // operands are bytes
    kImm8 = 2,         // an immediate of a byte
    kImm = 4,          // of 2 or 4 bytes
    kRepOk = 8,        // may stand behind F3 or F2
    kImmWide = 16,     // of 8 bytes with REX.W
    kByteSource = 32,  // r/m is a byte, reg is not
    kPush = 64,
    kPop = 128,
};

struct Opcode {
    Form form = Form::Bad;
    std::uint8_t flags = 0;
    std::uint16_t uses = 0;
    std::uint16_t replaces = 0;
};

struct Map {
    Opcode of[256];
};

inline constexpr std::uint16_t kString = kRsi | kRdi | kRcx | kRax;

constexpr Map one_byte_map() {
    Map map{};
    for (unsigned group = 0; group < 8; ++group) {  // ADD, OR, ADC, SBB, AND, SUB, XOR, CMP
        map.of[group * 8 + 0] = {Form::Modify, kByte};
        map.of[group * 8 + 1] = {Form::Modify};
        map.of[group * 8 + 2] = {Form::Modify, kByte};
        map.of[group * 8 + 3] = {Form::Modify};
        map.of[group * 8 + 4] = {Form::None, kImm8, kRax};
        map.of[group * 8 + 5] = {Form::None, kImm, kRax};
    }
    for (unsigned reg = 0; reg < 8; ++reg) {
        map.of[0x50 + reg] = {Form::Opcode, kPush};
        map.of[0x58 + reg] = {Form::SetOpcode, kPop};
        map.of[0x90 + reg] = {Form::Opcode, 0, kRax};
        map.of[0xb0 + reg] = {Form::Opcode, kByte | kImm8};
        map.of[0xb8 + reg] = {Form::SetOpcode, kImm | kImmWide};
    }
    map.of[0x90] = {Form::None, kRepOk};  // NOP, PAUSE; with REX.B an XCHG, see below
    map.of[0x63] = {Form::Extend};        // MOVSXD
    map.of[0x68] = {Form::None, kImm | kPush};
    map.of[0x6a] = {Form::None, kImm8 | kPush};
    map.of[0x69] = {Form::Move, kImm};  // IMUL
    map.of[0x6b] = {Form::Move, kImm8};
    map.of[0x80] = {Form::Rm, kByte | kImm8};  // 81 and 83 are in special()
    map.of[0x84] = {Form::Modify, kByte};      // TEST
    map.of[0x85] = {Form::Modify};
    map.of[0x86] = {Form::Modify, kByte};  // XCHG
    map.of[0x87] = {Form::Modify};
    map.of[0x88] = {Form::Modify, kByte};  // MOV of bytes: leaves the rest of a register
    map.of[0x89] = {Form::Store};
    map.of[0x8a] = {Form::Modify, kByte};
    map.of[0x8b] = {Form::Move};
    map.of[0x8c] = {Form::Rm};  // MOV from a segment register
    map.of[0x8d] = {Form::Lea};
    map.of[0x98] = {Form::None, 0, kRax};          // CDQE
    map.of[0x99] = {Form::None, 0, kRax, kRdx};    // CQO
    map.of[0x9c] = {Form::None, kPush};            // PUSHF
    map.of[0xa4] = {Form::None, kRepOk, kString};  // MOVS
    map.of[0xa5] = {Form::None, kRepOk, kString};
    map.of[0xa8] = {Form::None, kImm8, kRax};  // TEST
    map.of[0xa9] = {Form::None, kImm, kRax};
    map.of[0xaa] = {Form::None, kRepOk, kString};  // STOS
    map.of[0xab] = {Form::None, kRepOk, kString};
    map.of[0xc0] = {Form::Rm, kByte | kImm8};  // shifts and rotations
    map.of[0xc1] = {Form::Rm, kImm8};
    map.of[0xd0] = {Form::Rm, kByte};
    map.of[0xd1] = {Form::Rm};
    map.of[0xd2] = {Form::Rm, kByte, kRcx};
    map.of[0xd3] = {Form::Rm, 0, kRcx};
    map.of[0xf5] = {Form::None};  // CMC, CLC, STC, CLD
    map.of[0xf8] = {Form::None};
    map.of[0xf9] = {Form::None};
    map.of[0xfc] = {Form::None};
    return map;
}

constexpr Map two_byte_map() {
    Map map{};
    map.of[0x0d] = {Form::MemoryRm};     // PREFETCHW
    map.of[0x18] = {Form::MemoryRm};     // PREFETCH
    map.of[0x1e] = {Form::Nop, kRepOk};  // ENDBR64
    map.of[0x1f] = {Form::Nop};
    map.of[0x20] = {Form::SetRm};                    // MOV from a control register
    map.of[0x31] = {Form::None, 0, 0, kRax | kRdx};  // RDTSC
    for (unsigned condition = 0; condition < 16; ++condition) {
        map.of[0x40 + condition] = {Form::Modify};     // CMOVcc
        map.of[0x90 + condition] = {Form::Rm, kByte};  // SETcc
    }
    map.of[0xa3] = {Form::Modify};  // BT, BTS, BTR, BTC
    map.of[0xab] = {Form::Modify};
    map.of[0xb3] = {Form::Modify};
    map.of[0xbb] = {Form::Modify};
    map.of[0xba] = {Form::BitRm, kImm8};
    map.of[0xa4] = {Form::Modify, kImm8};  // SHLD, SHRD
    map.of[0xa5] = {Form::Modify, 0, kRcx};
    map.of[0xac] = {Form::Modify, kImm8};
    map.of[0xad] = {Form::Modify, 0, kRcx};
    map.of[0xaf] = {Form::Modify};               // IMUL
    map.of[0xb0] = {Form::Modify, kByte, kRax};  // CMPXCHG
    map.of[0xb1] = {Form::Modify, 0, kRax};
    map.of[0xb6] = {Form::Extend, kByteSource};  // MOVZX, MOVSX
    map.of[0xb7] = {Form::Extend};
    map.of[0xbe] = {Form::Extend, kByteSource};
    map.of[0xbf] = {Form::Extend};
    map.of[0xbc] = {Form::Modify, kRepOk};  // BSF, TZCNT: leaves reg as it is if r/m is 0
    map.of[0xbd] = {Form::Modify, kRepOk};
    map.of[0xc0] = {Form::Modify, kByte};  // XADD
    map.of[0xc1] = {Form::Modify};
    for (unsigned reg = 0; reg < 8; ++reg)
        map.of[0xc8 + reg] = {Form::Opcode};  // BSWAP
    return map;
}

inline constexpr Map kOneByte = one_byte_map();
inline constexpr Map kTwoByte = two_byte_map();

}  // namespace dune::rt::opcodes
