// SPDX-License-Identifier: MIT
// Channels over the ports of scripts/machine_lib/bochs/hostio.h, over virtio ports, or (out only)
// as frames over the debug port of an unpatched Bochs.
#include "hostio.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <unistd.h>

enum {
    PORT_DEBUG = 0xe9,
    PORT_SHUTDOWN = 0x8900,
    PORT_EXIT = 0x8901,
    PORT_SAVE = 0x8902,
    PORT_ADDRESS = 0x8910,
    PORT_WRITE = 0x8914,
    PORT_READ = 0x8918,
    PORT_WAIT = 0x891c
};
enum { BUFFER_SIZE = 1 << 20 };

// RAM that the memory map given to the kernel reserves; its address comes on the kernel's command
// line, which hands unknown words to the first process as its environment. NULL: virtio ports are
// used.
static uint8_t* buffer;

// True where all goes out by PORT_DEBUG, byte for byte: a channel's number, a length of four bytes
// and so many bytes, after the magic that ends what the emulator says itself.
static bool framed;
static const char kMagic[] = "\nmachine frames\n";

// As outsb(), which does not tell the compiler that it reads the data.
static void put_bytes(const void* data, size_t size) {
    asm volatile("rep outsb" : "+S"(data), "+c"(size) : "d"(PORT_DEBUG) : "memory");
}

int hostio_open(void) {
    framed = getenv("machine_frames") != NULL;
    if (framed) {
        if (iopl(3) < 0)
            return -1;
        put_bytes(kMagic, sizeof(kMagic) - 1);
        return 0;
    }
    const char* text = getenv("machine_buffer");
    if (text == NULL)
        return 0;
    uint32_t address = (uint32_t)strtoul(text, NULL, 0);
    int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -1;
    void* mapped = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, address);
    close(fd);
    if (mapped == MAP_FAILED || iopl(3) < 0)
        return -1;
    buffer = mapped;
    outl(address, PORT_ADDRESS);
    return 0;
}

static size_t transfer(uint16_t port, enum hostio_channel channel, size_t size) {
    outl((uint32_t)channel << 24 | (uint32_t)size, port);
    uint32_t moved = inl(PORT_READ);
    return moved == UINT32_MAX ? (size_t)-1 : moved;
}

// Opens a virtio port once and keeps it.
static int virtio_port(enum hostio_channel channel) {
    static int fds[32];
    if (framed)
        return -1;
    if (fds[channel] == 0) {
        char path[64];
        snprintf(path, sizeof(path), "/dev/vport0p%d", channel);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            return -1;
        fds[channel] = fd;
    }
    return fds[channel];
}

bool hostio_has(enum hostio_channel channel) {
    return buffer != NULL || virtio_port(channel) >= 0;
}

ssize_t hostio_read(enum hostio_channel channel, void* data, size_t size) {
    if (buffer == NULL)
        return read(virtio_port(channel), data, size);
    if (size > BUFFER_SIZE)
        size = BUFFER_SIZE;
    size_t moved = transfer(PORT_READ, channel, size);
    if (moved == (size_t)-1)
        return -1;
    memcpy(data, buffer, moved);
    return (ssize_t)moved;
}

bool hostio_wait(enum hostio_channel channel, unsigned milliseconds) {
    if (buffer == NULL)
        return poll(&(struct pollfd){virtio_port(channel), POLLIN, 0}, 1, (int)milliseconds) > 0;
    outl((uint32_t)channel << 24 | milliseconds, PORT_WAIT);
    return inl(PORT_READ) != 0;
}

static void write_frame(enum hostio_channel channel, const void* data, size_t size) {
    uint8_t number = (uint8_t)channel;
    uint32_t length = (uint32_t)size;
    put_bytes(&number, sizeof(number));
    put_bytes(&length, sizeof(length));
    put_bytes(data, size);
}

int hostio_write(enum hostio_channel channel, const void* data, size_t size) {
    const uint8_t* bytes = data;
    while (size > 0) {
        size_t part = size < BUFFER_SIZE ? size : BUFFER_SIZE;
        if (framed) {
            write_frame(channel, bytes, part);
        } else if (buffer == NULL) {
            ssize_t n = write(virtio_port(channel), bytes, part);
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return -1;
            part = (size_t)n;
        } else {
            memcpy(buffer, bytes, part);
            if (transfer(PORT_WRITE, channel, part) != part)
                return -1;
        }
        bytes += part;
        size -= part;
    }
    return 0;
}

void hostio_event(const char* format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    if (n < 0)
        return;
    size_t length = (size_t)n < sizeof(line) - 1 ? (size_t)n : sizeof(line) - 2;
    line[length] = '\n';
    hostio_write(HOSTIO_CONTROL, line, length + 1);
}

void hostio_save_state(void) {
    if (buffer == NULL)
        return;
    outb(1, PORT_SAVE);
    // The emulator saves at the next timer boundary, a few instructions from here.
    for (volatile int i = 0; i < 1000; i++)
        continue;
    outl((uint32_t)strtoul(getenv("machine_buffer"), NULL, 0), PORT_ADDRESS);
}

void hostio_exit(void) {
    sync();
    if (buffer != NULL)
        outb(0, PORT_EXIT);
    if (framed)
        outsb(PORT_SHUTDOWN, "Shutdown", 8);
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
