// SPDX-License-Identifier: MIT
//
// A message of one byte over a socket, with one control message (cmsg(3)).

#ifndef DUNE_TESTS_VM_SANDBOX_CONTROL_MESSAGE_H
#define DUNE_TESTS_VM_SANDBOX_CONTROL_MESSAGE_H

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstring>

namespace dune::sandbox_test {

class ControlMessage {
  public:
    ControlMessage(int level, int type, const void* data, size_t size) {
        header_.msg_iov = &vector_;
        header_.msg_iovlen = 1;
        header_.msg_control = control_;
        header_.msg_controllen = CMSG_SPACE(size);
        cmsghdr* const head = CMSG_FIRSTHDR(&header_);
        head->cmsg_level = level;
        head->cmsg_type = type;
        head->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(head), data, size);
    }
    ControlMessage(const ControlMessage&) = delete;
    ControlMessage& operator=(const ControlMessage&) = delete;

    // For sockets that are not connected. The address stays the caller's.
    void set_address(void* address, socklen_t size) {
        header_.msg_name = address;
        header_.msg_namelen = size;
    }

    // errno says why not.
    bool send(int socket, int flags = 0) { return sendmsg(socket, &header_, flags) >= 0; }

  protected:
    char byte_ = 0;
    iovec vector_ = {&byte_, 1};
    alignas(cmsghdr) char control_[CMSG_SPACE(64)] = {};
    msghdr header_ = {};
};

// A descriptor on its way (SCM_RIGHTS).
class DescriptorMessage : public ControlMessage {
  public:
    explicit DescriptorMessage(int fd) : ControlMessage(SOL_SOCKET, SCM_RIGHTS, &fd, sizeof(fd)) {}

    // The descriptor that a message of the same kind brings, or -1.
    int receive(int socket) {
        int fd = -1;
        const bool received = recvmsg(socket, &header_, 0) == 1;
        if (const cmsghdr* const head = CMSG_FIRSTHDR(&header_); received && head != nullptr) {
            memcpy(&fd, CMSG_DATA(head), sizeof(fd));
        }
        return fd;
    }
};

}  // namespace dune::sandbox_test

#endif
