// SPDX-License-Identifier: Apache-2.0
// chunks.hpp: work on a list of tensors, cut into batches of similar size that depend on
// the sizes alone.
#pragma once

#include <cstdint>
#include <vector>

#include "op.hpp"

namespace xhal::cpu {

struct Chunk {
  uint32_t item;
  int64_t begin, end;
};

class ChunkList {
 public:
  // Item number `item` has `count` parts, about `cost` elements each; batches have
  // about `batch` elements.
  explicit ChunkList(int64_t batch) : batch_(batch) {}

  void add(uint32_t item, int64_t count, int64_t cost = 1) {
    const int64_t most = batch_ / cost > 0 ? batch_ / cost : 1;
    for (int64_t begin = 0; begin < count; begin += most) {
      const int64_t end = begin + most < count ? begin + most : count;
      if (filled_ == 0) batches_.push_back(chunks_.size());
      chunks_.push_back({item, begin, end});
      filled_ += (end - begin) * cost;
      if (filled_ >= batch_) filled_ = 0;
    }
  }

  // body(chunk, index of the chunk), each chunk once.
  template <class Body>
  void run(WorkerPool& pool, Body&& body) const {
    pool.parallel_for(static_cast<int64_t>(batches_.size()), 1, [&](int64_t begin, int64_t end) {
      const size_t first = batches_[static_cast<size_t>(begin)];
      const size_t last = static_cast<size_t>(end) < batches_.size()
                              ? batches_[static_cast<size_t>(end)]
                              : chunks_.size();
      for (size_t i = first; i < last; ++i) body(chunks_[i], i);
    });
  }

  size_t size() const { return chunks_.size(); }
  const Chunk& operator[](size_t i) const { return chunks_[i]; }

 private:
  int64_t batch_, filled_ = 0;
  std::vector<Chunk> chunks_;
  std::vector<size_t> batches_;  // first chunk of each
};

}  // namespace xhal::cpu
