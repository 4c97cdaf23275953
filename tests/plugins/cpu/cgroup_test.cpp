// SPDX-License-Identifier: Apache-2.0
// What the cpu plugin takes from the kernel's files about the container it runs in.
#include "cgroup.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace {

using xhal::cpu::CgroupLimits;
using xhal::cpu::read_cgroup_limits;

class CgroupTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  CgroupLimits limits() const { return read_cgroup_limits(root_); }

 private:
  const std::string root_ = testing::TempDir() + "cgroup-" +
                            testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(CgroupTest, WithoutFilesThereIsNoLimit) {
  EXPECT_FALSE(limits().memory_bytes);
  EXPECT_FALSE(limits().memory_left_bytes);
  EXPECT_FALSE(limits().processors);
}

TEST_F(CgroupTest, TheTightestLimitOnTheWayUpApplies) {
  write("/proc/self/cgroup", "0::/pod/job");
  write("/sys/fs/cgroup/pod/job/memory.max", "max");
  write("/sys/fs/cgroup/pod/job/cpu.max", "300000 100000");
  write("/sys/fs/cgroup/pod/memory.max", "1000000");
  write("/sys/fs/cgroup/pod/memory.current", "300000");
  write("/sys/fs/cgroup/pod/memory.stat", "anon 200000\ninactive_file 100000");
  write("/sys/fs/cgroup/pod/cpu.max", "150000 100000");
  EXPECT_EQ(limits().memory_bytes, 1000000u);
  EXPECT_EQ(limits().memory_left_bytes, 800000u);
  EXPECT_EQ(limits().processors, 1.5);
}

TEST_F(CgroupTest, VersionOneIsReadLikewise) {
  write("/proc/self/cgroup", "4:memory:/job\n1:cpu,cpuacct:/job\n0::/");
  write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000000");
  write("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "500000");
  write("/sys/fs/cgroup/memory/job/memory.stat", "total_inactive_file 0");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");  // says: none
  write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "50000");
  write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1");
  EXPECT_EQ(limits().memory_bytes, 2000000u);
  EXPECT_EQ(limits().memory_left_bytes, 1500000u);
  EXPECT_EQ(limits().processors, 0.5);
}

TEST_F(CgroupTest, APathOfTheHostFallsBackToTheMount) {
  write("/proc/self/cgroup", "0::/../host/path");
  write("/sys/fs/cgroup/memory.max", "4096000");
  write("/sys/fs/cgroup/memory.current", "96000");
  EXPECT_EQ(limits().memory_left_bytes, 4000000u);
}

TEST_F(CgroupTest, AGroupThatUsesMoreThanItsLimitHasNothingLeft) {
  write("/proc/self/cgroup", "0::/job");
  write("/sys/fs/cgroup/job/memory.max", "1000");
  write("/sys/fs/cgroup/job/memory.current", "5000");
  EXPECT_EQ(limits().memory_left_bytes, 0u);
}

}  // namespace
