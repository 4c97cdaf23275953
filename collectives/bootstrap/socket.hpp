// SPDX-License-Identifier: Apache-2.0
// socket.hpp: the messages of the rendezvous, over abstract unix sockets that
// keep message boundaries.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/fd.hpp"
#include "bootstrap/unique_id.hpp"

namespace xcoll::bootstrap {

inline constexpr uint32_t kProtocol = 1;

struct Hello {
  uint32_t protocol;
  int32_t rank;
  int32_t ranks;
  uint32_t reserved;
  std::array<uint8_t, 16> secret;
  uint64_t backoff_ns;  // how long this rank still waits
  std::array<char, 64> host;
};

enum class Word : uint32_t { kMap = 1, kReady = 2, kGo = 3, kFailed = 4 };

struct Message {
  Word word;
  int32_t status;  // kFailed: why, with the text
  std::array<char, 1024> text;
};

// Throws INVALID_ARGUMENT when the name is taken.
Fd listen_on(const IdBody& id, uint32_t backlog);
// A connection, or none when nobody listens (yet).
Fd try_connect(const IdBody& id);

struct Peer {
  int64_t pid;
  uint32_t uid;
};
Peer peer_of(const Fd& socket);

// False when the other side is gone.
bool send_bytes(const Fd& socket, const void* bytes, size_t size, const std::vector<int>& fds = {});
enum class Received { kWhole, kNothingYet, kGone };
Received receive_bytes(const Fd& socket, void* bytes, size_t size, std::vector<Fd>* fds = nullptr);

// Waits until one of `sockets` is readable or gone, at most until the deadline.
void wait_readable(const std::vector<int>& sockets, uint64_t deadline_ns);

}  // namespace xcoll::bootstrap
