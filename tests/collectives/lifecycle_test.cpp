// SPDX-License-Identifier: Apache-2.0
// Making, splitting and ending communicators; bad arguments; fork; the flight recorder.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "elements.hpp"
#include "ranks.hpp"

namespace xcoll::testing {
namespace {

using ::testing::HasSubstr;

xcoll_config config_with_timeout(uint64_t timeout_ms) {
  xcoll_config config{};
  config.struct_size = sizeof(config);
  config.timeout_ns = timeout_ms * 1'000'000;
  return config;
}

class LifecycleTest : public ::testing::TestWithParam<Where> {};

TEST_P(LifecycleTest, AThousandCommunicatorsLeaveNothingBehind) {
  run_ranks(2, GetParam(), [](const Rank& rank) {
    const Comm world(rank);
    uint64_t before = 0;
    for (int i = 0; i < 1000; ++i) {
      xcoll_unique_id id;
      if (rank.is(0)) {
        ASSERT_XCOLL(XCOLL_OK, xcoll_unique_id_create(&id));
      }
      ASSERT_XCOLL(XCOLL_OK, xcoll_broadcast(world, &id, &id, sizeof(id), XCOLL_U8, 0, nullptr));
      const Comm comm(Rank{rank.rank, rank.size, id});
      int32_t value = i;
      ASSERT_XCOLL(XCOLL_OK,
                   xcoll_all_reduce(comm, &value, &value, 1, XCOLL_I32, XCOLL_SUM, nullptr));
      ASSERT_EQ(value, 2 * i);
      if (i == 0) before = open_descriptors();
    }
    // Ranks that are threads share their descriptors, so that one may see another's being made.
    ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(world, nullptr));
    EXPECT_LE(open_descriptors(), before + 2);
  });
}

TEST_P(LifecycleTest, TwoCommunicatorsWorkAtTheSameTime) {
  xcoll_unique_id second_id;
  ASSERT_XCOLL(XCOLL_OK, xcoll_unique_id_create(&second_id));
  run_ranks(3, GetParam(), [&](const Rank& rank) {
    const Comm first(rank);
    const Comm second(Rank{rank.size - 1 - rank.rank, rank.size, second_id});
    const auto work = [&](xcoll_comm* comm, int32_t own) {
      for (int32_t i = 0; i < 300; ++i) {
        std::vector<int32_t> data(static_cast<size_t>(1 + i * 100), own + i);
        ASSERT_XCOLL(XCOLL_OK, xcoll_all_reduce(comm, data.data(), data.data(), data.size(),
                                                XCOLL_I32, XCOLL_SUM, nullptr));
        ASSERT_EQ(std::ranges::count(data, 3 + 3 * i), std::ssize(data));
      }
    };
    std::thread other([&] { work(second, 2 - rank.rank); });
    work(first, rank.rank);
    other.join();
  });
}

TEST_P(LifecycleTest, SplitMakesGroupsOrderedByKey) {
  run_ranks(4, GetParam(), [](const Rank& rank) {
    const Comm world(rank);
    xcoll_comm* made = nullptr;
    const int32_t color = rank.rank % 2;
    ASSERT_XCOLL(XCOLL_OK, xcoll_comm_split(world, color, -rank.rank, &made));
    const Comm half(made);
    EXPECT_EQ(xcoll_comm_size(half), 2);
    EXPECT_EQ(xcoll_comm_rank(half), rank.rank < 2 ? 1 : 0);
    int32_t gathered[2] = {};
    ASSERT_XCOLL(XCOLL_OK, xcoll_all_gather(half, &rank.rank, gathered, 1, XCOLL_I32, nullptr));
    EXPECT_THAT(gathered, ::testing::ElementsAre(color + 2, color));
    ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(world, nullptr));
  });
}

TEST_P(LifecycleTest, ANegativeColorTakesPartInASplitAndGetsNone) {
  run_ranks(3, GetParam(), [](const Rank& rank) {
    const Comm world(rank);
    xcoll_comm* made = nullptr;
    ASSERT_XCOLL(XCOLL_OK, xcoll_comm_split(world, rank.is(1) ? -1 : 7, 0, &made));
    const Comm child(made);
    EXPECT_EQ(made == nullptr, rank.is(1));
    EXPECT_EQ(xcoll_comm_size(child), rank.is(1) ? -1 : 2);
  });
}

