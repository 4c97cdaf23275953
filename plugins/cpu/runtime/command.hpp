// SPDX-License-Identifier: Apache-2.0
// command.hpp: what a stream's queue is made of: commands of a head and their arguments, in line.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ops/op.hpp"
#include "xhal/plugin.hpp"

namespace xhal::cpu {

struct PreparedOp;
struct Kernel;
class Graph;

enum class Kind : uint8_t { jump, op, copy, fill, host_call, wait, signal, kernel, graph };

struct Command {
  uint32_t bytes;  // whole, a multiple of 64
  Kind kind;
  uint8_t flags;
  uint16_t reserved;
  uint64_t correlation;
};

// Followed by the pointers and then the scalars: ready to use, or, when one is given by address, as
// they were given.
struct OpCommand : Command {
  static constexpr uint8_t kRawScalars = 1;
  const PreparedOp* op;
  void* workspace;
  uint32_t pointer_count, scalar_count;

  void** pointers() { return reinterpret_cast<void**>(this + 1); }
  Scalar* scalars() { return reinterpret_cast<Scalar*>(pointers() + pointer_count); }
  xhal_scalar* raw_scalars() { return reinterpret_cast<xhal_scalar*>(pointers() + pointer_count); }
};

struct CopyCommand : Command {
  void* dst;
  const void* src;
  uint64_t size_bytes;
};

struct FillCommand : Command {
  void* dst;
  uint64_t size_bytes;
  uint64_t pattern;
  uint32_t pattern_bytes;
};

struct HostCallCommand : Command {
  xhal_host_fn callback;
  void* user;
  uint32_t call_flags;
};

struct WaitCommand : Command {
  xhal_timeline* timeline;
  uint64_t value;
};

struct SignalCommand : Command {
  xhal_timeline* timeline;
  uint64_t value;
  xhal_timestamp* timestamp;
};

// Followed by one word an argument, their kinds, and the bytes of values larger than a word. The
// word of a local argument is its offset in the group's scratch.
struct KernelCommand : Command {
  const Kernel* kernel;
  uint32_t groups[3];
  uint32_t argument_count;
  uint64_t local_bytes;  // scratch of one group

  uint64_t* arguments() { return reinterpret_cast<uint64_t*>(this + 1); }
  uint8_t* kinds() { return reinterpret_cast<uint8_t*>(arguments() + argument_count); }
};

struct GraphCommand : Command {
  Graph* graph;
};

constexpr uint32_t whole_lines(uint64_t bytes) {
  return static_cast<uint32_t>((bytes + 63) & ~uint64_t{63});
}

// Memory for commands: chunks, filled by producers in turn, emptied by one consumer, used again
// without the allocator.
class CommandQueue {
 public:
  CommandQueue() = default;
  ~CommandQueue();
  CommandQueue(const CommandQueue&) = delete;
  CommandQueue& operator=(const CommandQueue&) = delete;

  // Producers, one at a time. The command is seen by the consumer once the caller has published its
  // number. Throws std::bad_alloc and then has changed nothing.
  template <class C>
  C* append(Kind kind, uint64_t trailing_bytes = 0) {
    static_assert(std::is_trivially_destructible_v<C>);
    const uint32_t bytes = whole_lines(sizeof(C) + trailing_bytes);
    auto* command = static_cast<C*>(room(bytes));
    command->bytes = bytes;
    command->kind = kind;
    command->flags = 0;
    return command;
  }

  // The consumer, while a published command is left.
  Command* front();
  void pop() { read_offset_ += front_bytes_; }

 private:
  struct Chunk {
    Chunk* next;
    uint64_t capacity;
    uint64_t reserved[6];
    char* at(uint64_t offset) { return reinterpret_cast<char*>(this + 1) + offset; }
  };
  static_assert(sizeof(Chunk) == 64);
  static constexpr uint64_t kChunkBytes = 32 << 10;

  void* room(uint32_t bytes);
  Chunk* new_chunk(uint64_t at_least);
  void give_back(Chunk* chunk);

  Chunk* write_ = nullptr;
  uint64_t write_offset_ = 0;
  alignas(64) Chunk* read_ = nullptr;  // set by the first append, before anything is published
  uint64_t read_offset_ = 0;
  uint32_t front_bytes_ = 0;
  std::atomic<Chunk*> spare_{nullptr};
};

}  // namespace xhal::cpu
