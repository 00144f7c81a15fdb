// SPDX-License-Identifier: MIT
//
// On which CPUs the module loads: what is missing is named, what may be missing is left out, and a
// bug that it cannot guard against is a refusal.

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <string>

#include "caps.h"

namespace {

// SDM vol. 3, appendix A.
constexpr uint32_t kArchCapabilities = 0x10a, kBasic = 0x480, kProc2 = 0x48b, kEpt = 0x48c,
                   kTruePin = 0x48d, kTrueProc = 0x48e, kTrueExit = 0x48f, kTrueEntry = 0x490;
constexpr uint32_t kTrueDistance = kTruePin - 0x481;

struct Control {
    uint32_t msr;
    unsigned bit;
    const char* name;
};

constexpr Control kNeeded[] = {
    {kTruePin, 0, "external-interrupt exiting"},
    {kTruePin, 3, "NMI exiting"},
    {kTrueProc, 7, "HLT exiting"},
    {kTrueProc, 10, "MWAIT exiting"},
    {kTrueProc, 11, "RDPMC exiting"},
    {kTrueProc, 19, "CR8-load exiting"},
    {kTrueProc, 20, "CR8-store exiting"},
    {kTrueProc, 23, "MOV-DR exiting"},
    {kTrueProc, 24, "unconditional I/O exiting"},
    {kTrueProc, 28, "MSR bitmaps"},
    {kTrueProc, 29, "MONITOR exiting"},
    {kTrueProc, 31, "secondary controls"},
    {kProc2, 1, "EPT"},
    {kProc2, 6, "WBINVD exiting"},
    {kTrueExit, 2, "save debug controls"},
    {kTrueExit, 9, "64-bit host"},
    {kTrueEntry, 2, "load debug controls"},
    {kTrueEntry, 9, "IA-32e guest"},
};

constexpr Control kNotForced[] = {
    {kTrueProc, 9, "INVLPG exiting"},
    {kTrueProc, 15, "CR3-load exiting"},
    {kTrueProc, 16, "CR3-store exiting"},
    {kTrueExit, 15, "acknowledging interrupts on exit"},
};

constexpr Control kEptNeeded[] = {
    {kEpt, 6, "four-level EPT"},
    {kEpt, 14, "write-back EPT tables"},
    {kEpt, 20, "INVEPT"},
    {kEpt, 25, "single-context INVEPT"},
};

// VPID, RDTSCP, INVPCID, unrestricted guest.
constexpr uint32_t kProc2Wanted = 1 << 5 | 1 << 3 | 1 << 12 | 1 << 7 | 1 << 15;

class Caps : public testing::Test {
  protected:
    void SetUp() override { caps_start(); }
    static bool said(const std::string& what) {
        return std::string(caps_log()).find(what) != std::string::npos;
    }
    static void without(const Control& control, unsigned shift) {
        caps_set_msr(control.msr, caps_msr(control.msr) & ~(1ULL << (control.bit + shift)));
    }
    static std::string hex(uint32_t msr) {
        char text[16];
        std::snprintf(text, sizeof(text), "%#x", msr);
        return text;
    }
};

TEST_F(Caps, ACpuThatCanDoItAll) {
    ASSERT_EQ(caps_init(false), 0) << caps_log();
    EXPECT_STREQ(caps_log(), "");
    uint32_t pin = 0, proc = 0, proc2 = kProc2Wanted, exit = 0, entry = 0;
    for (const Control& control : kNeeded) {
        uint32_t& all = control.msr == kTruePin    ? pin
                        : control.msr == kTrueProc ? proc
                        : control.msr == kProc2    ? proc2
                        : control.msr == kTrueExit ? exit
                                                   : entry;
        all |= 1U << control.bit;
    }
    EXPECT_EQ(caps_pin(), pin) << "no more than is needed";
    EXPECT_EQ(caps_proc(), proc);
    EXPECT_EQ(caps_proc2(), proc2);
    EXPECT_EQ(caps_exit(), exit);
    EXPECT_EQ(caps_entry(), entry);
    EXPECT_EQ(caps_eptp_flags(), 6U | 3 << 3 | 1 << 6);
    EXPECT_FALSE(caps_mitigations());
}

TEST_F(Caps, EachControlThatIsMissingIsNamed) {
    for (const Control& control : kNeeded) {
        caps_start();
        without(control, 32);
        EXPECT_EQ(caps_init(true), -EOPNOTSUPP) << control.name;
        EXPECT_TRUE(said(std::string("no ") + control.name + " (")) << caps_log();
        EXPECT_TRUE(said(hex(control.msr))) << caps_log();
    }
    for (const Control& control : kEptNeeded) {
        caps_start();
        without(control, 0);
        EXPECT_EQ(caps_init(true), -EOPNOTSUPP) << control.name;
        EXPECT_TRUE(said(std::string("no ") + control.name + " (")) << caps_log();
    }
}

TEST_F(Caps, EachControlThatIsForcedIsNamed) {
    for (const Control& control : kNotForced) {
        caps_start();
        caps_set_msr(control.msr, caps_msr(control.msr) | 1ULL << control.bit);
        EXPECT_EQ(caps_init(true), -EOPNOTSUPP) << control.name;
        EXPECT_TRUE(said(std::string("forces ") + control.name)) << caps_log();
    }
}

TEST_F(Caps, WhatMustBeOneIs) {
    caps_set_msr(kTruePin, caps_msr(kTruePin) | 0x16);
    ASSERT_EQ(caps_init(false), 0) << caps_log();
    EXPECT_EQ(caps_pin(), 0x16U | 1 | 8);
}

TEST_F(Caps, WithoutTrueControlsTheOthersTell) {
    caps_set_msr(kBasic, caps_msr(kBasic) & ~(1ULL << 55));
    for (const uint32_t msr : {kTruePin, kTrueProc, kTrueExit, kTrueEntry}) {
        caps_set_msr(msr, 0);
    }
    EXPECT_EQ(caps_init(false), 0) << caps_log();
    without({kTrueProc - kTrueDistance, 7, ""}, 32);
    EXPECT_EQ(caps_init(false), -EOPNOTSUPP);
    EXPECT_TRUE(said("no HLT exiting")) << caps_log();
}

TEST_F(Caps, WhatMayBeMissingIsLeftOut) {
    caps_set_msr(kProc2, caps_msr(kProc2) & ~(uint64_t{kProc2Wanted} << 32));
    caps_set_msr(kEpt, caps_msr(kEpt) & ~(1ULL << 21));
    ASSERT_EQ(caps_init(false), 0) << caps_log();
    EXPECT_EQ(caps_proc2(), 1U << 1 | 1 << 6);
    EXPECT_EQ(caps_eptp_flags(), 6U | 3 << 3) << "no accessed bits";
}

TEST_F(Caps, NoVtxAtAll) {
    caps_set(CAPS_VMX, false);
    EXPECT_EQ(caps_init(true), -EOPNOTSUPP);
    EXPECT_TRUE(said("no VT-x")) << caps_log();
}

TEST_F(Caps, Fred) {
    caps_set_cr4(1ULL << 32);
    EXPECT_EQ(caps_init(true), -EOPNOTSUPP);
    EXPECT_TRUE(said("fred=off")) << caps_log();
}

TEST_F(Caps, RegionsOfAnotherKind) {
    for (const uint64_t basic : {4096ULL << 32 | 0ULL << 50, 8191ULL << 32 | 6ULL << 50}) {
        caps_set_msr(kBasic, basic | 1ULL << 55);
        EXPECT_EQ(caps_init(true), -EOPNOTSUPP);
        EXPECT_TRUE(said("VMX regions")) << caps_log();
    }
}

// Expects a refusal that names the bug, and that the administrator may insist.
void expect_hole(const std::string& bug) {
    EXPECT_EQ(caps_init(false), -EPERM) << bug;
    EXPECT_NE(std::string(caps_log()).find("has " + bug), std::string::npos) << caps_log();
    EXPECT_NE(std::string(caps_log()).find("refused (allow_unsafe=1"), std::string::npos);
    EXPECT_EQ(caps_init(true), 0) << bug;
    EXPECT_NE(std::string(caps_log()).find("loaded all the same"), std::string::npos) << caps_log();
    caps_set(CAPS_MITIGATIONS_OFF, true);
    EXPECT_EQ(caps_init(false), 0) << "mitigations=off";
}

TEST_F(Caps, ABugWithoutItsCureIsRefused) {
    caps_set(CAPS_L1TF, true);
    expect_hole("L1TF");
    for (const caps_has bug : {CAPS_MDS, CAPS_TAA, CAPS_MMIO_STALE_DATA, CAPS_RFDS}) {
        caps_start();
        caps_set(bug, true);
        expect_hole("MDS");
    }
}

// VMX_MIT_* of entry.h.
constexpr uint32_t kVerw = 1, kIbrs = 2, kBhb = 4, kL1d = 8;

TEST_F(Caps, VerwIsNoCureForMmioByItself) {
    constexpr uint64_t kMdsNo = 1 << 5, kFbClear = 1 << 17;
    caps_set(CAPS_MMIO_STALE_DATA, true);
    caps_set(CAPS_MD_CLEAR, true);
    EXPECT_EQ(caps_init(false), -EPERM) << "where it clears the buffers of MDS";
    caps_set_msr(kArchCapabilities, kFbClear | kMdsNo);
    EXPECT_EQ(caps_init(false), 0);
    EXPECT_EQ(caps_mitigations(), kVerw);
    // Microcode from before the bug was known does it all the same where there is MDS.
    caps_start();
    caps_set(CAPS_MMIO_STALE_DATA, true);
    caps_set(CAPS_MD_CLEAR, true);
    caps_set(CAPS_FLUSH_L1D, true);
    EXPECT_EQ(caps_init(false), 0);
    caps_set_msr(kArchCapabilities, kMdsNo);
    EXPECT_EQ(caps_init(false), -EPERM);
}

TEST_F(Caps, TheFlushOfL1dIsNoCureBesideAnotherThread) {
    caps_set(CAPS_SMT, true);
    EXPECT_EQ(caps_init(false), 0);
    EXPECT_STREQ(caps_log(), "");
    caps_set(CAPS_L1TF, true);
    caps_set(CAPS_FLUSH_L1D, true);
    EXPECT_EQ(caps_init(false), 0);
    EXPECT_TRUE(said("L1TF, and SMT is on")) << caps_log();
    caps_set(CAPS_SMT, false);
    EXPECT_EQ(caps_init(false), 0);
    EXPECT_STREQ(caps_log(), "");
}

TEST_F(Caps, EachCureIsApplied) {
    EXPECT_EQ(caps_init(false), 0);
    EXPECT_TRUE(caps_safe_entry()) << "whatever the CPU";
    caps_set(CAPS_L1TF, true);
    caps_set(CAPS_FLUSH_L1D, true);
    EXPECT_EQ(caps_init(false), 0);
    EXPECT_EQ(caps_mitigations(), kL1d);
    caps_set(CAPS_MDS, true);
    EXPECT_EQ(caps_init(false), 0) << "the flush clears the buffers as well";
    caps_set(CAPS_MD_CLEAR, true);
    caps_set(CAPS_IBRS, true);
    caps_set(CAPS_BHI, true);
    EXPECT_EQ(caps_init(false), 0);
    EXPECT_EQ(caps_mitigations(), kL1d | kVerw | kIbrs | kBhb);
    EXPECT_FALSE(caps_small_code());
    caps_set(CAPS_ITLB_MULTIHIT, true);
    EXPECT_EQ(caps_init(false), 0);
    EXPECT_TRUE(caps_small_code());
    caps_start();
    caps_set(CAPS_MITIGATIONS_OFF, true);
    caps_set(CAPS_ITLB_MULTIHIT, true);
    caps_set(CAPS_MDS, true);
    caps_set(CAPS_MD_CLEAR, true);
    EXPECT_EQ(caps_init(false), 0);
    EXPECT_FALSE(caps_safe_entry());
    EXPECT_FALSE(caps_small_code());
    EXPECT_EQ(caps_mitigations(), 0U);
}

}  // namespace
