// SPDX-License-Identifier: Apache-2.0
// staging.hpp: the pinned memory that copies of ordinary host memory go through, kept by context.
//
// A piece is taken at submission and comes back by itself when the last step on it has run. When
// all are in use more are made; whole slabs of pieces that are free are given back again. A piece
// that work of a failed stream may still be touching is set aside until that stream has been
// recovered or destroyed.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "sync/capture.hpp"

namespace xhal {

class Staging;

struct Piece {
  // Drops one reference; the last one returns the piece.
  void drop() noexcept;
  void hold() noexcept { references.fetch_add(1, std::memory_order_relaxed); }

  Staging* home = nullptr;
  struct StagingSlab* slab = nullptr;
  char* host = nullptr;
  uint64_t seen = 0;  // where the context's device sees it
  uint64_t size = 0;
  std::atomic<uint32_t> references{0};
  // Something did not run as it should: the device may still be at it.
  std::atomic<bool> unsafe{false};
  StreamRef user;    // whose work touches it
  StreamRef helper;  // whose work does, too, and how far that has to have got
  std::atomic<uint64_t> helper_work{0};
};

struct StagingSlab {
  uint32_t size_class = 0;
  uint64_t base = 0;
  uint32_t free_pieces = 0;
  std::unique_ptr<Piece[]> pieces;
};

class Staging {
 public:
  static constexpr uint64_t kLargestPiece = 1 << 20;

  // A piece of at least min(size, kLargestPiece) bytes for work of `user` (and of `helper`), with
  // one reference that is the caller's. UNSUPPORTED when the device refuses pinned memory.
  xhal_status take(uint64_t size, StreamState& user, StreamState* helper, Piece** piece);
  // The context ends: its streams are gone. What a late callback still holds goes with
  // the last one.
  static void close(Staging* staging) noexcept;

 private:
  friend struct Piece;
  struct Class {
    uint64_t piece_bytes;
    uint32_t per_slab;
    std::vector<Piece*> free;
    uint32_t free_slabs = 0;
  };
  void give_back(Piece* piece) noexcept;
  xhal_status grow(uint32_t size_class, ContextState& context);
  void collect(StreamState& user);
  void put(Piece* piece);
  std::unique_ptr<StagingSlab> surplus(uint32_t size_class);

  // Of what follows (striped).
  std::mutex& lock() const noexcept;
  Class classes_[3] = {{4 << 10, 64, {}, 0}, {64 << 10, 16, {}, 0}, {kLargestPiece, 4, {}, 0}};
  std::vector<std::unique_ptr<StagingSlab>> slabs_;
  std::vector<Piece*> aside_;
  uint64_t out_ = 0;
  bool closed_ = false;
};

}  // namespace xhal
