// SPDX-License-Identifier: Apache-2.0
#include "bootstrap/socket.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>

#include "base/clock.hpp"
#include "base/failure.hpp"

namespace xcoll::bootstrap {
namespace {

constexpr int kSocketFlags = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
constexpr size_t kMaxFds = 253;  // SCM_MAX_FD

struct Address {
  sockaddr_un un{};
  socklen_t size = 0;

  explicit Address(const IdBody& id) {
    un.sun_family = AF_UNIX;
    std::string name("\0xcoll-", 7);
    for (const uint8_t byte : id.name) name += fmt::format("{:02x}", byte);
    std::memcpy(un.sun_path, name.data(), name.size());
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&un); }
};

}  // namespace

Fd listen_on(const IdBody& id, uint32_t backlog) {
  const Address address(id);
  Fd socket(::socket(AF_UNIX, kSocketFlags, 0));
  if (!socket) throw system_failure("socket", "joining as rank 0");
  if (::bind(socket.get(), address.get(), address.size) != 0) {
    if (errno != EADDRINUSE) throw system_failure("bind", "joining as rank 0");
    throw Failure(XCOLL_ERR_INVALID_ARGUMENT,
                  "another rank 0 is using this unique id: give each rank its own number, and each "
                  "communicator its own id");
  }
  if (::listen(socket.get(), static_cast<int>(backlog)) != 0) throw system_failure("listen");
  return socket;
}

Fd try_connect(const IdBody& id) {
  const Address address(id);
  Fd socket(::socket(AF_UNIX, kSocketFlags, 0));
  if (!socket) throw system_failure("socket", "joining a communicator");
  if (::connect(socket.get(), address.get(), address.size) == 0) return socket;
  if (errno == ECONNREFUSED || errno == EAGAIN || errno == EINTR) return Fd();
  throw system_failure("connect", "joining a communicator");
}

Peer peer_of(const Fd& socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    throw system_failure("getsockopt(SO_PEERCRED)");
  }
  return Peer{credentials.pid, credentials.uid};
}

bool send_bytes(const Fd& socket, const void* bytes, size_t size, const std::vector<int>& fds) {
  iovec data{const_cast<void*>(bytes), size};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  // A full buffer cannot happen: each side sends a few small messages and the other reads them.
  return ::sendmsg(socket.get(), &message, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

Received receive_bytes(const Fd& socket, void* bytes, size_t size, std::vector<Fd>* fds) {
  iovec data{bytes, size};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t received = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
  if (received < 0 && (errno == EAGAIN || errno == EINTR)) return Received::kNothingYet;
  if (received < 0) return Received::kGone;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      Fd owned(fd);
      if (fds) fds->push_back(std::move(owned));
    }
  }
  return received == static_cast<ssize_t>(size) ? Received::kWhole : Received::kGone;
}

void wait_readable(const std::vector<int>& sockets, uint64_t deadline_ns) {
  std::vector<pollfd> polled;
  for (const int socket : sockets) polled.push_back({socket, POLLIN, 0});
  const uint64_t now = now_ns();
  const uint64_t left_ms = deadline_ns > now ? (deadline_ns - now) / 1'000'000 + 1 : 0;
  ::poll(polled.data(), polled.size(), static_cast<int>(std::min<uint64_t>(left_ms, 60'000)));
}

}  // namespace xcoll::bootstrap
