#include "engine/recorder.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace xcoll::engine {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

}  // namespace

uint64_t Recorder::begin(const Operation& operation, uint64_t sequence) {
  const uint64_t number = last_.load(kRelaxed) + 1;
  Line& to = line(number);
  to.ended.store(0, kRelaxed);
  to.number.store(number, kRelaxed);
  to.sequence.store(sequence, kRelaxed);
  to.count.store(operation.signature.count, kRelaxed);
  to.words.store(operation.signature.words, kRelaxed);
  to.peer.store(operation.peer, kRelaxed);
  to.started.store(ticks(), kRelaxed);
  last_.store(number, kRelaxed);
  return number;
}

void Recorder::finish(uint64_t number, xcoll_status status) {
  Line& to = line(number);
  if (to.number.load(kRelaxed) != number) return;  // overwritten meanwhile
  to.status.store(status, kRelaxed);
  to.ended.store(ticks(), kRelaxed);
}

nlohmann::json Recorder::json() const {
  nlohmann::json lines = nlohmann::json::array();
  const uint64_t last = last_.load(kRelaxed);
  for (uint64_t number = last - std::min<uint64_t>(last, size_) + 1; number <= last; ++number) {
    const Line& from = line(number);
    Signature signature;
    signature.words = from.words.load(kRelaxed);
    nlohmann::json entry = {{"number", number},
                            {"kind", kind_name(signature.kind())},
                            {"type", type_name(signature.type())},
                            {"count", from.count.load(kRelaxed)},
                            {"start_ns", calibration_.ns_of(from.started.load(kRelaxed))}};
    if (const uint64_t sequence = from.sequence.load(kRelaxed)) entry["sequence"] = sequence;
    if (const int32_t peer = from.peer.load(kRelaxed); peer >= 0) entry["peer"] = peer;
    if (const uint64_t ended = from.ended.load(kRelaxed)) {
      entry["end_ns"] = calibration_.ns_of(ended);
      entry["status"] = xcoll_status_name(from.status.load(kRelaxed));
    }
    lines.push_back(std::move(entry));
  }
  return lines;
}

}  // namespace xcoll::engine
