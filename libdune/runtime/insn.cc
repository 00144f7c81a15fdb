// SPDX-License-Identifier: MIT
#include "insn.h"

#include <cstddef>
#include <cstring>

#include "opcodes.h"

namespace dune::rt {
namespace {

using Kind = Insn::Kind;
using namespace opcodes;

/** Reads an instruction byte by byte. */
class Decoder {
  public:
    explicit Decoder(const std::uint8_t* code) noexcept : start_(code), at_(code) {}

    Insn run() noexcept {
        if (!prefixes())
            return {};
        bool known = false;
        const std::uint8_t opcode = next();
        if (opcode == 0x0f) {
            const std::uint8_t second = next();
            known = flow_0f(second) || special_0f(second) || usual(kTwoByte.of[second], second);
        } else {
            known = flow(opcode) || special(opcode) || usual(kOneByte.of[opcode], opcode);
        }
        constexpr std::ptrdiff_t kLongest = 15;
        if (!known || at_ - start_ > kLongest)
            return {};
        insn_.length = static_cast<std::uint8_t>(at_ - start_);
        if ((insn_.replaces & kRsp) != 0)
            return {};
        if (relative_)  // an operand behind RIP counts from the next instruction
            insn_.target = at_ + displacement_;
        return insn_;
    }

  private:
    std::uint8_t next() noexcept { return *at_++; }
    template <class T>
    std::int64_t number() noexcept {
        T value;
        std::memcpy(&value, at_, sizeof(value));
        at_ += sizeof(value);
        return value;
    }

    /** At most a REX before the opcode counts; others are accepted where they mean nothing. */
    bool prefixes() noexcept {
        constexpr int kMost = 14;
        for (int i = 0; i < kMost; ++i) {
            const std::uint8_t byte = *at_;
            if ((byte & 0xf0) == 0x40) {
                rex_ = next();
                return (*at_ & 0xf0) != 0x40 && !is_legacy_prefix(*at_);
            }
            if (!is_legacy_prefix(byte))
                return true;
            word_ |= byte == 0x66;
            rep_ = byte == 0xf2 || byte == 0xf3 ? byte : rep_;
            locked_ |= byte == 0xf0;
            short_address_ |= byte == 0x67;
            ++at_;
        }
        return false;
    }
    static bool is_legacy_prefix(std::uint8_t byte) noexcept {
        switch (byte) {
            case 0x26:
            case 0x2e:
            case 0x36:
            case 0x3e:  // ES, CS, SS, DS: ignored
            case 0x64:
            case 0x65:  // FS, GS
            case 0x66:
            case 0x67:
            case 0xf0:
            case 0xf2:
            case 0xf3:
                return true;
            default:
                return false;
        }
    }

    bool wide() const noexcept { return (rex_ & 8) != 0; }

    /** The bit of a register; of bytes without REX, 4 to 7 are AH, CH, DH, BH. */
    std::uint16_t reg(unsigned number, unsigned rex_bit, bool byte) const noexcept {
        if (byte && rex_ == 0)
            return reg_bit(number & 3);
        return reg_bit(number | ((rex_ & rex_bit) != 0 ? 8U : 0U));
    }

    /** ModRM and what belongs to it. Registers of an address count as used. */
    void modrm() noexcept {
        const std::uint8_t byte = next();
        mod_ = byte >> 6;
        reg_ = byte >> 3 & 7;
        rm_ = byte & 7;
        if (mod_ == 3)
            return;
        unsigned base = rm_;
        if (rm_ == 4) {
            const std::uint8_t sib = next();
            const std::uint16_t index = reg(sib >> 3 & 7U, 2, false);
            if (index != kRsp)
                address_ |= index;
            base = sib & 7;
            if (base == 5 && mod_ == 0)
                number<std::int32_t>();
            else
                address_ |= reg(base, 1, false);
        } else if (rm_ == 5 && mod_ == 0) {
            displacement_ = number<std::int32_t>();
        } else {
            address_ |= reg(base, 1, false);
        }
        std::int64_t offset = 0;
        if (mod_ == 1)
            offset = number<std::int8_t>();
        else if (mod_ == 2)
            offset = number<std::int32_t>();
        insn_.uses |= address_;
        if ((address_ & kRsp) != 0) {
            insn_.by_stack_pointer = true;
            insn_.stack_offset = static_cast<std::int32_t>(offset);
        }
    }

    void immediate(unsigned flags) noexcept {
        if ((flags & kImm8) != 0)
            at_ += 1;
        if ((flags & kImm) != 0)
            at_ += (flags & kImmWide) != 0 && wide() ? 8 : word_ && !wide() ? 2 : 4;
    }

