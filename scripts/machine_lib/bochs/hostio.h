// SPDX-License-Identifier: MIT
// Ports through which a program in the emulated machine talks to the host. Included by Bochs'
// iodev/unmapped.cc only.
//
//   port    access  meaning
//   0x8901  write   leave the emulator at once with this exit status
//   0x8902  write   save the state to $DUNE_SAVE_DIR at the next instruction boundary and leave
//   0x8910  write   physical address of the transfer buffer (RAM below 4 GiB)
//   0x8914  write   channel << 24 | length: write that many bytes of the buffer to the host
//   0x8918  write   channel << 24 | length: read that many bytes (fewer at the end) into the buffer
//   0x891c  write   channel << 24 | milliseconds: wait that long at most for something to read
//   0x8918  read    bytes moved by the last transfer, 0xffffffff after an error; after a wait,
//                   not 0 when a read would not block
//   0x8920  write   page frame of the memory error that the next machine check reports
//   0x8924  write   where << 28 | CPU << 24 | instructions: every so many of them looks whether the
//                   CPU is there, and raises the machine check once it is. 1: in VMX non-root
//                   operation in ring 0, 2: there in ring 3, 3: in ring 3 outside of it, with the
//                   CR3 that the CPU has now; 4: at its next VM entry, which fails (SDM 27.9);
//                   0: nowhere, none is raised any more
//   0x8924  read    not 0 while it has not been raised
//
// $DUNE_CHANNELS ("CHANNEL=FD,…") names the inherited file descriptor of each channel. A transfer
// costs the guest one instruction and the host one system call a page.
#ifndef DUNE_HOSTIO_H
#define DUNE_HOSTIO_H

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "cpu/cpu.h"

class dune_hostio {
  public:
    enum port {
        EXIT = 0x8901,
        SAVE = 0x8902,
        ADDRESS = 0x8910,
        WRITE = 0x8914,
        READ = 0x8918,
        WAIT = 0x891c,
        ERROR_FRAME = 0x8920,
        MACHINE_CHECK = 0x8924,
    };

    static bool owns(Bit32u port) {
        return port == EXIT || port == SAVE ||
               (port >= ADDRESS && port <= MACHINE_CHECK && (port & 3) == 0);
    }

    // The timer saves the state between two instructions; saving inside the OUT would restore into
    // its middle.
    void init() {
        for (int& fd : channels)
            fd = -1;
        const char* text = getenv("DUNE_CHANNELS");
        for (int channel, fd, used; text && sscanf(text, "%d=%d%n", &channel, &fd, &used) == 2;
             text += *text == ',') {
            if (channel >= 0 && channel < CHANNELS)
                channels[channel] = fd;
            text += used;
        }
        timer = bx_pc_system.register_timer(this, save_state, 1, false, false, "dune.save");
        check_timer = bx_pc_system.register_timer(this, look_at_cpu, 1, false, false, "dune.mce");
    }

    Bit32u read(Bit32u port) const {
        return port == READ ? moved : port == MACHINE_CHECK ? BX_CPU_C::mca_next.where : 0xffffffff;
    }

    void write(Bit32u port, Bit32u value) {
        switch (port) {
            case EXIT:
                fflush(NULL);
                _exit(value & 0xff);
            case SAVE:
                bx_pc_system.activate_timer(timer, 1, false);
                break;
            case ADDRESS:
                address = value;
                break;
            case WRITE:
                transfer(value, true);
                break;
            case READ:
                transfer(value, false);
                break;
            case WAIT:
                wait(value);
                break;
            case ERROR_FRAME:
                frame = value;
                break;
            case MACHINE_CHECK:
                expect_machine_check(value);
                break;
        }
    }

  private:
    static void save_state(void*) {
        const char* directory = getenv("DUNE_SAVE_DIR");
        bool saved = directory != NULL && SIM->save_state(directory);
        fflush(NULL);
        _exit(saved ? 0 : 3);
    }

    void expect_machine_check(Bit32u value) {
        unsigned where = value >> 28, cpu = value >> 24 & 15;
        bx_pc_system.deactivate_timer(check_timer);
        if (BX_CPU_C::mca_next.where != BX_CPU_C::BX_MCA_NONE)
            BX_CPU(BX_CPU_C::mca_next.cpu)->clear_event(BX_EVENT_MACHINE_CHECK);
        BX_CPU_C::mca_next.where = BX_CPU_C::BX_MCA_NONE;
        if (where == BX_CPU_C::BX_MCA_NONE || where > BX_CPU_C::BX_MCA_VMENTRY ||
            cpu >= BX_SMP_PROCESSORS)
            return;
        BX_CPU_C::mca_next = {where, cpu, Bit64u(frame) << 12, BX_CPU(cpu)->cr3};
        bx_pc_system.activate_timer_ticks(check_timer, value & 0xffffff, true);
    }

    // The CPU itself looks where it is: what it did since the timer went off may have led
    // elsewhere.
    static void look_at_cpu(void* me) {
        BX_CPU_C* cpu = BX_CPU(BX_CPU_C::mca_next.cpu);
        if (BX_CPU_C::mca_next.where == BX_CPU_C::BX_MCA_NONE)
            bx_pc_system.deactivate_timer(static_cast<dune_hostio*>(me)->check_timer);
        else if (cpu->activity_state == BX_CPU_C::BX_ACTIVITY_STATE_ACTIVE)
            cpu->signal_event(BX_EVENT_MACHINE_CHECK);
    }

    int descriptor(Bit32u value) const {
        Bit32u channel = value >> 24;
        return channel < CHANNELS ? channels[channel] : -1;
    }

    void wait(Bit32u value) {
        pollfd input = {descriptor(value), POLLIN, 0};
        moved = poll(&input, 1, value & 0xffffff) > 0;
    }

    void transfer(Bit32u value, bool to_host) {
        Bit32u length = value & 0xffffff;
        int fd = descriptor(value);
        moved = 0xffffffff;
        if (fd < 0 || Bit64u(address) + length > BX_MEM(0)->get_memory_len())
            return;

        Bit32u done = 0;
        while (done < length) {
            // One page at a time: the blocks of the guest's memory lie anywhere in the host's.
            Bit32u part = 4096 - ((address + done) & 4095);
            if (part > length - done)
                part = length - done;
            Bit8u* page = BX_MEM(0)->get_vector(bx_phy_address(address) + done);
            ssize_t n = to_host ? ::write(fd, page, part) : ::read(fd, page, part);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return;
            if (n == 0)
                break;
            // Code may have been decoded from this page before.
            if (!to_host)
                pageWriteStampTable.decWriteStamp(bx_phy_address(address) + done);
            done += Bit32u(n);
            // What else a terminal or a pipe will say is worth no waiting.
            if (Bit32u(n) < part)
                break;
        }
        moved = done;
    }

    enum { CHANNELS = 32 };
    int channels[CHANNELS];
    int timer;
    int check_timer;
    Bit32u address;
    Bit32u moved;
    Bit32u frame;
};

static dune_hostio hostio;

#endif
