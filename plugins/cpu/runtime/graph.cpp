// SPDX-License-Identifier: Apache-2.0
#include "graph.hpp"

#include <algorithm>
#include <new>

#include "device.hpp"

namespace xhal::cpu {

void* Graph::room(uint32_t bytes) {
  if (left_bytes_ < bytes) {
    const uint32_t size = std::max(bytes, kChunkBytes);
    chunks_.emplace_back(static_cast<char*>(::operator new (size, std::align_val_t{64})));
    place_ = chunks_.back().get();
    left_bytes_ = size;
  }
  void* p = place_;
  place_ += bytes;
  left_bytes_ -= bytes;
  return p;
}

bool Graph::take_now() {
  const std::lock_guard lock(lock_);
  if (taken_) return false;
  return taken_ = true;
}

bool Graph::take(Stream* stream) {
  const std::lock_guard lock(lock_);
  if (!taken_) return taken_ = true;
  Stream** last = &first_;
  while (*last != nullptr) last = &(*last)->next_in_line();
  stream->next_in_line() = nullptr;
  *last = stream;
  return false;
}

void Graph::give_back() {
  Stream* next;
  {
    const std::lock_guard lock(lock_);
    taken_ = false;
    next = first_;
    if (next != nullptr) first_ = next->next_in_line();
  }
  if (next != nullptr) next->hand_over();
}

void Graph::finished() {
  if (pending_.fetch_sub(1) == 1) announce_idle();  // from here on the graph may be gone
}

void Graph::wait_idle() {
  wait_until_idle([this] { return pending_.load() == 0; });
}

xhal_status GraphHandle::size(uint64_t* node_count) {
  if (node_count == nullptr)
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "the result pointer is NULL");
  *node_count = graph->commands().size();
  return XHAL_OK;
}

xhal_status GraphHandle::destroy() {
  graph->wait_idle();
  device.disown(this);
  return plugin::destroy(this);
}

Capture::Capture(Stream& origin, uint32_t id) : origin_(origin), id_(id) {
  streams_.try_emplace(&origin);
}

void Capture::note(const Stream& stream) {
  auto& self = const_cast<Stream&>(stream);
  ++streams_[&self][&stream];
}

void Capture::keep(std::shared_ptr<const void> thing) {
  const std::lock_guard lock(mutex_);
  graph_->keep(std::move(thing));
}

uint64_t Capture::mark(const Stream& stream) {
  const std::lock_guard lock(mutex_);
  marks_.push_back(streams_[const_cast<Stream*>(&stream)]);
  return uint64_t{id_} << 32 | (marks_.size() - 1);
}

void Capture::join(Stream& stream, uint64_t mark) {
  const std::lock_guard lock(mutex_);
  const auto index = static_cast<uint32_t>(mark);
  if (index >= marks_.size())
    throw plugin::Error(XHAL_ERR_CAPTURE, "the event is not of this capture");
  auto& seen = streams_[&stream];
  for (const auto& [other, count] : marks_[index]) seen[other] = std::max(seen[other], count);
}

void Capture::spoil(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (spoiled_.empty()) spoiled_ = reason;
}

std::unique_ptr<Graph> Capture::end() {
  const std::lock_guard lock(mutex_);
  const Seen& last = streams_[&origin_];
  for (auto& [stream, seen] : streams_) {
    const auto own = seen.find(stream);
    const auto known = last.find(stream);
    const uint64_t recorded = own == seen.end() ? 0 : own->second;
    if (recorded > (known == last.end() ? 0 : known->second) && spoiled_.empty()) {
      spoiled_ = "stream " + std::to_string(plugin::host().object_number(stream)) +
                 " took part in the capture and was not joined back: record an event on it and "
                 "make the first stream "
                 "wait for that before the end";
    }
    stream->leave_capture();
  }
  if (!spoiled_.empty()) throw plugin::Error(XHAL_ERR_CAPTURE, "the capture failed: " + spoiled_);
  return std::move(graph_);
}

}  // namespace xhal::cpu
