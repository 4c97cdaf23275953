// SPDX-License-Identifier: Apache-2.0
#include "engine/diagnosis.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/failure.hpp"

namespace xcoll::engine {
namespace {

void set_text(xcoll_failure* failure, const std::string& text) {
  const size_t length = std::min(text.size(), sizeof(failure->text) - 1);
  std::memcpy(failure->text, text.data(), length);
  failure->text[length] = 0;
}

Signature signature_of(const shm::Entry& entry) {
  Signature signature;
  signature.words = entry.words.load();
  signature.root = entry.root.load();
  signature.count = entry.count.load();
  signature.fingerprint = entry.fingerprint.load();
  return signature;
}

}  // namespace

std::string describe(const Scene& scene) {
  std::string text = describe(scene.operation.signature);
  if (scene.operation.is_transfer()) {
    const bool sending = scene.operation.kind == XCOLL_SEND;
    auto rank = fmt::format(" {} rank {}", sending ? "to" : "from", scene.operation.peer);
    if (scene.operation.tag != 0) rank += fmt::format(" with tag {}", scene.operation.tag);
    return text.insert(std::strlen(kind_name(scene.operation.kind)), rank);
  }
  return text.insert(std::strlen(kind_name(scene.operation.kind)),
                     fmt::format(" #{}", scene.sequence));
}

int32_t Diagnosis::find_lost(const Scene& scene) const {
  const auto lost = [&](uint32_t rank) { return rank != rank_ && (dead(rank) || left(rank)); };
  if (scene.operation.is_transfer())
    return lost(scene.blocked_on) ? static_cast<int32_t>(scene.blocked_on) : -1;
  for (uint32_t rank = 0; rank < segment_.ranks(); ++rank) {
    if (finished(rank) < scene.sequence && lost(rank)) return static_cast<int32_t>(rank);
  }
  return -1;
}

int32_t Diagnosis::find_dead() const {
  for (uint32_t rank = 0; rank < segment_.ranks(); ++rank) {
    if (!left(rank) && dead(rank)) return static_cast<int32_t>(rank);
  }
  return -1;
}

uint64_t Diagnosis::entered(uint32_t rank) const {
  return std::max(segment_.entry(rank, 0).sequence.load(), segment_.entry(rank, 1).sequence.load());
}

xcoll_rank_state Diagnosis::state_of(uint32_t rank, uint64_t sequence) const {
  if (left(rank)) return XCOLL_RANK_LEFT;
  if (dead(rank)) return XCOLL_RANK_DEAD;
  if (shm::Processes::stopped(segment_.info(rank))) return XCOLL_RANK_STOPPED;
  if (sequence != 0 && entered(rank) < sequence) return XCOLL_RANK_NOT_ENTERED;
  return segment_.board(rank).waiting_on.load() >= 0 ? XCOLL_RANK_WAITING : XCOLL_RANK_WORKING;
}

std::string Diagnosis::who(uint32_t rank) const {
  const shm::RankInfo& info = segment_.info(rank);
  return fmt::format("rank {} (host {}, pid {})", rank, info.host, info.pid);
}

std::string Diagnosis::state_text(uint32_t rank, xcoll_rank_state state) const {
  const auto pid = segment_.info(rank).pid;
  switch (state) {
    case XCOLL_RANK_NOT_ENTERED:
      return "is alive and has not entered";
    case XCOLL_RANK_WAITING:
      return fmt::format("is waiting for rank {}", segment_.board(rank).waiting_on.load());
    case XCOLL_RANK_WORKING:
      return "is alive and working";
    case XCOLL_RANK_STOPPED:
      return fmt::format("is stopped by a signal or a debugger (kill -CONT {} lets it go on)", pid);
    case XCOLL_RANK_DEAD:
      return "is dead: its process has ended";
    case XCOLL_RANK_LEFT:
      return "has left: it has destroyed its communicator";
    default:
      return "is in an unknown state";
  }
}

xcoll_failure Diagnosis::blame(xcoll_status status, int32_t culprit,
                               uint64_t sequence) const noexcept {
  xcoll_failure failure{};
  failure.struct_size = sizeof(failure);
  failure.status = status;
  failure.culprit = culprit;
  failure.reporter = static_cast<int32_t>(rank_);
  failure.sequence = sequence;
  if (culprit < 0) return failure;
  const auto rank = static_cast<uint32_t>(culprit);
  failure.culprit_pid = segment_.info(rank).pid;
  failure.culprit_finished = finished(rank);
  std::memcpy(failure.culprit_host, segment_.info(rank).host, sizeof(failure.culprit_host));
  return failure;
}

xcoll_failure Diagnosis::start(xcoll_status status, int32_t culprit, uint64_t sequence) const {
  xcoll_failure failure = blame(status, culprit, sequence);
  if (culprit >= 0) failure.culprit_state = state_of(static_cast<uint32_t>(culprit), sequence);
  return failure;
}

xcoll_failure Diagnosis::rank_failed(const char* why) const noexcept {
  xcoll_failure failure = blame(XCOLL_ERR_RANK_FAILED, static_cast<int32_t>(rank_), 0);
  failure.culprit_state = XCOLL_RANK_WORKING;
  std::snprintf(
      failure.text, sizeof(failure.text),
      "rank %u (host %s, pid %lld) cannot go on: %s; its last finished collective is #%llu", rank_,
      failure.culprit_host, static_cast<long long>(failure.culprit_pid), why,
      static_cast<unsigned long long>(failure.culprit_finished));
  return failure;
}

xcoll_failure Diagnosis::lost(uint32_t culprit, const Scene* scene) const {
  xcoll_failure failure =
      start(XCOLL_ERR_RANK_FAILED, static_cast<int32_t>(culprit), scene ? scene->sequence : 0);
  const std::string where = scene ? describe(*scene) + " failed: " : std::string();
  set_text(&failure,
           fmt::format("{}{} {}; its last finished collective is #{} (found by rank {} of {}).",
                       where, who(culprit), state_text(culprit, failure.culprit_state),
                       failure.culprit_finished, rank_, segment_.ranks()));
  return failure;
}

// A rank that is dead, stopped or absent explains a wait better than the one that was directly
// waited for, which may only be waiting itself: follow the chain to somebody who is not waiting.
uint32_t Diagnosis::culprit_of_timeout(const Scene& scene) const {
  const int32_t lost_rank = find_lost(scene);
  if (lost_rank >= 0) return static_cast<uint32_t>(lost_rank);
  uint32_t suspect = scene.blocked_on;
  if (scene.operation.is_transfer()) return suspect;
  for (uint32_t rank = 0; rank < segment_.ranks(); ++rank) {
    if (rank != rank_ && entered(rank) < scene.sequence) return rank;
  }
  for (uint32_t rank = 0; rank < segment_.ranks(); ++rank) {
    if (rank != rank_ && shm::Processes::stopped(segment_.info(rank))) return rank;
  }
  for (uint32_t hops = 0; hops < segment_.ranks(); ++hops) {
    const int32_t next = segment_.board(suspect).waiting_on.load();
    if (next < 0 || next == static_cast<int32_t>(rank_)) break;
    suspect = static_cast<uint32_t>(next);
  }
  return suspect;
}

xcoll_failure Diagnosis::timeout(const Scene& scene, uint64_t waited_ns) const {
  const uint32_t culprit = culprit_of_timeout(scene);
  xcoll_failure failure = start(XCOLL_ERR_TIMEOUT, static_cast<int32_t>(culprit), scene.sequence);
  set_text(&failure,
           fmt::format(
               "{} timed out after {:.1f} s on rank {} of {}: {} {}; its last finished collective "
               "is #{}. Raise the deadline with XCOLL_TIMEOUT_S, or see what each rank did: "
               "XCOLL_RECORDER_DIR=<dir> writes it down when a communicator fails",
               describe(scene), static_cast<double>(waited_ns) * 1e-9, rank_, segment_.ranks(),
               who(culprit), state_text(culprit, failure.culprit_state), failure.culprit_finished));
  return failure;
}

xcoll_failure Diagnosis::timeout_behind(const Scene& scene, uint64_t waited_ns,
                                        const Scene& first) const {
  const uint32_t culprit = culprit_of_timeout(first);
  xcoll_failure failure = start(XCOLL_ERR_TIMEOUT, static_cast<int32_t>(culprit), first.sequence);
  set_text(
      &failure,
      fmt::format("{} timed out after {:.1f} s on rank {} of {}: it is queued behind {}, which "
                  "waits: {} {}; its last finished collective is #{}. Raise the deadline with "
                  "XCOLL_TIMEOUT_S",
                  describe(scene), static_cast<double>(waited_ns) * 1e-9, rank_, segment_.ranks(),
                  describe(first), who(culprit), state_text(culprit, failure.culprit_state),
                  failure.culprit_finished));
  return failure;
}

xcoll_failure Diagnosis::timeout_of_stream(const Scene& scene, uint64_t waited_ns,
                                           const Scene* first) const {
  xcoll_failure failure = start(XCOLL_ERR_TIMEOUT, static_cast<int32_t>(rank_), scene.sequence);
  const std::string behind =
      first ? fmt::format("it is queued behind {}, whose stream", describe(*first)) : "its stream";
  set_text(&failure,
           fmt::format("{} timed out after {:.1f} s on rank {} of {}: {} has not come to it. The "
                       "deadline counts from the call: see what that stream waits for, or raise it "
                       "with XCOLL_TIMEOUT_S",
                       describe(scene), static_cast<double>(waited_ns) * 1e-9, rank_,
                       segment_.ranks(), behind));
  return failure;
}

xcoll_failure Diagnosis::mismatch(const Scene& scene) const {
  // The largest group that agrees is taken to be right; of equal ones, that of the lowest rank.
  std::vector<uint32_t> present;
  for (uint32_t rank = 0; rank < segment_.ranks(); ++rank) {
    if (segment_.entry(rank, scene.sequence).sequence.load() == scene.sequence)
      present.push_back(rank);
  }
  const auto print = [&](uint32_t rank) {
    return segment_.entry(rank, scene.sequence).fingerprint.load();
  };
  const auto votes = [&](uint32_t rank) {
    return std::ranges::count_if(present,
                                 [&](uint32_t other) { return print(other) == print(rank); });
  };
  const uint32_t right = *std::ranges::max_element(
      present, [&](uint32_t a, uint32_t b) { return votes(a) < votes(b); });
  const auto odd =
      std::ranges::find_if(present, [&](uint32_t rank) { return print(rank) != print(right); });
  if (odd == present.end()) {  // equal fingerprints: the tables of an all-to-all-v differ
    xcoll_failure failure = start(XCOLL_ERR_MISMATCH, -1, scene.sequence);
    set_text(&failure,
             fmt::format("{} mismatch: for some pair of ranks, send_counts of the one is not "
                         "recv_counts of the other. No data were delivered",
                         describe(scene)));
    return failure;
  }
  const std::string right_call = describe(signature_of(segment_.entry(right, scene.sequence)));
  const std::string odd_call = describe(signature_of(segment_.entry(*odd, scene.sequence)));
  xcoll_failure failure = start(XCOLL_ERR_MISMATCH, static_cast<int32_t>(*odd), scene.sequence);
  set_text(
      &failure,
      fmt::format(
          "mismatch in collective #{}: {} called {}, {} called {}{}. All ranks must call the "
          "same operations with the same arguments in the same order. No data were delivered",
          scene.sequence, who(right), right_call, who(*odd), odd_call,
          right_call == odd_call ? " with other counts for single ranks or another XCOLL_ALGORITHM"
                                 : ""));
  return failure;
}

xcoll_failure Diagnosis::transfer_mismatch(const Scene& scene, const MessageInfo& sent) const {
  const auto peer = static_cast<uint32_t>(scene.operation.peer);
  xcoll_failure failure = start(XCOLL_ERR_MISMATCH, static_cast<int32_t>(peer), 0);
  set_text(&failure,
           fmt::format("{} on rank {} does not match: {} sent {} x {}. No data were delivered",
                       describe(scene), rank_, who(peer),
                       type_name(static_cast<kernels::Type>(sent.type)), sent.count));
  return failure;
}

xcoll_failure Diagnosis::aborted(const char* reason) const {
  xcoll_failure failure = start(XCOLL_ERR_ABORTED, static_cast<int32_t>(rank_), 0);
  set_text(&failure, fmt::format("{} aborted the communicator{}{}", who(rank_), reason ? ": " : "",
                                 reason ? reason : ""));
  return failure;
}

xcoll_failure Diagnosis::device_failed(const Scene* scene, const std::string& why) const {
  xcoll_failure failure =
      start(XCOLL_ERR_DEVICE, static_cast<int32_t>(rank_), scene ? scene->sequence : 0);
  set_text(&failure, fmt::format("{} failed because the stream of {} failed: {}",
                                 scene ? describe(*scene) : "a collective", who(rank_), why));
  return failure;
}

}  // namespace xcoll::engine
