// SPDX-License-Identifier: Apache-2.0
// report.cpp: what a communicator tells about itself, as JSON. The only file of libxcoll that
// includes the JSON library: it costs ten seconds of compiling.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/failure.hpp"
#include "engine/comm.hpp"
#include "engine/failure_board.hpp"

namespace xcoll::engine {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

const char* state_name(xcoll_rank_state state) {
  constexpr const char* kNames[] = {"unknown", "not entered", "waiting", "working",
                                    "stopped", "dead",        "left"};
  return kNames[state];
}

void write_whole(int fd, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t written = ::write(fd, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw system_failure("write", "dumping the flight recorder");
    done += static_cast<size_t>(written);
  }
}

}  // namespace

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

void Comm::dump(int fd) const {
  const shm::Segment& segment = membership_.segment;
  const Diagnosis& diagnosis = engine_.diagnosis();
  nlohmann::json ranks = nlohmann::json::array();
  for (uint32_t rank = 0; rank < segment.ranks(); ++rank) {
    const shm::RankInfo& info = segment.info(rank);
    const shm::Board& board = segment.board(rank);
    nlohmann::json entry = {{"rank", rank},
                            {"host", info.host},
                            {"pid", info.pid},
                            {"state", state_name(diagnosis.state_of(rank, 0))},
                            {"entered", diagnosis.entered(rank)},
                            {"finished", board.finished.load()}};
    if (const int32_t waiting_on = board.waiting_on.load(); waiting_on >= 0) {
      entry["waiting_on"] = waiting_on;
    }
    ranks.push_back(std::move(entry));
  }
  nlohmann::json report = {{"communicator", config_.name},
                           {"rank", rank_},
                           {"size", segment.ranks()},
                           {"now_ns", now_ns()},
                           {"sequence", engine_.sequence()},
                           {"ranks", std::move(ranks)},
                           {"operations", engine_.recorder().json()}};
  if (has_failed(segment)) {
    const xcoll_failure sticky = failure();
    report["failure"] = {{"status", xcoll_status_name(sticky.status)},
                         {"culprit", sticky.culprit},
                         {"reporter", sticky.reporter},
                         {"text", sticky.text}};
  }
  write_whole(fd, report.dump(1) + "\n");
}

}  // namespace xcoll::engine