    void use(std::uint16_t registers) noexcept { insn_.uses |= registers; }
    /** What is written whole only where it is no 16-bit operand. */
    void replace(std::uint16_t registers) noexcept {
        if (word_ && !wide())
            insn_.uses |= registers;
        else
            insn_.replaces |= registers;
    }

    bool plain() noexcept {
        insn_.kind = Kind::Plain;
        return true;
    }

    /** Opcodes that the tables describe. */
    bool usual(const Opcode& opcode, std::uint8_t byte) noexcept {
        if (opcode.form == Form::Bad || (rep_ != 0 && (opcode.flags & kRepOk) == 0))
            return false;
        if (rep_ == 0xf2 && opcode.form != Form::None)  // only F3 makes an instruction of its own
            return false;
        const bool bytes = (opcode.flags & kByte) != 0;
        use(opcode.uses);
        replace(opcode.replaces);
        switch (opcode.form) {
            case Form::Bad:
            case Form::None:
                break;
            case Form::Opcode:
                use(reg(byte & 7U, 1, bytes));
                if (reg(byte & 7U, 1, bytes) == kRsp && (opcode.flags & kPush) == 0)
                    return false;
                break;
            case Form::SetOpcode:
                replace(reg(byte & 7U, 1, bytes));
                break;
            default:
                modrm();
                if (!operands(opcode.form, bytes, (opcode.flags & kByteSource) != 0))
                    return false;
        }
        immediate(opcode.flags);
        if ((opcode.flags & (kPush | kPop)) != 0) {
            if (word_)
                return false;
            insn_.stack = (opcode.flags & kPush) != 0 ? kWord : -kWord;
        }
        return (!locked_ || (mod_ != 3 && mod_ != kNoModrm)) && plain();
    }

    bool operands(Form form, bool bytes, bool byte_source) noexcept {
        const std::uint16_t to = reg(reg_, 4, bytes);
        const std::uint16_t from = mod_ == 3 ? reg(rm_, 1, bytes || byte_source) : 0;
        switch (form) {
            case Form::Nop:
                insn_.uses = 0;
                return rep_ == 0 || (mod_ == 3 && reg_ == 7 && rm_ == 2);  // ENDBR64, not RDSSP
            case Form::Modify:
                use(to | from);
                return ((to | from) & kRsp) == 0;
            case Form::Lea:
                if (mod_ == 3)
                    return false;
                replace(to);
                return true;
            case Form::Move:
            case Form::Extend:
                use(from);
                replace(to);
                return true;
            case Form::Store:
                use(to);
                replace(from);
                return true;
            case Form::SetRm:
                replace(from);
                return mod_ == 3;
            case Form::MemoryRm:
                return mod_ != 3;
            case Form::BitRm:
                use(from);
                return reg_ >= 4 && (from & kRsp) == 0;
            default:
                use(from);
                return (from & kRsp) == 0;
        }
    }

    /** Those of the one-byte map whose ModRM.reg is a part of the opcode, and XOR r, r. */
    bool special(std::uint8_t opcode) noexcept {
        const std::uint8_t* const before = at_;
        const auto undo = [&] {
            at_ = before;
            mod_ = kNoModrm;
            address_ = 0;
            insn_ = {};
            return false;
        };
        switch (opcode) {
            case 0x90:
                if ((rex_ & 1) == 0)
                    return false;
                use(kRax | reg_bit(8));
                return rep_ == 0 && plain();
            case 0x29:
            case 0x2b:
            case 0x31:
            case 0x33:  // SUB, XOR of a register with itself
                modrm();
                if (rep_ != 0 || locked_ || mod_ != 3 || reg(reg_, 4, false) != reg(rm_, 1, false))
                    return undo();
                replace(reg(reg_, 4, false));
                return plain();
            case 0x81:
            case 0x83:
                return arithmetic(opcode == 0x83);
            case 0xc6:
            case 0xc7:  // MOV of an immediate
                modrm();
                if (rep_ != 0 || reg_ != 0)
                    return undo();
                if (!keeps_rsp())
                    return undo();
                if (mod_ == 3)
                    opcode == 0xc7 ? replace(reg(rm_, 1, false)) : use(reg(rm_, 1, true));
                immediate(opcode == 0xc6 ? kImm8 : kImm);
                return !locked_ && plain();
            case 0xf6:
            case 0xf7:
                return rep_ == 0 && unary(opcode == 0xf6);
            case 0xfe:
            case 0xff:  // INC, DEC, PUSH; CALL and JMP are in flow()
                modrm();
                if (rep_ != 0 || (reg_ > 1 && (opcode == 0xfe || reg_ != 6)))
                    return undo();
                if (mod_ == 3)
                    use(reg(rm_, 1, opcode == 0xfe));
                if (reg_ == 6)
                    insn_.stack = kWord;
                return (reg_ != 6 || !word_) && (!locked_ || mod_ != 3) && keeps_rsp() && plain();
            default:
                return false;
        }
    }