TEST_P(LifecycleTest, ARankThatDoesNotJoinIsNamed) {
  run_ranks(3, GetParam(), [](const Rank& rank) {
    if (rank.is(2)) return;
    const xcoll_config config = config_with_timeout(300);
    xcoll_comm* comm = nullptr;
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT,
                 xcoll_comm_init(&rank.id, rank.size, rank.rank, &config, &comm));
    EXPECT_THAT(xcoll_last_error(), HasSubstr("rank 2 has not joined"));
    EXPECT_EQ(comm, nullptr);
  });
}

TEST_P(LifecycleTest, AMissingRankZeroIsNamed) {
  run_ranks(2, GetParam(), [](const Rank& rank) {
    if (rank.is(0)) return;
    const xcoll_config config = config_with_timeout(200);
    xcoll_comm* comm = nullptr;
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT,
                 xcoll_comm_init(&rank.id, rank.size, rank.rank, &config, &comm));
    EXPECT_THAT(xcoll_last_error(), HasSubstr("rank 0 has not joined"));
  });
}

TEST_P(LifecycleTest, RanksThatDisagreeOnTheirNumberAreToldSo) {
  run_ranks(2, GetParam(), [](const Rank& rank) {
    const xcoll_config config = config_with_timeout(60'000);
    xcoll_comm* comm = nullptr;
    EXPECT_XCOLL(XCOLL_ERR_INVALID_ARGUMENT,
                 xcoll_comm_init(&rank.id, 2 + rank.rank, rank.rank, &config, &comm));
    EXPECT_THAT(xcoll_last_error(), HasSubstr("disagree on their number"));
  });
}

TEST_P(LifecycleTest, TwoRanksWithOneNumberAreToldSo) {
  run_ranks(3, GetParam(), [](const Rank& rank) {
    const xcoll_config config = config_with_timeout(60'000);
    xcoll_comm* comm = nullptr;
    EXPECT_XCOLL(XCOLL_ERR_INVALID_ARGUMENT,
                 xcoll_comm_init(&rank.id, 4, std::min(rank.rank, 1), &config, &comm));
    EXPECT_THAT(xcoll_last_error(), HasSubstr("call themselves rank 1"));
  });
}

INSTANTIATE_TEST_SUITE_P(Where, LifecycleTest,
                         ::testing::Values(Where::kProcesses, Where::kThreads),
                         [](const auto& info) { return name_of(info.param); });

TEST(BootstrapTest, ARankThatDiesWhileTheOthersJoinIsNamed) {
  const std::vector<Ending> endings = run_processes(3, [](const Rank& rank) {
    if (rank.is(1)) {
      // Rank 2 does not come, so this one is killed while it waits in init.
      std::thread([] { ::kill(::getpid(), SIGKILL); }).detach();
    }
    if (rank.is(2)) return;
    const xcoll_config config = config_with_timeout(2'000);
    xcoll_comm* comm = nullptr;
    const xcoll_status status = xcoll_comm_init(&rank.id, rank.size, rank.rank, &config, &comm);
    // Killed before it said hello it is missing, afterwards it is lost.
    EXPECT_TRUE(status == XCOLL_ERR_RANK_FAILED || status == XCOLL_ERR_TIMEOUT);
    EXPECT_THAT(xcoll_last_error(), HasSubstr("rank 1"));
  });
  EXPECT_EQ(endings[0].exit_code, 0);
}

// One rank alone: arguments, versions and texts.
class ArgumentsTest : public ::testing::Test {
 protected:
  ArgumentsTest() {
    EXPECT_XCOLL(XCOLL_OK, xcoll_unique_id_create(&id_));
    EXPECT_XCOLL(XCOLL_OK, xcoll_comm_init(&id_, 1, 0, nullptr, &comm_));
  }
  ~ArgumentsTest() override { xcoll_comm_destroy(comm_); }

  void expect_refused(xcoll_status call, const char* why) {
    EXPECT_XCOLL(XCOLL_ERR_INVALID_ARGUMENT, call);
    EXPECT_THAT(xcoll_last_error(), HasSubstr(why));
    EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm_, nullptr));  // a refusal harms nobody
  }

  xcoll_unique_id id_;
  xcoll_comm* comm_ = nullptr;
  float data_[64] = {};
};

TEST_F(ArgumentsTest, BadArgumentsAreRefusedWithAReason) {
  float* out = data_ + 32;
  expect_refused(xcoll_all_reduce(nullptr, data_, out, 4, XCOLL_F32, XCOLL_SUM, nullptr), "NULL");
  expect_refused(xcoll_all_reduce(comm_, nullptr, out, 4, XCOLL_F32, XCOLL_SUM, nullptr),
                 "send is NULL");
  expect_refused(xcoll_all_reduce(comm_, data_, nullptr, 4, XCOLL_F32, XCOLL_SUM, nullptr),
                 "recv is NULL");
  expect_refused(xcoll_all_reduce(comm_, data_, out, 4, 0x777, XCOLL_SUM, nullptr), "xcoll_dtype");
  expect_refused(xcoll_all_reduce(comm_, data_, out, 4, XCOLL_F32, 99, nullptr), "no reduction");
  expect_refused(xcoll_all_reduce(comm_, data_, out, 4, XCOLL_F32, XCOLL_BAND, nullptr),
                 "band is not defined for f32");
  expect_refused(xcoll_all_reduce(comm_, data_, out, 4, XCOLL_I32, XCOLL_AVG, nullptr),
                 "avg is not defined for i32");
  expect_refused(xcoll_all_reduce(comm_, data_, out, UINT64_MAX / 2, XCOLL_F32, XCOLL_SUM, nullptr),
                 "too many");
  expect_refused(xcoll_broadcast(comm_, data_, out, 4, XCOLL_F32, 1, nullptr), "root 1");
  expect_refused(xcoll_broadcast(comm_, data_, out, 4, XCOLL_F32, -1, nullptr), "root -1");
  expect_refused(xcoll_send(comm_, data_, 4, XCOLL_F32, 5, nullptr), "peer 5");
  expect_refused(xcoll_all_gather_v(comm_, data_, out, nullptr, XCOLL_F32, nullptr), "counts");
  expect_refused(xcoll_submit(comm_, nullptr, 1, nullptr, nullptr), "ops is NULL");
  expect_refused(xcoll_group_begin(comm_, nullptr), "group is NULL");
  expect_refused(xcoll_request_test(nullptr), "request is NULL");
  expect_refused(xcoll_comm_init(&id_, 2, 2, nullptr, &comm_), "rank 2 of 2");
  expect_refused(xcoll_comm_init(&id_, 0, 0, nullptr, &comm_), "rank 0 of 0");
  expect_refused(xcoll_unique_id_create(nullptr), "id is NULL");
}

TEST_F(ArgumentsTest, PartlyOverlappingBuffersAreRefused) {
  expect_refused(xcoll_all_reduce(comm_, data_, data_ + 1, 4, XCOLL_F32, XCOLL_SUM, nullptr),
                 "overlap");
  expect_refused(xcoll_all_gather(comm_, data_ + 1, data_, 4, XCOLL_F32, nullptr), "overlap");
}

TEST_F(ArgumentsTest, BytesThatAreNoIdAreRefused) {
  xcoll_unique_id zeros{};
  expect_refused(xcoll_comm_init(&zeros, 2, 1, nullptr, &comm_), "no unique id");
}

TEST_F(ArgumentsTest, AnIdOfAnotherHostIsRefusedByName) {
  xcoll_unique_id foreign = id_;
  foreign.bytes[48] ^= 1;  // of the boot id
  xcoll_comm* comm = nullptr;
  EXPECT_XCOLL(XCOLL_ERR_UNSUPPORTED, xcoll_comm_init(&foreign, 2, 1, nullptr, &comm));
  EXPECT_THAT(xcoll_last_error(), HasSubstr("one host only"));
}

TEST_F(ArgumentsTest, AnOperationOfANewerProgramIsTakenWhenItsNewFieldsAreZero) {
  struct {
    xcoll_op op;
    uint64_t later;
  } newer{};
  newer.op.struct_size = sizeof(newer);
  newer.op.kind = XCOLL_BARRIER;
  EXPECT_XCOLL(XCOLL_OK, xcoll_submit(comm_, &newer.op, 1, nullptr, nullptr));
  newer.later = 1;
  EXPECT_XCOLL(XCOLL_ERR_UNKNOWN_FIELD, xcoll_submit(comm_, &newer.op, 1, nullptr, nullptr));
  newer.op.struct_size = 8;
  EXPECT_XCOLL(XCOLL_ERR_STRUCT_SIZE, xcoll_submit(comm_, &newer.op, 1, nullptr, nullptr));
}

TEST_F(ArgumentsTest, EveryStatusHasAName) {
  EXPECT_STREQ(xcoll_status_name(XCOLL_ERR_MISMATCH), "XCOLL_ERR_MISMATCH");
  EXPECT_STREQ(xcoll_status_text(XCOLL_OK), "success");
  EXPECT_STREQ(xcoll_status_name(12345), "XCOLL_?");
}

TEST_F(ArgumentsTest, AForkedChildIsToldThatTheCommunicatorIsNotItsOwn) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    const bool told = xcoll_barrier(comm_, nullptr) == XCOLL_ERR_FORKED &&
                      xcoll_comm_abort(comm_, nullptr) == XCOLL_ERR_FORKED &&
                      std::string(xcoll_last_error()).find("forked") != std::string::npos;
    xcoll_comm_destroy(comm_);
    ::_exit(told ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm_, nullptr));
}

