// SPDX-License-Identifier: MIT
//
// The decoder of general instructions: some by hand, and many held against objdump.
#include "runtime/insn.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <random>
#include <regex>
#include <string>
#include <vector>

namespace dune::test {
namespace {

using rt::decode;
using rt::Insn;
using Kind = Insn::Kind;
using Bytes = std::array<std::uint8_t, 32>;

constexpr std::size_t kSlot = 16;

Insn of(const std::vector<std::uint8_t>& bytes) {
    Bytes code{};
    std::copy(bytes.begin(), bytes.end(), code.begin());
    Insn insn = decode(code.data());
    if (insn.target != nullptr)  // as if the code lay at 0x1000
        insn.target = reinterpret_cast<const std::uint8_t*>(0x1000 + (insn.target - code.data()));
    return insn;
}

std::uintptr_t target(const std::vector<std::uint8_t>& bytes) {
    return reinterpret_cast<std::uintptr_t>(of(bytes).target);
}

TEST(Insn, RegistersThatAreNotInTheOperands) {
    EXPECT_EQ(of({0x48, 0xf7, 0xe1}).uses, rt::kRax | rt::kRcx);  // mul %rcx
    EXPECT_EQ(of({0x48, 0xf7, 0xe1}).replaces, rt::kRdx);
    EXPECT_EQ(of({0x48, 0xf7, 0xf1}).uses, rt::kRax | rt::kRcx | rt::kRdx);  // div %rcx
    EXPECT_EQ(of({0xf6, 0xf1}).uses, rt::kRax | rt::kRcx);                   // div %cl
    EXPECT_EQ(of({0x48, 0x99}).replaces, rt::kRdx);                          // cqto
    EXPECT_EQ(of({0x66, 0x99}).uses, rt::kRax | rt::kRdx);                   // cwtd
    EXPECT_EQ(of({0x0f, 0x31}).replaces, rt::kRax | rt::kRdx);               // rdtsc
    EXPECT_EQ(of({0xf0, 0x0f, 0xb1, 0x0f}).uses, rt::kRax | rt::kRcx | rt::kRdi);
    EXPECT_EQ(of({0xf3, 0x48, 0xab}).uses, rt::kRax | rt::kRcx | rt::kRdi | rt::kRsi);
    EXPECT_EQ(of({0xd3, 0xe6}).uses, rt::kRcx | rt::kRsi);        // shl %cl, %esi
    EXPECT_EQ(of({0x88, 0xf0}).uses, rt::kRax | rt::kRdx);        // mov %dh, %al
    EXPECT_EQ(of({0x40, 0x88, 0xf0}).uses, rt::kRax | rt::kRsi);  // mov %sil, %al
}

TEST(Insn, WhatReplacesARegister) {
    EXPECT_EQ(of({0x31, 0xd2}).replaces, rt::kRdx);  // xor %edx, %edx
    EXPECT_EQ(of({0x31, 0xd2}).uses, 0);
    EXPECT_EQ(of({0x66, 0x31, 0xd2}).uses, rt::kRdx);
    EXPECT_EQ(of({0x31, 0xc2}).uses, rt::kRax | rt::kRdx);
    EXPECT_EQ(of({0x48, 0x8b, 0x52, 0x08}).uses, rt::kRdx);  // mov 8(%rdx), %rdx
    EXPECT_EQ(of({0xba, 1, 0, 0, 0}).replaces, rt::kRdx);
    EXPECT_EQ(of({0x66, 0xba, 1, 0}).uses, rt::kRdx);
    EXPECT_EQ(of({0x66, 0xba, 1, 0}).length, 4);
    EXPECT_EQ(of({0xb2, 1}).uses, rt::kRdx);                      // mov $1, %dl
    EXPECT_EQ(of({0x0f, 0x44, 0xd0}).uses, rt::kRax | rt::kRdx);  // cmove
    EXPECT_EQ(of({0x48, 0xba, 1, 2, 3, 4, 5, 6, 7, 8}).length, 10);
    EXPECT_EQ(of({0x5a}).replaces, rt::kRdx);
}

TEST(Insn, WhereItGoesOn) {
    EXPECT_EQ(of({0xc3}).kind, Kind::Return);
    EXPECT_EQ(of({0xf3, 0xc3}).kind, Kind::Return);
    EXPECT_EQ(of({0x0f, 0x0b}).kind, Kind::Stop);
    EXPECT_EQ(of({0x75, 0xfe}).kind, Kind::Branch);
    EXPECT_EQ(target({0x75, 0xfe}), 0x1000U);
    EXPECT_EQ(of({0x0f, 0x84, 0x10, 0, 0, 0}).kind, Kind::Branch);
    EXPECT_EQ(target({0x0f, 0x84, 0x10, 0, 0, 0}), 0x1016U);
    EXPECT_EQ(of({0xe8, 0, 1, 0, 0}).kind, Kind::Call);
    EXPECT_EQ(target({0xe8, 0, 1, 0, 0}), 0x1105U);
    EXPECT_EQ(target({0x67, 0xe8, 0, 1, 0, 0}),
              0x1106U);  // what the linker makes of a call by a word
    EXPECT_EQ(of({0xeb, 0x02}).kind, Kind::Jump);
    EXPECT_EQ(of({0xff, 0x25, 0, 1, 0, 0}).kind, Kind::JumpByWord);
    EXPECT_EQ(target({0xff, 0x25, 0, 1, 0, 0}), 0x1106U);
    EXPECT_EQ(of({0xf2, 0xff, 0x25, 0, 1, 0, 0}).kind, Kind::JumpByWord);
    EXPECT_EQ(of({0xff, 0x15, 0, 1, 0, 0}).kind, Kind::CallByWord);
    EXPECT_EQ(of({0xff, 0xd0}).kind, Kind::Unknown);  // call *%rax
    EXPECT_EQ(of({0xff, 0xe2}).kind, Kind::Unknown);  // jmp *%rdx
}

TEST(Insn, TheStackPointer) {
    EXPECT_EQ(of({0x53}).stack, 8);
    EXPECT_EQ(of({0x5b}).stack, -8);
    EXPECT_EQ(of({0x48, 0x83, 0xec, 0x18}).stack, 24);  // sub $24, %rsp
    EXPECT_EQ(of({0x48, 0x83, 0xc4, 0x18}).stack, -24);
    EXPECT_EQ(of({0x48, 0x8b, 0x44, 0x24, 0x10}).stack_offset, 16);
    EXPECT_TRUE(of({0x48, 0x8b, 0x44, 0x24, 0x10}).by_stack_pointer);
    EXPECT_EQ(of({0x48, 0x89, 0xe0}).kind, Kind::Plain);    // mov %rsp, %rax
    EXPECT_EQ(of({0x48, 0x89, 0xc4}).kind, Kind::Unknown);  // mov %rax, %rsp
    EXPECT_EQ(of({0x48, 0x8b, 0xe0}).kind, Kind::Unknown);
    EXPECT_EQ(of({0x48, 0x83, 0xe4, 0xf0}).kind, Kind::Unknown);  // and $-16, %rsp
    EXPECT_EQ(of({0x48, 0x8d, 0x64, 0x24, 0x80}).kind, Kind::Unknown);
    EXPECT_EQ(of({0x48, 0x94}).kind, Kind::Unknown);  // xchg %rax, %rsp
    EXPECT_EQ(of({0x5c}).kind, Kind::Unknown);        // pop %rsp
    EXPECT_EQ(of({0xc9}).kind, Kind::Unknown);        // leave
}

TEST(Insn, OthersAreUnknown) {
    const std::vector<std::uint8_t> unknown[] = {
        {0x0f, 0x10, 0x00},              // movups
        {0x66, 0x0f, 0x6f, 0x00},        // movdqa
        {0x0f, 0x77},                    // emms
        {0xd9, 0x00},                    // fld
        {0xc5, 0xf8, 0x77},              // vzeroupper
        {0x62, 0xf1, 0x7c, 0x48, 0x28},  // EVEX
        {0x0f, 0x05},                    // syscall
        {0x0f, 0x01, 0xc1},              // vmcall
        {0x0f, 0xae, 0x00},              // fxsave
        {0x66, 0x0f, 0xae, 0x38},        // clflushopt
        {0xf3, 0x0f, 0xae, 0xd0},        // wrfsbase
        {0x0f, 0xc7, 0x0f},              // cmpxchg8b
        {0xf3, 0x48, 0x0f, 0x1e, 0xca},  // rdsspq
        {0x48, 0xcf},                    // iretq
        {0x9d},                          // popf
        {0xcc},                          // a breakpoint
        {0x0f, 0xa2},                    // cpuid
        {0xf4},
        {0xc2, 8, 0},
    };
    for (const auto& bytes : unknown) {
        EXPECT_EQ(of(bytes).kind, Kind::Unknown)
            << std::hex << int{bytes[0]} << " " << int{bytes[1]};
        EXPECT_EQ(of(bytes).length, 0);
    }
}

/// The registers that objdump names in its operands.
std::uint16_t named(const std::string& operands) {
    static const std::map<std::string, unsigned> kNumbers = [] {
        std::map<std::string, unsigned> numbers;
        const char* const names[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
        for (unsigned i = 0; i < 8; ++i) {
            const std::string name = names[i];
            for (const std::string& form : {"r" + name, "e" + name, name, name + "l"})
                numbers[form] = i;
            if (i < 4) {
                numbers[name.substr(0, 1) + "l"] = i;
                numbers[name.substr(0, 1) + "h"] = i;
            }
        }
        for (unsigned i = 8; i < 16; ++i)
            for (const char* const form : {"", "d", "w", "b"})
                numbers["r" + std::to_string(i) + form] = i;
        return numbers;
    }();
    static const std::regex kRegister("%([a-z0-9]+)");
    std::uint16_t found = 0;
    for (std::sregex_iterator it(operands.begin(), operands.end(), kRegister), end; it != end; ++it)
        if (const auto number = kNumbers.find((*it)[1]); number != kNumbers.end())
            found |= rt::reg_bit(number->second);
    return found;
}

/// objdump's listing, by offset.
std::map<std::size_t, std::string> disassemble(const std::string& file) {
    const std::string command =
        "objdump -D -b binary -m i386:x86-64 --no-show-raw-insn -z " + file + " 2>&1";
    std::map<std::size_t, std::string> lines;
    FILE* const pipe = popen(command.c_str(), "r");
    char line[512];
    static const std::regex kLine("^ *([0-9a-f]+):\\s+(.*?)\\s*$");
    while (fgets(line, sizeof(line), pipe) != nullptr) {
        std::cmatch parts;
        if (!std::regex_search(line, parts, kLine))
            continue;
        const std::string text = parts[2];
        lines[std::stoul(parts[1], nullptr, 16)] = text.substr(0, text.find(" #"));
    }
    pclose(pipe);
    return lines;
}

/// Bytes of which many are instructions: prefixes, an opcode, operands.
Bytes random_code(std::mt19937& random) {
    static const std::uint8_t kPrefixes[] = {0x66, 0xf0, 0xf2, 0xf3, 0x2e, 0x64,
                                             0x48, 0x41, 0x4c, 0x40, 0x49};
    Bytes code;
    for (std::uint8_t& byte : code)
        byte = static_cast<std::uint8_t>(random());
    std::size_t at = 0;
    for (unsigned i = random() % 3; i > 0; --i)
        code[at++] = kPrefixes[random() % std::size(kPrefixes)];
    if (random() % 3 == 0)
        code[at++] = 0x0f;
    return code;
}

TEST(Insn, AgreesWithObjdump) {
    constexpr std::size_t kCases = 20'000;
    std::mt19937 random(1);
    std::vector<Insn> insns;
    std::string image;
    for (std::size_t i = 0; i < 40 * kCases && insns.size() < kCases; ++i) {
        const Bytes code = random_code(random);
        const Insn insn = decode(code.data());
        if (insn.length == 0)
            continue;
        ASSERT_LE(insn.length, 15);
        insns.push_back(insn);
        image.append(reinterpret_cast<const char*>(code.data()), insn.length);
        image.resize(insns.size() * kSlot, '\x90');
    }
    ASSERT_EQ(insns.size(), kCases);

    char name[] = "/tmp/insnXXXXXX";
    const int fd = mkstemp(name);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(write(fd, image.data(), image.size()), static_cast<ssize_t>(image.size()));
    close(fd);
    const auto lines = disassemble(name);
    unlink(name);
    ASSERT_GE(lines.size(), kCases) << "objdump is there?";

    static const std::regex kVectors("%([xyz]?mm|st|k)[0-9]?|\\(bad\\)|\\bnot found");
    static const std::regex kNothing("nop|xchg +%r?ax,%r?ax");
    for (std::size_t i = 0; i < kCases; ++i) {
        const std::size_t at = i * kSlot;
        std::string bytes;
        for (std::size_t j = 0; j < insns[i].length; ++j) {
            char hex[4];
            std::snprintf(hex, sizeof(hex), "%02x ", static_cast<unsigned char>(image[at + j]));
            bytes += hex;
        }
        SCOPED_TRACE(bytes);
        const auto line = lines.find(at);
        ASSERT_NE(line, lines.end());
        const std::string& text = line->second;
        SCOPED_TRACE(text);
        EXPECT_NE(std::next(line), lines.end());
        EXPECT_EQ(std::next(line)->first - at, insns[i].length);
        EXPECT_FALSE(std::regex_search(text, kVectors));
        if (!std::regex_search(text, kNothing)) {
            EXPECT_EQ(named(text) & ~(insns[i].uses | insns[i].replaces | rt::kRsp), 0);
        }
    }
}

}  // namespace
}  // namespace dune::test
