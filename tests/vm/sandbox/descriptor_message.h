// SPDX-License-Identifier: MIT
//
// A descriptor as a message over a socket (SCM_RIGHTS).

#ifndef DUNE_TESTS_VM_SANDBOX_DESCRIPTOR_MESSAGE_H
#define DUNE_TESTS_VM_SANDBOX_DESCRIPTOR_MESSAGE_H

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstring>

namespace dune::sandbox_test {

class DescriptorMessage {
  public:
    explicit DescriptorMessage(int fd) {
        header_.msg_iov = &vector_;
        header_.msg_iovlen = 1;
        header_.msg_control = control_;
        header_.msg_controllen = sizeof(control_);
        cmsghdr* const head = CMSG_FIRSTHDR(&header_);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &fd, sizeof(fd));
    }

    bool send(int socket, int flags = 0) { return sendmsg(socket, &header_, flags) >= 0; }

    // The descriptor that a message of the same kind brings, or -1.
    int receive(int socket) {
        int fd = -1;
        const bool received = recvmsg(socket, &header_, 0) == 1;
        if (const cmsghdr* const head = CMSG_FIRSTHDR(&header_); received && head != nullptr) {
            memcpy(&fd, CMSG_DATA(head), sizeof(fd));
        }
        return fd;
    }

  private:
    char byte_ = 0;
    iovec vector_ = {&byte_, 1};
    alignas(cmsghdr) char control_[CMSG_SPACE(sizeof(int))] = {};
    msghdr header_ = {};
};

}  // namespace dune::sandbox_test

#endif