nlohmann::json dump_of(xcoll_comm* comm) {
  const int fd = ::memfd_create("dump", 0);
  EXPECT_XCOLL(XCOLL_OK, xcoll_comm_dump(comm, fd));
  std::string text(static_cast<size_t>(::lseek(fd, 0, SEEK_END)), 0);
  EXPECT_EQ(::pread(fd, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  ::close(fd);
  return nlohmann::json::parse(text);
}

TEST_F(ArgumentsTest, TheRecorderKnowsTheLastOperations) {
  ASSERT_XCOLL(XCOLL_OK, xcoll_all_reduce(comm_, data_, data_, 4, XCOLL_F32, XCOLL_SUM, nullptr));
  ASSERT_XCOLL(XCOLL_OK, xcoll_broadcast(comm_, data_, data_, 5, XCOLL_BF16, 0, nullptr));
  const nlohmann::json dump = dump_of(comm_);
  EXPECT_EQ(dump["rank"], 0);
  EXPECT_EQ(dump["sequence"], 2);
  EXPECT_EQ(dump["ranks"][0]["pid"], ::getpid());
  ASSERT_EQ(dump["operations"].size(), 2u);
  EXPECT_EQ(dump["operations"][0]["kind"], "all-reduce");
  EXPECT_EQ(dump["operations"][0]["count"], 4);
  EXPECT_EQ(dump["operations"][1]["type"], "bf16");
  EXPECT_EQ(dump["operations"][1]["peer"], 0);
  EXPECT_EQ(dump["operations"][1]["status"], "XCOLL_OK");
  EXPECT_LE(dump["operations"][0]["end_ns"], dump["operations"][1]["start_ns"]);
}

TEST(RecorderTest, ItKeepsTheLastEntriesOnly) {
  xcoll_unique_id id;
  ASSERT_XCOLL(XCOLL_OK, xcoll_unique_id_create(&id));
  xcoll_config config = config_with_timeout(1000);
  config.recorder_entries = 4;
  xcoll_comm* made = nullptr;
  ASSERT_XCOLL(XCOLL_OK, xcoll_comm_init(&id, 1, 0, &config, &made));
  const Comm comm(made);
  for (int i = 0; i < 10; ++i) EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
  const nlohmann::json dump = dump_of(comm);
  ASSERT_EQ(dump["operations"].size(), 4u);
  EXPECT_EQ(dump["operations"][0]["sequence"], 7);
  EXPECT_EQ(dump["operations"][3]["sequence"], 10);
}

TEST(RecorderTest, AFailedCommunicatorWritesItsRecorderIntoTheDirectory) {
  char directory[] = "/tmp/xcoll-recorder-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  ::setenv("XCOLL_RECORDER_DIR", directory, 1);
  Gate over;
  run_ranks(2, Where::kProcesses, [&](const Rank& rank) {
    const Comm comm(rank, 200);
    if (rank.is(1)) {
      over.wait();
      return;
    }
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT, xcoll_barrier(comm, nullptr));
    over.open();
    const std::string path =
        std::string(directory) + "/comm." + std::to_string(::getpid()) + ".0.json";
    const int fd = ::open(path.c_str(), O_RDONLY);
    ASSERT_GE(fd, 0) << path;
    std::string text(65536, 0);
    text.resize(static_cast<size_t>(::read(fd, text.data(), text.size())));
    ::close(fd);
    ::unlink(path.c_str());
    const nlohmann::json dump = nlohmann::json::parse(text);
    EXPECT_EQ(dump["failure"]["status"], "XCOLL_ERR_TIMEOUT");
    EXPECT_EQ(dump["failure"]["culprit"], 1);
  });
  ::unsetenv("XCOLL_RECORDER_DIR");
  EXPECT_EQ(::rmdir(directory), 0);
}

}  // namespace
}  // namespace xcoll::testing
