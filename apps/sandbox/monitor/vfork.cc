// SPDX-License-Identifier: MIT

#include "monitor/vfork.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <bitset>

#include "monitor/state.h"

namespace dune::sandbox {

namespace {

constexpr size_t kWords = kPageSize / sizeof(uint64_t);
constexpr unsigned kPages = 2;  // the frames of posix_spawn(3) and its callees need less

// Shared by parent and child.
struct Room {
    struct Page {
        uint64_t at;
        bool used;
        std::bitset<kWords> changed;
        uint64_t words[kWords];  // first the parent's, then the child's
    } pages[kPages];
};

Room* room;         // for children of this process
Room* parent_room;  // if this process is such a child and has not ended

bool make_room() {
    if (room == nullptr) {
        const long at = host_call(SYS_mmap, 0, sizeof(Room), PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        room = is_error(at) ? nullptr : reinterpret_cast<Room*>(at);
    }
    return room != nullptr;
}

}  // namespace

void before_vfork(uint64_t stack) {
    if (!make_room()) {
        return;  // the child's status, 127, tells as well
    }
    uint64_t at = page_down(stack);
    for (Room::Page& page : room->pages) {
        page.at = at;
        page.changed.reset();
        page.used = engine::copy_in(page.words, at, kPageSize);
        at += kPageSize;
    }
}

void after_vfork() {
    if (room == nullptr) {
        return;
    }
    for (const Room::Page& page : room->pages) {
        for (size_t i = page.changed._Find_first(); i < kWords; i = page.changed._Find_next(i)) {
            if (page.used) {
                engine::copy_out(page.at + i * sizeof(uint64_t), &page.words[i], sizeof(uint64_t));
            }
        }
    }
}

void begin_vfork_child(bool is_one) {
    parent_room = is_one ? room : nullptr;
    room = nullptr;
}

void end_vfork_child() {
    if (parent_room == nullptr) {
        return;
    }
    for (Room::Page& page : parent_room->pages) {
        for (size_t i = 0; page.used && i < kWords; i++) {
            uint64_t word;
            if (engine::copy_in(&word, page.at + i * sizeof(word), sizeof(word)) &&
                word != page.words[i]) {
                page.words[i] = word;
                page.changed[i] = true;
            }
        }
    }
    parent_room = nullptr;
}

}  // namespace dune::sandbox
