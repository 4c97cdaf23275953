// SPDX-License-Identifier: Apache-2.0
#include "core/outlets.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace xhal {

bool open_outlet(Outlet* outlet) noexcept {
  int ends[2];
  // Not a pipe: only a socket can be written without SIGPIPE.
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return false;
  *outlet = {ends[0], ends[1]};
  return true;
}

bool write_outlet(int ours, const void* message, size_t bytes) noexcept {
  for (;;) {
    if (send(ours, message, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return true;
    if (errno == EINTR) continue;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS;
  }
}

bool reader_gone(int ours) noexcept {
  pollfd p{ours, 0, 0};
  return ::poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

}  // namespace xhal
