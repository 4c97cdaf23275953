// SPDX-License-Identifier: Apache-2.0
// locks.hpp: the locks of libxhal, their one order, and what fork() does with them.
//
// A thread that holds a lock takes only locks of a higher rank. No lock is held while a plugin's
// function or a user's callback runs, nor across a call that may reach one. fork() takes all of
// them in the order of their ranks and both processes release them, so that a child never finds
// one taken by a thread that it does not have, or what it guards half changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <mutex>

namespace xhal {

enum class Rank : uint8_t {
  process,         // device/: whether the library is started
  devices,         // device/: which devices are open, being opened or closed
  record,          // device/: contexts and event descriptors of one device
  plugins,         // loader/: the list of plugins and their states
  libraries,       // loader/: what is mapped, verdicts of probes
  layer,           // layers/: what a layer remembers
  context,         // core/context_state.hpp: streams and pools of a context
  pool,            // memory/: blocks and slabs (striped by pool)
  observer,        // memory/: who is told of a pool (striped)
  staging,         // memory/: bounce buffers of a context (striped)
  context_memory,  // memory/: allocations and helper streams of a context (striped)
  pinned,          // memory/: pinned blocks and registrations
  addresses,       // memory/: writers of an address map (striped)
  stream,          // sync/: held-back submissions and mode of a stream (striped)
  timelines,       // sync/: which timelines live; their streams
  timeline,        // sync/: callbacks and failure of a timeline (striped)
  imports,         // sync/: the watcher of imported timelines
  timestamps,
  cells,
  outlets,  // core/: descriptors given to callers
  objects,
  log
};

// A lock that lives as long as the process.
class Mutex : public std::mutex {
 public:
  explicit Mutex(Rank rank) noexcept;
  const Rank rank;
};

// Locks for objects of which there are many: one of a few, by address. Not one each, for fork()
// takes them all.
class StripedMutex {
 public:
  explicit StripedMutex(Rank rank) noexcept
      : stripes_{Mutex(rank), Mutex(rank), Mutex(rank), Mutex(rank), Mutex(rank)} {}
  std::mutex& of(const void* object) noexcept {
    return stripes_[(reinterpret_cast<uintptr_t>(object) >> 6) % std::size(stripes_)];
  }

 private:
  Mutex stripes_[5];
};

// What threads share is made when the library is loaded, not on first use: a thread that is making
// it at the moment of a fork does not exist in the child, which would wait for it for ever.
struct AtLoad {
  template <class Make>
  explicit AtLoad(Make&& make) noexcept {
    make();
  }
};

// Runs in the child of a fork, while all locks are still held: the order of the calls is that
// of the registration.
void run_in_forked_child(void (*function)()) noexcept;

}  // namespace xhal
