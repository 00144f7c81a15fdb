// SPDX-License-Identifier: MIT
//
// Ways out of --net loopback, and names of sockets that change between the look and the use.

#include <fcntl.h>
#include <linux/in6.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "attacker.h"
#include "control_message.h"

namespace dune::sandbox_test {

namespace {

// A route by way of 192.0.2.1: what is sent with it goes there first, wherever it is to go.
constexpr unsigned char kLooseRoute[] = {131, 7, 4, 192, 0, 2, 1, 0};

sockaddr_in loopback(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

template <class Value>
bool sets(int socket, int level, int option, const Value& value) {
    return setsockopt(socket, level, option, &value, sizeof(value)) == 0;
}

// Sends a datagram to loopback with one control message.
bool sends_with(int socket, int level, int type, const void* data, size_t size) {
    sockaddr_in to = loopback(9);
    ControlMessage message(level, type, data, size);
    message.set_address(&to, sizeof(to));
    return message.send(socket, MSG_DONTWAIT) || errno != EACCES;
}

void options_that_route() {
    const int udp = socket(AF_INET, SOCK_DGRAM, 0);
    const int tcp = socket(AF_INET, SOCK_STREAM, 0);
    const int udp6 = socket(AF_INET6, SOCK_DGRAM, 0);
    for (const int fd : {udp, tcp}) {
        if (sets(fd, IPPROTO_IP, IP_OPTIONS, kLooseRoute)) {
            escaped("a source route", static_cast<unsigned long>(fd));
        }
        if (sets(fd, IPPROTO_IP, IP_UNICAST_IF, htonl(1)) ||
            sets(fd, SOL_SOCKET, SO_BINDTODEVICE, "") ||
            sets(fd, SOL_SOCKET, SO_BINDTODEVICE, "eth0") ||
            sets(fd, SOL_SOCKET, 62 /* SO_BINDTOIFINDEX */, 2)) {
            escaped("another interface", static_cast<unsigned long>(fd));
        }
    }
    const unsigned char header[24] = {0, 2, 0, 1};
    if (udp6 >= 0 && sets(udp6, IPPROTO_IPV6, IPV6_RTHDR, header)) {
        escaped("a routing header", 0);
    }
    if (sends_with(udp, IPPROTO_IP, IP_RETOPTS, kLooseRoute, sizeof(kLooseRoute))) {
        escaped("a source route with the message", 0);
    }
    const in_pktinfo info = {2, {}, {}};
    if (sends_with(udp, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info))) {
        escaped("an interface with the message", 0);
    }
    // The kernel itself keeps them there.
    char device[16] = {};
    for (const int fd : {udp, tcp, udp6}) {
        socklen_t size = sizeof(device);
        if (fd >= 0 && (getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, &size) != 0 ||
                        strcmp(device, "lo") != 0)) {
            escaped("a socket of any interface", static_cast<unsigned long>(fd));
        }
    }
    for (const int protocol : {132 /* SCTP */, 262 /* MPTCP */}) {
        if (socket(AF_INET, SOCK_STREAM, protocol) >= 0) {
            escaped("a protocol with addresses of its own", static_cast<unsigned long>(protocol));
        }
    }
    if (socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) >= 0 || socket(AF_PACKET, SOCK_RAW, 0) >= 0) {
        escaped("a raw socket", 0);
    }
    close(udp);
    close(tcp);
    close(udp6);
}

// Another thread puts a socket that listens nowhere in the place of one of loopback's.
void listen_race() {
    const int number = 40;
    const int good = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in own = loopback(0);
    if (bind(good, reinterpret_cast<sockaddr*>(&own), sizeof(own)) != 0) {
        escaped("not even loopback", static_cast<unsigned long>(errno));
    }
    const int bad = socket(AF_INET, SOCK_STREAM, 0);
    std::atomic<bool> done{false};
    std::thread flipper([&] {
        for (int turn = 0; !done; turn++) {
            dup2(turn % 2 == 0 ? good : bad, number);
            for (int wait = 0; wait < turn * 7 % 61; wait++) {
                asm volatile("");
            }
        }
    });
    int listens = 0;
    for (int i = 0; i < 5000 && listens == 0; i++) {
        static_cast<void>(listen(number, 1));
        socklen_t size = sizeof(listens);
        getsockopt(bad, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    }
    done = true;
    flipper.join();
    if (listens != 0) {
        escaped("listens everywhere", 0);
    }
}

// struct tcp_zerocopy_receive of <linux/tcp.h>, which cannot be included beside <netinet/tcp.h>.
struct ZeroCopy {
    uint64_t address;
    uint32_t length, skip, queued;
    int32_t error;
    uint64_t copy_to;
    int32_t copy_length;
    uint32_t flags;
    uint64_t control, control_length;
    uint32_t control_flags, reserved;
};

// A connection to itself; the two ends.
bool connect_both(int ends[2]) {
    const int server = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof(address);
    auto* const name = reinterpret_cast<sockaddr*>(&address);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    const bool connected = bind(server, name, size) == 0 && listen(server, 1) == 0 &&
                           getsockname(server, name, &size) == 0 &&
                           connect(ends[0], name, size) == 0;
    ends[1] = connected ? accept(server, nullptr, nullptr) : -1;
    close(server);
    return ends[1] >= 0;
}

// What loopback is for still works.
void use_loopback() {
    const int one = 1;
    int ends[2];
    char byte = 0;
    if (!connect_both(ends) || !sets(ends[0], SOL_SOCKET, SO_REUSEADDR, one) ||
        !sets(ends[0], IPPROTO_TCP, TCP_NODELAY, one) || !sets(ends[0], IPPROTO_IP, IP_TOS, 16) ||
        write(ends[0], "x", 1) != 1 || read(ends[1], &byte, 1) != 1 || byte != 'x') {
        escaped("no use of loopback", static_cast<unsigned long>(errno));
    }
}

}  // namespace

