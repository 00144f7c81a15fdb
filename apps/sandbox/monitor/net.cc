// SPDX-License-Identifier: MIT
//
// Sockets. The policy allows none, the machine's own addresses, or all; sockets of the file system
// need write access to their path. Messages are copied before they are checked.

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <algorithm>

#include "monitor/paths.h"
#include "monitor/vectors.h"

namespace dune::sandbox {

namespace {

constexpr size_t kMaxAddress = 128;  // struct sockaddr_storage, the kernel's limit
constexpr size_t kMaxControl = 4096;
constexpr unsigned kMaxMessages = 1024;  // UIO_MAXIOV, the kernel's limit

union Address {
    sockaddr generic;
    sockaddr_in in;
    sockaddr_in6 in6;
    sockaddr_un un;
    char bytes[kMaxAddress];
};

constexpr std::string_view kOnlyLoopback = "only loopback in the policy";

long refuse(Call& call, std::string_view why) {
    process.stats->denied.fetch_add(1, std::memory_order_relaxed);
    process.stats->denied_by_call[call.number].fetch_add(1, std::memory_order_relaxed);
    report_denied(call.thread, call.number, {}, why, EACCES);
    return -EACCES;
}

// A socket that no option, route or address gets off the loopback interface: Linux sees to it.
long loopback_socket(Call& call) {
    LockGuard guard(process.fd_lock);  // so that the descriptor stays what it is
    const long fd = host_call(SYS_socket, call.args[0], call.args[1], call.args[2]);
    if (is_error(fd)) {
        return fd;
    }
    const long error = host_call(SYS_setsockopt, fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
    if (error != 0) {
        host_call(SYS_close, fd);
        return error;
    }
    return fd;
}

long do_socket(Call& call) {
    const int family = static_cast<int>(call.args[0]);
    const int type = static_cast<int>(call.args[1]) & 0xf;
    const Net net = process.policy->net;
    if (family == AF_UNIX) {
        return pass(call);
    }
    if (net == Net::None) {
        return refuse(call, "no network in the policy");
    }
    if (net == Net::Loopback) {
        const int protocol = static_cast<int>(call.args[2]);
        if (family == AF_NETLINK && protocol == 0) {
            return pass(call);  // questions about routes
        }
        // Others, as MPTCP and SCTP, have addresses besides those that connect(2) is told.
        const bool known = protocol == 0 || protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
        if ((family != AF_INET && family != AF_INET6) ||
            (type != SOCK_STREAM && type != SOCK_DGRAM) || !known) {
            return refuse(call, kOnlyLoopback);
        }
        return loopback_socket(call);
    }
    return pass(call);
}

bool is_loopback(const Address& address, size_t size) {
    if (address.generic.sa_family == AF_INET && size >= sizeof(sockaddr_in)) {
        return ntohl(address.in.sin_addr.s_addr) >> 24 == 127;
    }
    if (address.generic.sa_family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
        const in6_addr& in6 = address.in6.sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(&in6) || (IN6_IS_ADDR_V4MAPPED(&in6) && in6.s6_addr[12] == 127);
    }
    return false;
}

// A socket of the file system: its path made canonical, and the address one through a descriptor of
// its directory, so that no link can come in between. The caller closes *dir.
long unix_address(Call& call, Address& address, size_t& size, long* dir) {
    constexpr size_t kHead = offsetof(sockaddr_un, sun_path);
    if (size <= kHead) {
        return 0;  // unnamed
    }
    if (address.un.sun_path[0] == 0) {
        // Abstract names have no files that rules could be about: they are network.
        return process.policy->net == Net::None ? refuse(call, "no network in the policy") : 0;
    }
    const size_t length =
        strnlen(address.un.sun_path, std::min(size - kHead, sizeof(address.un.sun_path)));
    PathBuffer& path = call.thread.path[0];
    bool plain;
    bool directory;
    if (const long error = absolute_path(call.thread, AT_FDCWD, {address.un.sun_path, length}, path,
                                         &plain, &directory)) {
        return error;
    }
    if (const long error = canonical_path(call.thread, path, call.number != SYS_bind)) {
        return error;
    }
    if (access_of(path.view()) != Access::Write) {
        return refuse_path(call, path.view(), "may not be written");
    }
    const size_t slash = path.view().rfind('/');
    const std::string_view name = path.view().substr(slash + 1);
    PathBuffer& parent = call.thread.work;
    parent.assign(slash == 0 ? "/" : path.view().substr(0, slash));
    *dir = open_canonical(parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (is_error(*dir)) {
        return *dir;
    }
    const int n =
        snprintf(address.un.sun_path, sizeof(address.un.sun_path), "/proc/self/fd/%ld/%.*s", *dir,
                 static_cast<int>(name.size()), name.data());
    if (n < 0 || static_cast<size_t>(n) >= sizeof(address.un.sun_path)) {
        return -ENAMETOOLONG;
    }
    size = kHead + static_cast<size_t>(n) + 1;
    return 0;
}

// Copies and checks an address to connect, bind or send to; leaves what the kernel is to get.
long take_address(Call& call, uint64_t from, size_t& size, Address& address, long* dir) {
    if (size > sizeof(address)) {
        return -EINVAL;
    }
    memset(&address, 0, sizeof(address));
    if (!engine::copy_in(&address, from, size)) {
        return -EFAULT;
    }
    if (size < sizeof(sa_family_t)) {
        return 0;  // the kernel refuses it
    }
    if (address.generic.sa_family == AF_UNIX) {
        return unix_address(call, address, size, dir);
    }
    const Net net = process.policy->net;
    if (net == Net::All || address.generic.sa_family == AF_NETLINK ||
        (address.generic.sa_family == AF_UNSPEC && call.number == SYS_connect)) {
        return 0;
    }
    return net == Net::Loopback && is_loopback(address, size)
               ? 0
               : refuse(call, net == Net::None ? "no network in the policy" : kOnlyLoopback);
}

// A call with an address at argument `at` and its size in the next one.
long with_address(Call& call, unsigned at) {
    Address address;
    size_t size = static_cast<uint32_t>(call.args[at + 1]);
    long dir = -1;
    LockGuard guard(process.fd_lock);
    long result = take_address(call, call.args[at], size, address, &dir);
    if (result == 0) {
        call.args[at] = reinterpret_cast<uint64_t>(&address);
        call.args[at + 1] = size;
        // connect(2) may block, with the lock held only where a descriptor depends on it.
        if (dir < 0) {
            process.fd_lock.unlock();
        }
        result = pass(call);
        if (dir < 0) {
            process.fd_lock.lock();
        }
    }
    if (dir >= 0) {
        host_call(SYS_close, dir);
    }
    return result;
}

long do_listen(Call& call) {
    Address address{};
    socklen_t size = sizeof(address);
    if (process.policy->net != Net::Loopback) {
        return pass(call);
    }
    // A socket from outside may be of any interface.
    LockGuard guard(process.fd_lock);
    const long result = host_call(SYS_getsockname, call.args[0], &address, &size);
    if (is_error(result)) {
        return result;
    }
    return address.generic.sa_family == AF_UNIX || is_loopback(address, size)
               ? host_call(SYS_listen, call.args[0], call.args[1])
               : refuse(call, kOnlyLoopback);
}

// What says how a packet goes, but not where to.
bool is_plain_ip_option(int level, int option) {
    switch (level) {
        case IPPROTO_IP:
            return option == IP_TOS || option == IP_TTL || option == IP_PKTINFO ||
                   option == IP_MTU_DISCOVER || option == IP_RECVERR || option == IP_RECVTTL ||
                   option == IP_RECVTOS || option == IP_BIND_ADDRESS_NO_PORT;
        case IPPROTO_IPV6:
            return option == IPV6_V6ONLY || option == IPV6_UNICAST_HOPS || option == IPV6_TCLASS ||
                   option == IPV6_RECVPKTINFO || option == IPV6_RECVHOPLIMIT ||
                   option == IPV6_RECVTCLASS || option == IPV6_RECVERR ||
                   option == IPV6_MTU_DISCOVER || option == IPV6_DONTFRAG;
        default:
            return true;
    }
}

// 0, or an error if a control message would give the runtime's descriptors away, or send the
// message another way than the policy allows.
long check_control(Call& call, const uint8_t* control, size_t size) {
    for (size_t at = 0; at + sizeof(cmsghdr) <= size;) {
        cmsghdr head;
        memcpy(&head, control + at, sizeof(head));
        if (head.cmsg_len < sizeof(head) || head.cmsg_len > size - at) {
            return 0;  // the kernel stops here, too
        }
        if (head.cmsg_level == SOL_SOCKET && head.cmsg_type == SCM_RIGHTS) {
            for (size_t i = CMSG_LEN(0); i + sizeof(int) <= head.cmsg_len; i += sizeof(int)) {
                int fd;
                memcpy(&fd, control + at + i, sizeof(fd));
                if (is_reserved(static_cast<unsigned>(fd))) {
                    return -EBADF;
                }
            }
        }
        const bool routes = (head.cmsg_level == IPPROTO_IP && head.cmsg_type != IP_TOS &&
                             head.cmsg_type != IP_TTL) ||
                            (head.cmsg_level == IPPROTO_IPV6 && head.cmsg_type != IPV6_TCLASS &&
                             head.cmsg_type != IPV6_HOPLIMIT);
        if (routes && process.policy->net == Net::Loopback) {
            return refuse(call, kOnlyLoopback);
        }
        at += CMSG_ALIGN(head.cmsg_len);
    }
    return 0;
}

// One message with everything that it points to copied.
struct Message {
    msghdr header;
    Address address;
    alignas(cmsghdr) uint8_t control[kMaxControl];
    long dir = -1;
};

long take_message(Call& call, uint64_t from, Message& message, bool sends) {
    msghdr& header = message.header;
    if (!engine::copy_in(&header, from, sizeof(header))) {
        return -EFAULT;
    }
    iovec* const vector = reinterpret_cast<iovec*>(call.thread.bytes);
    if (header.msg_iovlen > IOV_MAX) {
        return -EMSGSIZE;
    }
    if (const long error = copy_iovec(reinterpret_cast<uint64_t>(header.msg_iov), header.msg_iovlen,
                                      vector, kMaxIovec)) {
        return error;
    }
    header.msg_iov = vector;
    const uint64_t name = reinterpret_cast<uint64_t>(header.msg_name);
    const uint64_t control = reinterpret_cast<uint64_t>(header.msg_control);
    if (!starts_in_user(name) || !in_user(control, header.msg_controllen)) {
        return -EFAULT;
    }
    if (!sends) {
        return 0;
    }
    if (header.msg_controllen > kMaxControl) {
        return -ENOBUFS;
    }
    if (header.msg_controllen > 0) {
        if (!engine::copy_in(message.control, control, header.msg_controllen)) {
            return -EFAULT;
        }
        if (const long error = check_control(call, message.control, header.msg_controllen)) {
            return error;
        }
        header.msg_control = message.control;
    }
    if (name != 0 && header.msg_namelen > 0) {
        size_t size = header.msg_namelen;
        const long error = take_address(call, name, size, message.address, &message.dir);
        if (error != 0) {
            return error;
        }
        header.msg_name = &message.address;
        header.msg_namelen = static_cast<socklen_t>(size);
    }
    return 0;
}

long send_message(Call& call, uint64_t from, uint64_t flags) {
    Message message;
    // It may block, with the lock held only where it goes by descriptors: those that are sent, and
    // that of a directory, as in with_address().
    process.fd_lock.lock();
    long result = take_message(call, from, message, true);
    const bool by_descriptors =
        message.dir >= 0 || (result == 0 && message.header.msg_controllen > 0);
    if (!by_descriptors) {
        process.fd_lock.unlock();
    }
    if (result == 0) {
        const uint64_t args[6] = {call.args[0], reinterpret_cast<uint64_t>(&message.header), flags};
        result = engine::blocking_call(SYS_sendmsg, args);
    }
    if (message.dir >= 0) {
        host_call(SYS_close, message.dir);
    }
    if (by_descriptors) {
        process.fd_lock.unlock();
    }
    return result;
}

// recvmsg(2): the lengths and flags that the kernel stores go back into the program's structure.
long receive_message(Call& call, uint64_t to, uint64_t flags) {
    Message message;
    if (const long error = take_message(call, to, message, false)) {
        return error;
    }
    const uint64_t args[6] = {call.args[0], reinterpret_cast<uint64_t>(&message.header), flags};
    const long result = engine::blocking_call(SYS_recvmsg, args);
    if (is_error(result)) {
        return result;
    }
    const msghdr& header = message.header;
    const bool stored = engine::copy_out(to + offsetof(msghdr, msg_namelen), &header.msg_namelen,
                                         sizeof(header.msg_namelen)) &&
                        engine::copy_out(to + offsetof(msghdr, msg_controllen),
                                         &header.msg_controllen, sizeof(header.msg_controllen)) &&
                        engine::copy_out(to + offsetof(msghdr, msg_flags), &header.msg_flags,
                                         sizeof(header.msg_flags));
    return stored ? result : -EFAULT;
}

// sendmmsg(2) and recvmmsg(2), one message at a time; after the first they do not wait.
long do_many(Call& call, bool sends) {
    const uint64_t array = call.args[1];
    const unsigned count = std::min(static_cast<unsigned>(call.args[2]), kMaxMessages);
    uint64_t flags = call.args[3] & ~static_cast<uint64_t>(MSG_WAITFORONE);
    unsigned done = 0;
    for (; done < count; done++) {
        const uint64_t at = array + done * sizeof(mmsghdr);
        if (!in_user(at, sizeof(mmsghdr))) {
            return done > 0 ? static_cast<long>(done) : -EFAULT;
        }
        const long result =
            sends ? send_message(call, at, flags) : receive_message(call, at, flags);
        if (is_error(result)) {
            return done > 0 ? static_cast<long>(done) : result;
        }
        const unsigned length = static_cast<unsigned>(result);
        engine::copy_out(at + offsetof(mmsghdr, msg_len), &length, sizeof(length));
        if (!sends && ((call.args[3] & MSG_WAITFORONE) != 0 || call.args[4] != 0)) {
            flags |= MSG_DONTWAIT;
        }
    }
    return static_cast<long>(done);
}

// Options in whose structures there are pointers: programs that filter, the tables of the firewall,
// and memory that TCP is to put what it received.
bool has_pointers(int level, int option) {
    switch (level) {
        case SOL_SOCKET:
            return option == SO_ATTACH_FILTER || option == SO_ATTACH_BPF ||
                   option == SO_ATTACH_REUSEPORT_CBPF || option == SO_ATTACH_REUSEPORT_EBPF;
        case IPPROTO_TCP:
            return option == TCP_ZEROCOPY_RECEIVE;
        case IPPROTO_IP:
            return option >= 64;
        case IPPROTO_IPV6:
            return option >= 64 && option != IPV6_TCLASS && option != IPV6_RECVTCLASS;
        default:
            return false;
    }
}

// setsockopt(2) and getsockopt(2)
long do_option(Call& call) {
    const int level = static_cast<int>(call.args[1]);
    const int option = static_cast<int>(call.args[2]);
    if (level != SOL_SOCKET && level != IPPROTO_TCP && level != IPPROTO_UDP &&
        level != IPPROTO_IPV6 && level != IPPROTO_IP && level != SOL_NETLINK) {
        return -ENOPROTOOPT;
    }
    if (has_pointers(level, option)) {
        return level == SOL_SOCKET ? -EPERM : -ENOPROTOOPT;
    }
    const bool interface =
        level == SOL_SOCKET && (option == SO_BINDTODEVICE || option == SO_BINDTOIFINDEX);
    if (call.number == SYS_setsockopt && process.policy->net == Net::Loopback &&
        (interface || !is_plain_ip_option(level, option))) {
        return refuse(call, kOnlyLoopback);
    }
    return pass(call);
}

}  // namespace

long do_net(Call& call) {
    switch (call.number) {
        case SYS_socket:
            return do_socket(call);
        case SYS_socketpair:
            return static_cast<int>(call.args[0]) == AF_UNIX ? pass(call) : -EOPNOTSUPP;
        case SYS_connect:
        case SYS_bind:
            return with_address(call, 1);
        case SYS_sendto:
            return call.args[4] == 0 ? pass(call) : with_address(call, 4);
        case SYS_listen:
            return do_listen(call);
        case SYS_sendmsg:
            return send_message(call, call.args[1], call.args[2]);
        case SYS_recvmsg:
            return receive_message(call, call.args[1], call.args[2]);
        case SYS_sendmmsg:
            return do_many(call, true);
        case SYS_recvmmsg:
            return do_many(call, false);
        default:
            return do_option(call);
    }
}

}  // namespace dune::sandbox
