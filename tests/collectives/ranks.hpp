// SPDX-License-Identifier: Apache-2.0
// ranks.hpp: runs a test's body on several ranks, as processes or as threads of this process.
#pragma once

#include <sys/types.h>
#include <xcoll/xcoll.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace xcoll::testing {

enum class Where { kProcesses, kThreads };
std::string name_of(Where where);

// What one rank's body gets.
struct Rank {
  int32_t rank;
  int32_t size;
  xcoll_unique_id id;

  bool is(int32_t other) const { return rank == other; }
};

// How a rank that is a process ended.
struct Ending {
  int exit_code = -1;  // 0: no expectation failed
  int signal = 0;
};

using Body = std::function<void(const Rank&)>;

// Runs the body on every rank and expects each to end well. Failed expectations of a rank that is a
// process are printed by that process and fail the test here.
void run_ranks(int32_t size, Where where, const Body& body);

// The same for processes, of which some are meant to end badly: returns how each one ended.
std::vector<Ending> run_processes(int32_t size, const Body& body);

// A communicator that destroys itself.
class Comm {
 public:
  explicit Comm(const Rank& rank, uint64_t timeout_ms = 60'000);
  Comm(xcoll_comm* adopted) : comm_(adopted) {}
  ~Comm() { xcoll_comm_destroy(comm_); }
  Comm(const Comm&) = delete;

  operator xcoll_comm*() const { return comm_; }
  xcoll_failure failure() const;

 private:
  xcoll_comm* comm_ = nullptr;
};

// A door between ranks that does not go through the library: closed until somebody opens it.
class Gate {
 public:
  Gate();
  ~Gate();
  Gate(const Gate&) = delete;
  void open();
  void wait() const;

 private:
  int ends_[2];
};

uint64_t open_descriptors();

// A status with its text, so that a failed expectation explains itself.
#define EXPECT_XCOLL(expected, call)                                                \
  do {                                                                              \
    const xcoll_status status_ = (call);                                            \
    EXPECT_EQ(xcoll_status_name(expected), std::string(xcoll_status_name(status_))) \
        << xcoll_last_error();                                                      \
  } while (false)
#define ASSERT_XCOLL(expected, call)                                                \
  do {                                                                              \
    const xcoll_status status_ = (call);                                            \
    ASSERT_EQ(xcoll_status_name(expected), std::string(xcoll_status_name(status_))) \
        << xcoll_last_error();                                                      \
  } while (false)

}  // namespace xcoll::testing
