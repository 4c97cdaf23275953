// SPDX-License-Identifier: Apache-2.0
// card.cpp: the device process of the test plugin "remote". Runs commands in the order they come
// in, until it is killed or its client is gone.
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>

#include "protocol.hpp"
#include "xhal/host.h"

using namespace remote;

static void raise_cell(xhal_timeline_cell* cell, uint64_t value) {
  std::atomic_ref word(cell->value);
  if (word.load() < value) word.store(value);
  if (std::atomic_ref(cell->waiters).load() == 0) return;
  std::atomic_ref(cell->wake).fetch_add(1);
  syscall(SYS_futex, &cell->wake, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int socket = std::atoi(argv[1]), resume = std::atoi(argv[3]);
  auto* memory = static_cast<char*>(
      mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED, std::atoi(argv[2]), 0));
  if (memory == MAP_FAILED) return 3;
  std::map<uint32_t, char*> files;

  for (;;) {
    Command c{};
    char control[CMSG_SPACE(sizeof(int))];
    iovec data{&c, sizeof c};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != sizeof c) return 0;
    switch (c.verb) {
      case Verb::map: {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
        files[c.file] =
            static_cast<char*>(mmap(nullptr, c.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        close(fd);
        break;
      }
      case Verb::copy_in:
        std::memcpy(memory + c.dst, files[c.file] + c.src, c.size);
        break;
      case Verb::copy_out:
        std::memcpy(files[c.file] + c.dst, memory + c.src, c.size);
        break;
      case Verb::copy:
        std::memcpy(memory + c.dst, memory + c.src, c.size);
        break;
      case Verb::fill:
        for (uint64_t i = 0; i < c.size; i += c.pattern_bytes)
          std::memcpy(memory + c.dst + i, &c.pattern, c.pattern_bytes);
        break;
      case Verb::signal: {
        raise_cell(reinterpret_cast<xhal_timeline_cell*>(files[c.file] + c.cell), c.value);
        const Acknowledgement a{c.timeline, c.value, Verb::signal, 0};
        send(socket, &a, sizeof a, MSG_NOSIGNAL);
        break;
      }
      case Verb::call: {
        const Acknowledgement a{c.timeline, 0, Verb::call, 0};
        send(socket, &a, sizeof a, MSG_NOSIGNAL);
        char go;
        if (read(resume, &go, 1) != 1) return 0;
        break;
      }
      case Verb::fail: {
        const Acknowledgement a{c.timeline, 0, Verb::fail, 0};
        send(socket, &a, sizeof a, MSG_NOSIGNAL);
        break;
      }
      case Verb::hang:
        for (;;) pause();
    }
  }
}
