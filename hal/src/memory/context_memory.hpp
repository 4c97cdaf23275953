// SPDX-License-Identifier: Apache-2.0
// context_memory.hpp: what memory/ keeps of a context: what it allocated and registered, and what
// copies of its streams need.
#pragma once

#include <atomic>
#include <memory>
#include <unordered_set>
#include <vector>

#include "memory/address_map.hpp"
#include "memory/staging.hpp"

namespace xhal {

// A stream of libxhal's own: for the far side of a copy between plugins, and for the host's part of
// large copies. One copy at a time, so that no stream of the program waits for another one's.
struct HelperStream {
  xhal_stream* stream;
  xhal_event last;  // of the copy it was used for
  bool busy;        // a copy is being submitted with it
};

// What is known of another device of the same plugin, by the number of its handle, which another
// open does not have.
struct Peer {
  uint64_t device;
  bool copies;
  Peer* next;
};

struct ContextMemory {
  explicit ContextMemory(ContextState& state) : context(&state) {}
  ~ContextMemory();

  ContextState* context;
  Staging* staging = new Staging;
  // Host memory that the program has registered (xhal_host_register), by its host address. Kind 0
  // while it is being registered or unregistered.
  AddressMap registered;
  std::atomic<uint32_t> registered_count{0};
  std::atomic<Peer*> peers{nullptr};
  bool ended = false;  // by the thread that closes the device; then the staging is closed, too

  // Of what follows (striped).
  std::mutex& lock() const noexcept;
  std::unordered_set<uint64_t> own;  // what xhal_memory_alloc gave and nobody has freed
  std::vector<std::unique_ptr<HelperStream>> helpers;
};

// When a context begins.
void adopt_context_memory(ContextState& context);
// When it ends, after its streams and pools and before the plugin's part of it: overwrites what it
// has allocated, if it was made so (not when the device is lost), then forgets what it still owns.
// The context has an empty one then, for it may yet stay. On an error nothing has been given back,
// and it may be called again.
xhal_status end_context_memory(ContextState& context, bool lost);

// Overwrites an allocation if the context wants that. With an error the memory must be kept.
xhal_status scrub(ContextState& context, const AddressRange& range);

// A helper stream of the context, from now on the caller's until it is given back.
xhal_status take_helper(ContextState& context, HelperStream** helper);
// Returns the event of what it was given last. Leaves the thread's error record alone.
xhal_event give_back_helper(ContextState& context, HelperStream& helper);

// Whether streams of `context` copy directly from and to a device of the same plugin.
bool peer_copies(ContextState& context, DeviceRecord& peer);

}  // namespace xhal
