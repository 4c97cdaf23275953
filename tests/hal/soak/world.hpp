// SPDX-License-Identifier: Apache-2.0
// world.hpp: what the soak's threads share: who they are, what they are doing, what is allowed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "xhal/xhal.hpp"

namespace xhal::soak {

// Where a thread or a forked child is: read by the watchdog, also from another process.
struct Place {
  std::atomic<const char*> step{"nothing"}, call{"nothing"};
  std::atomic<uint64_t> since_ns{0};
  void enter(const char* function);
};

struct Totals {
  std::atomic<uint64_t> steps{0}, calls{0}, opens{0}, losses{0}, lost_streams{0}, failures{0},
      forks{0}, captures{0}, callbacks_wanted{0}, callbacks_called{0};
};
inline Totals totals;

class Worker {
 public:
  Worker(uint32_t n, uint64_t seed) : number(n), random(seed * 1000 + n) {}
  uint64_t upto(uint64_t most) { return std::uniform_int_distribution<uint64_t>(0, most)(random); }
  bool chance(uint32_t of) { return upto(of - 1) == 0; }

  const uint32_t number;
  std::mt19937_64 random;
  Place* place = nullptr;
  std::vector<xhal_event> reached;  // stay reached whatever ends
};
inline thread_local Worker* me = nullptr;

// Says what is wrong: the run has failed.
void complain(const std::string& text);
bool anything_wrong();
inline std::atomic<bool> stop{false};

// One call of the library, seen by the watchdog.
#define CALL(function, ...) \
  (::xhal::soak::me->place->enter(#function), ++::xhal::soak::totals.calls, function(__VA_ARGS__))

std::string describe(const char* what, xhal_status status);

// A device this thread has opened, and what it may answer.
class Lease {
 public:
  explicit Lease(const std::string& id);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  bool opened() const { return device_ != nullptr; }
  bool usable() const { return opened() && !lost_; }
  bool may_be_lost() const { return plugin_ != "cpu"; }
  bool lost() const { return lost_; }
  const std::string& plugin() const { return plugin_; }
  const std::string& id() const { return id_; }
  xhal_device* device() const { return device_; }
  xhal_context* context() const { return context_; }

  // True for XHAL_OK. A loss ends the lease's use; a status of `also` is an answer; anything else
  // is a complaint.
  bool ok(const char* what, xhal_status status, std::initializer_list<xhal_status> also = {});

  xhal_stream* stream();                          // one of the lease's own, made now or before
  xhal_pool* pool();                              // likewise, with a limit that is often reached
  std::optional<uint64_t> memory(uint64_t size);  // freed with the lease
  void count_lost_stream() { ++lost_streams_; }

 private:
  std::string id_, plugin_;
  xhal_device* device_ = nullptr;
  xhal_context* context_ = nullptr;
  bool lost_ = false;
  uint64_t lost_streams_ = 0;
  std::vector<xhal_stream*> streams_;
  std::vector<uint64_t> memory_;
  xhal_pool* pool_ = nullptr;
};

inline uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }
inline constexpr uint64_t kSoon = 60'000'000'000;  // what takes longer hangs

struct Step {
  const char* name;
  uint32_t weight;  // how often it is chosen; 0 = only when asked for
  void (*run)(Lease& lease);
};
const std::vector<Step>& steps();

std::vector<std::string>& device_ids();  // set before the threads begin

}  // namespace xhal::soak