// Has what a TCP connection brought put where a structure says (TCP_ZEROCOPY_RECEIVE).
void attack_zero_copy(const char*) {
    int ends[2];
    if (!connect_both(ends)) {
        escaped("no connection", static_cast<unsigned long>(errno));
        return;
    }
    for (const Target& target : runtime_memory()) {
        char text[16] = "0123456789abcde";
        if (write(ends[0], text, sizeof(text)) != sizeof(text)) {
            escaped("nothing sent", static_cast<unsigned long>(errno));
        }
        ZeroCopy request{};
        request.copy_to = target.at;
        request.copy_length = 4096;
        socklen_t size = sizeof(request);
        if (getsockopt(ends[1], IPPROTO_TCP, 35, &request, &size) == 0) {
            escaped("zero-copy receive", target.at);
        }
        if (recv(ends[1], text, sizeof(text), MSG_DONTWAIT) != sizeof(text)) {
            escaped("what was received is gone", target.at);
        }
    }
}

void attack_network(const char*) {
    use_loopback();
    options_that_route();
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    if (listen(fd, 1) == 0 || bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof(any)) == 0) {
        escaped("a server of all addresses", 0);
    }
    listen_race();
}

// A message to a socket of its own, while another thread puts the directory `readable`, which has a
// socket of that name as well, in the place of the descriptor that the monitor goes by.
void attack_message_race(const char* readable) {
    char room[] = "/tmp/attack-XXXXXX";
    if (mkdtemp(room) == nullptr) {
        return;
    }
    const int receiver = socket(AF_UNIX, SOCK_DGRAM, 0);
    const int sender = socket(AF_UNIX, SOCK_DGRAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", room);
    if (bind(receiver, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
        escaped("not even its own", static_cast<unsigned long>(errno));
    }
    const int directory = open(readable, O_PATH | O_DIRECTORY);
    if (directory < 0) {
        escaped("cannot open what may be read", static_cast<unsigned long>(errno));
    }
    sockaddr_un theirs = address;
    snprintf(theirs.sun_path, sizeof(theirs.sun_path), "%s/s", readable);
    if (sendto(sender, "", 1, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&theirs), sizeof(theirs)) >=
        0) {
        escaped("a message where only reading is allowed", 0);
    }
    const int next = dup(0);
    close(next);
    std::atomic<bool> done{false};
    std::thread flipper([&] {
        for (int turn = 0; !done; turn++) {
            dup2(directory, next);
            for (int wait = 0; wait < turn * 7 % 61; wait++) {
                asm volatile("");
            }
            close(next);
        }
    });
    char byte = 0;
    iovec vector = {&byte, 1};
    msghdr message{};
    message.msg_name = &address;
    message.msg_namelen = sizeof(address);
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    for (int i = 0; i < 400; i++) {
        static_cast<void>(sendmsg(sender, &message, MSG_DONTWAIT));
        static_cast<void>(recv(receiver, &byte, 1, MSG_DONTWAIT));
    }
    done = true;
    flipper.join();
    unlink(address.sun_path);
    rmdir(room);
}

// `number` is a descriptor of a process outside, which somebody there gave away.
void attack_process_descriptor(const char* number) {
    const int fd = atoi(number);
    if (fcntl(fd, F_GETFD) == -1) {
        escaped("the test's descriptor is not there", static_cast<unsigned long>(fd));
    }
    if (syscall(SYS_pidfd_send_signal, fd, SIGUSR1, nullptr, 0) == 0 ||
        syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0) == 0) {
        escaped("a signal to a process outside", static_cast<unsigned long>(fd));
    }
    const int own = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
    if (own < 0 || syscall(SYS_pidfd_send_signal, own, 0, nullptr, 0) != 0) {
        escaped("not even its own", static_cast<unsigned long>(errno));
    }
    const int file = open("/proc/self/status", O_RDONLY);
    if (syscall(SYS_pidfd_send_signal, file, 0, nullptr, 0) == 0) {
        escaped("a file is no process", 0);
    }
}

}  // namespace dune::sandbox_test