    /** 81 and 83: ADD to CMP with an immediate. */
    bool arithmetic(bool imm8) noexcept {
        constexpr unsigned kAdd = 0, kSub = 5;
        if (rep_ != 0)
            return false;
        modrm();
        const std::uint8_t* const constant = at_;
        immediate(imm8 ? kImm8 : kImm);
        if (mod_ != 3)
            return plain();
        const std::uint16_t to = reg(rm_, 1, false);
        if (to == kRsp) {
            if (!wide() || word_ || (reg_ != kAdd && reg_ != kSub))
                return false;
            at_ = constant;
            const auto bytes =
                static_cast<std::int32_t>(imm8 ? number<std::int8_t>() : number<std::int32_t>());
            if (bytes < 0)  // the smallest has no negative
                return false;
            insn_.stack = reg_ == kSub ? bytes : -bytes;
        } else {
            use(to);
        }
        return !locked_ && plain();
    }

    bool keeps_rsp() const noexcept { return mod_ != 3 || reg(rm_, 1, false) != kRsp; }

    /** F6 and F7: TEST, NOT, NEG, MUL, IMUL, DIV, IDIV. */
    bool unary(bool bytes) noexcept {
        modrm();
        if (mod_ == 3)
            use(reg(rm_, 1, bytes));
        if (!keeps_rsp() || (locked_ && mod_ == 3))
            return false;
        if (reg_ < 2)
            immediate(bytes ? kImm8 : kImm);
        if (reg_ >= 4) {
            use(kRax);
            if (bytes)
                return plain();
            if (reg_ >= 6)
                use(kRdx);
            else
                replace(kRdx);
        }
        return plain();
    }

    bool special_0f(std::uint8_t opcode) noexcept {
        switch (opcode) {
            case 0x01:  // INVLPG alone
                modrm();
                return rep_ == 0 && !word_ && reg_ == 7 && mod_ != 3 && plain();
            case 0x0b:  // UD2
                insn_.kind = Kind::Stop;
                return true;
            case 0xae:  // LFENCE, MFENCE, SFENCE
                modrm();
                return rep_ == 0 && !word_ && mod_ == 3 && reg_ >= 5 && rm_ == 0 && plain();
            case 0xb8:  // POPCNT
                modrm();
                if (rep_ != 0xf3 || locked_)
                    return false;
                return operands(Form::Modify, false, false) && plain();
            default:
                return false;
        }
    }

    /** Jumps, calls and returns of the one-byte map. BND (F2) before them means nothing. */
    bool flow(std::uint8_t opcode) noexcept {
        if (opcode >= 0x70 && opcode < 0x80)
            return relative<std::int8_t>(Kind::Branch);
        switch (opcode) {
            case 0xc3:
                insn_.kind = Kind::Return;
                return true;
            case 0xe8:
                return relative<std::int32_t>(Kind::Call);
            case 0xe9:
                return relative<std::int32_t>(Kind::Jump);
            case 0xeb:
                return relative<std::int8_t>(Kind::Jump);
            case 0xff: {
                const std::uint8_t to = *at_;
                if (to != 0x15 && to != 0x25)  // by a word behind RIP
                    return false;
                if (short_address_ || word_ || locked_)
                    return false;
                modrm();
                insn_.kind = reg_ == 2 ? Kind::CallByWord : Kind::JumpByWord;
                relative_ = true;
                return true;
            }
            default:
                return false;
        }
    }
    bool flow_0f(std::uint8_t opcode) noexcept {
        return opcode >= 0x80 && opcode < 0x90 && relative<std::int32_t>(Kind::Branch);
    }
    template <class T>
    bool relative(Kind kind) noexcept {
        displacement_ = number<T>();
        relative_ = true;
        insn_.kind = kind;
        return !word_ && !locked_;  // with 66, CPUs differ
    }

    static constexpr unsigned kNoModrm = 4;
    static constexpr std::int32_t kWord = 8;
    const std::uint8_t* const start_;
    const std::uint8_t* at_;
    Insn insn_;
    std::uint8_t rex_ = 0;
    std::uint8_t rep_ = 0;  // F2 or F3
    bool word_ = false, locked_ = false, short_address_ = false;
    unsigned mod_ = kNoModrm, reg_ = 0, rm_ = 0;
    std::uint16_t address_ = 0;
    bool relative_ = false;
    std::int64_t displacement_ = 0;
};

}  // namespace

Insn decode(const std::uint8_t* code) noexcept {
    return Decoder(code).run();
}

}  // namespace dune::rt
