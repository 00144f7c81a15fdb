// SPDX-License-Identifier: MIT
#include "handler_scan.h"

#include <link.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "../mm/protect.h"
#include "insn.h"

namespace dune::rt {
namespace {

using Code = const std::uint8_t*;

/** RBX, RBP, R12 to R15: a function leaves them as they were. */
constexpr std::uint16_t kPreserved =
    reg_bit(3) | reg_bit(5) | reg_bit(12) | reg_bit(13) | reg_bit(14) | reg_bit(15);

/** Is it in a part of a program or library that the dynamic linker has made read-only? */
bool is_relro(Code word) noexcept {
    struct Search {
        std::uintptr_t word;
        bool found;
    } search{reinterpret_cast<std::uintptr_t>(word), false};
    const auto look = [](dl_phdr_info* object, std::size_t, void* data) {
        auto* const wanted = static_cast<Search*>(data);
        for (int i = 0; i < object->dlpi_phnum; ++i) {
            const ElfW(Phdr)& part = object->dlpi_phdr[i];
            const std::uintptr_t start = object->dlpi_addr + part.p_vaddr;
            // What it shares a page with at its end stays writable.
            const std::uintptr_t end = (start + part.p_memsz) & ~std::uintptr_t{0xfff};
            if (part.p_type == PT_GNU_RELRO && wanted->word >= start &&
                wanted->word + sizeof(Code) <= end)
                wanted->found = true;
        }
        return wanted->found ? 1 : 0;
    };
    dl_iterate_phdr(look, &search);
    return search.found;
}

/** A place in the code, and how it was come to. */
struct Place {
    Code at;
    bool frame_in_rdx;   // RDX may still be what the handler was called with
    std::int32_t depth;  // bytes of the stack below the return address
};

class Scan {
  public:
    HandlerNeeds run(Code handler) noexcept {
        go({handler, true, 0});
        while (waiting_ != 0 && needs_ != HandlerNeeds::Vectors)
            follow(list_[--waiting_]);
        return needs_;
    }

  private:
    static constexpr std::size_t kMostInstructions = 400;
    static constexpr std::int32_t kWord = 8;

    void need(HandlerNeeds what) noexcept { needs_ = std::max(needs_, what); }

    /** Come to a place later. */
    void go(const Place& place) noexcept {
        if (waiting_ == kMostInstructions) {
            need(HandlerNeeds::Vectors);
            return;
        }
        list_[waiting_++] = place;
    }

    /** Follow straight code to where it ends. */
    void follow(Place place) noexcept {
        while (needs_ != HandlerNeeds::Vectors && !seen(place)) {
            const Insn insn = decode(place.at);
            look_at_registers(insn, place);
            look_at_stack(insn, place);
            place.at += insn.length;
            switch (insn.kind) {
                case Insn::Kind::Plain:
                    break;
                case Insn::Kind::Branch:
                    go({insn.target, place.frame_in_rdx, place.depth});
                    break;
                case Insn::Kind::Call:
                case Insn::Kind::CallByWord:
                    if (transfer(insn, {nullptr, place.frame_in_rdx, 0}))
                        place.frame_in_rdx = false;
                    break;
                case Insn::Kind::Jump:
                case Insn::Kind::JumpByWord:
                    transfer(insn, place);
                    return;
                case Insn::Kind::Return:
                    if (place.depth != 0)
                        need(HandlerNeeds::Vectors);
                    return;
                case Insn::Kind::Stop:
                    return;
                case Insn::Kind::Unknown:
                    need(HandlerNeeds::Vectors);
                    return;
            }
        }
    }

    bool seen(const Place& place) noexcept {
        for (std::size_t i = 0; i < seen_count_; ++i) {
            if (seen_[i].at != place.at)
                continue;
            if (seen_[i].depth != place.depth)  // no compiler's work
                need(HandlerNeeds::Vectors);
            if (seen_[i].frame_in_rdx == place.frame_in_rdx)
                return true;
        }
        if (seen_count_ == kMostInstructions)
            need(HandlerNeeds::Vectors);
        else
            seen_[seen_count_++] = place;
        return false;
    }

    void look_at_registers(const Insn& insn, Place& place) noexcept {
        if (place.frame_in_rdx && (insn.uses & kRdx) != 0)
            need(HandlerNeeds::Frame);
        if (((insn.uses | insn.replaces) & kPreserved) != 0)
            need(HandlerNeeds::Frame);
        if ((insn.replaces & kRdx) != 0)
            place.frame_in_rdx = false;
    }

    /** Who changes a return address, as a retpoline, does not return to where he was called. */
    void look_at_stack(const Insn& insn, Place& place) noexcept {
        if (insn.by_stack_pointer && insn.stack_offset + kWord > place.depth)
            need(HandlerNeeds::Vectors);
        constexpr std::int32_t kMost = 1 << 20;
        place.depth += std::clamp(insn.stack, -kMost, kMost);
        if (place.depth < 0 || place.depth > kMost)
            need(HandlerNeeds::Vectors);
    }

    /** Code goes on elsewhere. @return whether that is a function which may change RDX */
    bool transfer(const Insn& insn, Place place) noexcept {
        Code to = insn.target;
        if (insn.kind == Insn::Kind::CallByWord || insn.kind == Insn::Kind::JumpByWord) {
            if (!is_relro(to)) {
                need(HandlerNeeds::Vectors);
                return false;
            }
            std::memcpy(&to, insn.target, sizeof(to));
        }
        if (to == reinterpret_cast<Code>(&dune_vm_mprotect_keeping_vectors)) {
            if (place.frame_in_rdx)  // its third argument
                need(HandlerNeeds::Frame);
            if (place.depth != 0)  // jumped to
                need(HandlerNeeds::Vectors);
            return true;
        }
        place.at = to;
        go(place);
        return false;
    }

    HandlerNeeds needs_ = HandlerNeeds::Scratch;
    std::size_t waiting_ = 0;
    std::size_t seen_count_ = 0;
    Place list_[kMostInstructions];
    Place seen_[kMostInstructions];
};

}  // namespace

HandlerNeeds scan_handler(const void* handler) noexcept {
    return Scan().run(static_cast<Code>(handler));
}

}  // namespace dune::rt
