// SPDX-License-Identifier: Apache-2.0
#include "ranks.hpp"

#include <dirent.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

namespace xcoll::testing {
namespace {

xcoll_unique_id make_id() {
  xcoll_unique_id id;
  EXPECT_XCOLL(XCOLL_OK, xcoll_unique_id_create(&id));
  return id;
}

Ending wait_for(pid_t pid) {
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  if (WIFSIGNALED(status)) return {.exit_code = -1, .signal = WTERMSIG(status)};
  return {.exit_code = WEXITSTATUS(status)};
}

}  // namespace

std::string name_of(Where where) { return where == Where::kProcesses ? "Processes" : "Threads"; }

std::vector<Ending> run_processes(int32_t size, const Body& body) {
  const xcoll_unique_id id = make_id();
  std::fflush(nullptr);
  std::vector<pid_t> pids;
  for (int32_t rank = 0; rank < size; ++rank) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      body(Rank{rank, size, id});
      std::fflush(nullptr);
      ::_exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    pids.push_back(pid);
  }
  std::vector<Ending> endings;
  for (const pid_t pid : pids) endings.push_back(wait_for(pid));
  return endings;
}

void run_ranks(int32_t size, Where where, const Body& body) {
  if (where == Where::kProcesses) {
    const std::vector<Ending> endings = run_processes(size, body);
    for (size_t rank = 0; rank < endings.size(); ++rank) {
      EXPECT_EQ(endings[rank].exit_code, 0)
          << "rank " << rank << " failed, signal " << endings[rank].signal;
    }
    return;
  }
  const xcoll_unique_id id = make_id();
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] { body(Rank{rank, size, id}); });
  }
  for (std::thread& thread : threads) thread.join();
}

Comm::Comm(const Rank& rank, uint64_t timeout_ms) {
  xcoll_config config{};
  config.struct_size = sizeof(config);
  config.timeout_ns = timeout_ms * 1'000'000;
  EXPECT_XCOLL(XCOLL_OK, xcoll_comm_init(&rank.id, rank.size, rank.rank, &config, &comm_));
}

xcoll_failure Comm::failure() const {
  xcoll_failure failure{};
  failure.struct_size = sizeof(failure);
  EXPECT_XCOLL(XCOLL_OK, xcoll_comm_failure(comm_, &failure));
  return failure;
}

Gate::Gate() { EXPECT_EQ(::pipe(ends_), 0); }

Gate::~Gate() {
  ::close(ends_[0]);
  ::close(ends_[1]);
}

void Gate::open() { EXPECT_EQ(::write(ends_[1], "", 1), 1); }

// The byte stays in the pipe: the door stays open for everybody.
void Gate::wait() const {
  pollfd poll_end{ends_[0], POLLIN, 0};
  while (::poll(&poll_end, 1, -1) < 0) {
  }
}

uint64_t open_descriptors() {
  DIR* directory = ::opendir("/proc/self/fd");
  uint64_t count = 0;
  while (::readdir(directory)) ++count;
  ::closedir(directory);
  return count;
}

}  // namespace xcoll::testing
