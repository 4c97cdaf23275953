// SPDX-License-Identifier: Apache-2.0
#include "transport/shm/layout.hpp"

#include <algorithm>
#include <bit>

namespace xcoll::shm {
namespace {

// With many ranks the rings of all pairs would grow with the square: their cells shrink instead.
uint64_t cell_bytes_for(uint32_t ranks) {
  return std::clamp(std::bit_floor(8 * kMaxCellBytes / std::max(ranks, 8u)), kMinCellBytes,
                    kMaxCellBytes);
}

}  // namespace

Layout::Layout(uint32_t ranks) : ranks(ranks), cell_bytes(cell_bytes_for(ranks)) {
  constexpr uint64_t kPage = 4096;
  const uint64_t n = ranks, pairs = n * n;
  uint64_t end = 0;
  const auto area = [&end](uint64_t bytes) {
    const uint64_t begin = end;
    end = (end + bytes + kPage - 1) / kPage * kPage;
    return begin;
  };
  area(sizeof(Header));
  infos = area(n * sizeof(RankInfo));
  failures = area(n * sizeof(FailureRecord));
  boards = area(n * sizeof(Board));
  doorbells = area(n * sizeof(Doorbell));
  entries = area(n * 2 * sizeof(Entry));
  out_counters = area(n * sizeof(Counter));
  ack_counters = area(n * sizeof(Counter));
  cell_counters = area(pairs * sizeof(Counter));
  sent_counters = area(pairs * sizeof(Counter));
  taken_counters = area(pairs * sizeof(Counter));
  posts = area(n * 2 * kPostBytes);
  outs = area(n * kSlots * cell_bytes);
  cells = area(pairs * kSlots * cell_bytes);
  pieces = area(pairs * kSlots * piece_bytes());
  total_bytes = end;
}

}  // namespace xcoll::shm
