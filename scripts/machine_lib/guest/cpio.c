// SPDX-License-Identifier: MIT
// Reader of the "newc" cpio format, as the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst has it.
#include "cpio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 20, HEADER = 110 };

struct reader {
    enum hostio_channel channel;
    uint8_t* data;  // CHUNK bytes
    size_t begin, end;
    uint64_t offset;  // of begin in the archive
};

// Makes at least one byte available. False at the end of the archive.
static bool fill(struct reader* reader) {
    if (reader->begin < reader->end)
        return true;
    ssize_t n = hostio_read(reader->channel, reader->data, CHUNK);
    if (n <= 0)
        return false;
    reader->begin = 0;
    reader->end = (size_t)n;
    return true;
}

// Hands out size bytes to a file (fd >= 0), to memory (out != NULL) or to nobody.
static bool take(struct reader* reader, size_t size, int fd, uint8_t* out) {
    while (size > 0) {
        if (!fill(reader))
            return false;
        size_t part = reader->end - reader->begin;
        if (part > size)
            part = size;
        if (out != NULL) {
            memcpy(out, reader->data + reader->begin, part);
            out += part;
        }
        if (fd >= 0 && write(fd, reader->data + reader->begin, part) != (ssize_t)part)
            return false;
        reader->begin += part;
        reader->offset += part;
        size -= part;
    }
    return true;
}

static bool align(struct reader* reader) {
    return take(reader, -reader->offset & 3, -1, NULL);
}

static uint32_t field(const char* header, int index) {
    char text[9] = {0};
    memcpy(text, header + 6 + 8 * index, 8);
    return (uint32_t)strtoul(text, NULL, 16);
}

static bool make_parents(char* path) {
    for (char* slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        int failed = mkdir(path, 0755) < 0 && errno != EEXIST;
        *slash = '/';
        if (failed)
            return false;
    }
    return true;
}

static bool extract_file(struct reader* reader, const char* path, mode_t mode, size_t size) {
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool good = take(reader, size, fd, NULL) && fchmod(fd, mode & 07777) == 0;
    close(fd);
    return good;
}

static bool extract_link(struct reader* reader, const char* path, size_t size) {
    char target[4096];
    if (size >= sizeof(target) || !take(reader, size, -1, (uint8_t*)target))
        return false;
    target[size] = 0;
    unlink(path);
    return symlink(target, path) == 0;
}

static bool extract_member(struct reader* reader, const char* header, char* path) {
    mode_t mode = field(header, 1);
    uid_t uid = field(header, 2);
    gid_t gid = field(header, 3);
    size_t size = field(header, 6);
    if (!make_parents(path))
        return false;
    bool good;
    if (S_ISDIR(mode))
        good = (mkdir(path, mode & 07777) == 0 || errno == EEXIST) && (access(path, F_OK) == 0);
    else if (S_ISLNK(mode))
        good = extract_link(reader, path, size);
    else if (S_ISREG(mode))
        good = extract_file(reader, path, mode, size);
    else
        good = true;
    return good && (uid == 0 || lchown(path, uid, gid) == 0) && align(reader);
}

static int extract_all(struct reader* reader) {
    char header[HEADER], path[4096] = "/";
    for (;;) {
        if (!take(reader, HEADER, -1, (uint8_t*)header))
            return 0;  // an empty archive has not even a trailer
        size_t name = field(header, 11);
        if (memcmp(header, "070701", 6) != 0 || name < 1 || name >= sizeof(path) - 1) {
            fprintf(stderr, "machine: the payload is no cpio archive\n");
            return -1;
        }
        if (!take(reader, name, -1, (uint8_t*)path + 1) || !align(reader))
            break;
        if (strcmp(path + 1, "TRAILER!!!") == 0)
            return 0;
        if (!extract_member(reader, header, path))
            break;
    }
    fprintf(stderr, "machine: cannot unpack %s: %s\n", path, strerror(errno));
    return -1;
}

int cpio_extract(enum hostio_channel channel) {
    struct reader reader = {.channel = channel, .data = malloc(CHUNK)};
    if (reader.data == NULL)
        return -1;
    umask(0);
    int result = extract_all(&reader);
    umask(022);
    free(reader.data);
    return result;
}
