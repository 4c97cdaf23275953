// SPDX-License-Identifier: Apache-2.0
// hal_soak: threads that open, close, submit, capture, fail, recover, fork and lose devices of
// three plugins, with seeded random choices. Every answer is checked against the contract and every
// result against what was asked for; a call that does not end is named; memory, threads and
// descriptors must not grow.
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <thread>

#include "../process_figures.hpp"
#include "forks.hpp"
#include "world.hpp"

namespace xhal::soak {
namespace {

using Clock = std::chrono::steady_clock;

// What a program may hold more after hours than after its first minute. A lost device and the
// streams it took with it stay answerable for ever, with their records; nothing else stays.
constexpr uint64_t kMayGrow = 4 << 20;
constexpr uint64_t kBytesOfALoss = 16 << 10, kBytesOfALostStream = 4 << 10,
                   kBytesOfAFailure = 2 << 10;
constexpr uint64_t kShortestJudged = 60;
// A call that takes longer hangs; a sanitizer takes its time.
constexpr auto kDeadline = std::chrono::seconds(test::kMemoryIsTheLibrarysOwn ? 90 : 240);

struct Options {
  uint64_t seconds = 60, seed = 1, threads = 8;
  std::vector<Step> steps;
};

int usage(const char* why) {
  std::fprintf(stderr,
               "hal_soak: %s\nusage: hal_soak [--seconds N] [--seed S] [--threads N] "
               "[--devices ID,ID...] [--steps NAME,NAME...]\nsteps:",
               why);
  for (const auto& step : steps()) std::fprintf(stderr, " %s", step.name);
  std::fputc('\n', stderr);
  return 2;
}

// Empty text: fine.
std::string parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) return name + " needs a value";
    const std::string value = argv[i + 1];
    if (name == "--seconds") {
      options.seconds = std::stoull(value);
    } else if (name == "--seed") {
      options.seed = std::stoull(value);
    } else if (name == "--threads") {
      options.threads = std::stoull(value);
    } else if (name == "--devices") {
      device_ids().clear();
      std::istringstream ids(value);
      for (std::string id; std::getline(ids, id, ',');) device_ids().push_back(id);
    } else if (name == "--steps") {
      std::istringstream names(value);
      for (std::string wanted; std::getline(names, wanted, ',');) {
        const auto& all = steps();
        const auto found =
            std::find_if(all.begin(), all.end(), [&](const Step& s) { return wanted == s.name; });
        if (found == all.end()) return "there is no step " + wanted;
        options.steps.push_back({found->name, std::max(found->weight, 3u), found->run});
      }
    } else {
      return "unknown option " + name;
    }
  }
  if (options.steps.empty()) options.steps = steps();
  return "";
}

void work(Worker& worker, const Options& options) {
  me = &worker;
  uint32_t weights = 0;
  for (const auto& step : options.steps) weights += step.weight;
  while (!stop) {
    worker.place->step = "open and close";
    Lease lease(device_ids()[worker.upto(device_ids().size() - 1)]);
    if (!lease.usable()) continue;
    for (auto left = 1 + worker.upto(20); left > 0 && lease.usable() && !stop; --left) {
      auto chosen = static_cast<uint32_t>(worker.upto(weights - 1));
      const auto* step = options.steps.data();
      while (chosen >= step->weight) chosen -= (step++)->weight;
      worker.place->step = step->name;
      try {
        step->run(lease);
      } catch (const std::exception& e) {
        complain(std::string("threw: ") + e.what());
      }
      ++totals.steps;
    }
    worker.place->step = "open and close";
  }
  worker.place->step = nullptr;  // at its end
}

class Watch {
 public:
  Watch(const Options& options, std::vector<std::unique_ptr<Place>>& places)
      : options_(options), places_(places), warm_(std::min<uint64_t>(60, options.seconds / 2)) {}

  // Looks each second; returns when the time is over or something is wrong.
  void run() {
    std::mutex mutex;
    std::condition_variable never;
    for (uint64_t second = 0; second < options_.seconds && !anything_wrong(); ++second) {
      std::unique_lock lock(mutex);
      never.wait_for(lock, std::chrono::seconds(1), [] { return false; });
      look_for_hangs();
      sample(second);
    }
  }
  // Waits for the threads, one after the other, still looking.
  void join(std::vector<std::thread>& threads) {
    stop = true;
    std::mutex mutex;
    std::condition_variable never;
    for (;;) {
      look_for_hangs();
      bool all = true;
      for (const auto& place : places_) all = all && place->step.load() == nullptr;
      if (all) break;
      std::unique_lock lock(mutex);
      never.wait_for(lock, std::chrono::milliseconds(50), [] { return false; });
    }
    for (auto& thread : threads) thread.join();
  }
  bool flat() const {
    if (samples_.size() < kShortestJudged) {  // too short, or something else is wrong already
      std::printf("memory is not judged in less than %lu s\n", kShortestJudged);
      return true;
    }
    const auto allowed = kMayGrow + losses() * kBytesOfALoss +
                         lost_streams() * kBytesOfALostStream + failures() * kBytesOfAFailure;
    // Medians: at any one moment there is what eight steps happen to hold.
    const auto n = static_cast<std::ptrdiff_t>(samples_.size());
    const auto warm = static_cast<std::ptrdiff_t>(warm_);
    const auto first = median({samples_.begin() + warm / 4, samples_.begin() + warm});
    const auto last = median({samples_.end() - std::min(n - warm, warm), samples_.end()});
    std::printf(
        "memory: %.1f MiB in the first %lu s, %.1f MiB at the end; %lu losses with %lu "
        "streams and %lu failures since may keep %.1f MiB\n",
        mebibytes(first), warm_, mebibytes(last), losses(), lost_streams(), failures(),
        mebibytes(allowed));
    return last <= first + allowed;
  }

 private:
  static uint64_t median(std::vector<uint64_t> samples) {
    const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
    std::nth_element(samples.begin(), middle, samples.end());
    return *middle;
  }
  static double mebibytes(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }
  uint64_t losses() const { return totals.losses - warm_losses_; }
  uint64_t lost_streams() const { return totals.lost_streams - warm_lost_streams_; }
  uint64_t failures() const { return totals.failures - warm_failures_; }

  void sample(uint64_t second) {
    malloc_trim(0);
    const auto bytes = test::held_bytes();
    samples_.push_back(bytes);
    if (second < warm_) {
      warm_losses_ = totals.losses;
      warm_lost_streams_ = totals.lost_streams;
      warm_failures_ = totals.failures;
    }
    if (second % 10 == 9) {
      std::printf("%4lu s: %.1f MiB, %lu threads, %lu descriptors, %lu steps, %lu calls\n",
                  second + 1, mebibytes(bytes), test::thread_count(), test::descriptor_count(),
                  totals.steps.load(), totals.calls.load());
      std::fflush(stdout);
    }
  }
  void look_for_hangs() const {
    const auto now = static_cast<uint64_t>(Clock::now().time_since_epoch().count());
    const auto longest = static_cast<uint64_t>(std::chrono::nanoseconds(kDeadline).count());
    for (size_t i = 0; i < places_.size(); ++i) {
      const auto since = places_[i]->since_ns.load();
      const char* const step = places_[i]->step.load();
      if (step == nullptr || since == 0 || now < since + longest) continue;
      std::fprintf(stderr, "soak: thread %zu hangs in %s, step `%s`; seed %lu\n", i,
                   places_[i]->call.load(), step, options_.seed);
      std::fflush(nullptr);
      std::abort();  // with a core for the debugger
    }
  }

  const Options& options_;
  std::vector<std::unique_ptr<Place>>& places_;
  const uint64_t warm_;
  std::vector<uint64_t> samples_;  // bytes, one a second
  uint64_t warm_losses_ = 0, warm_lost_streams_ = 0, warm_failures_ = 0;
};

int soak(const Options& options) {
  std::vector<std::unique_ptr<Place>> places;
  for (uint64_t i = 0; i <= options.threads; ++i) places.push_back(std::make_unique<Place>());
  Worker main_thread(static_cast<uint32_t>(options.threads), options.seed);
  main_thread.place = places.back().get();
  main_thread.place->step = "the end";
  me = &main_thread;
  // What the library and the plugins keep for good (a descriptor of shared memory, say) is there
  // after the first use.
  check(xhal_init(nullptr));
  for (const auto& id : device_ids()) {
    Lease lease(id);
    for (const auto& step : steps()) {
      if (std::string(step.name) == "copies" || std::string(step.name) == "pinned") step.run(lease);
    }
  }
  (void)xhal_shutdown();
  const auto threads_before = test::thread_count(), descriptors_before = test::descriptor_count();
  check(xhal_init(nullptr));

  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < options.threads; ++i) {
    workers.push_back(std::make_unique<Worker>(static_cast<uint32_t>(i), options.seed));
    workers.back()->place = places[i].get();
    places[i]->enter("nothing");
    threads.emplace_back([&worker = *workers.back(), &options] { work(worker, options); });
  }
  places.back()->step = nullptr;
  Watch watch(options, places);
  watch.run();
  watch.join(threads);
  close_shared_stream();
  std::thread end([] { (void)xhal_shutdown(); });
  end.join();

  std::printf(
      "seed %lu: %lu steps, %lu calls, %lu opens, %lu losses, %lu failures, %lu captures, %lu "
      "forks, %lu callbacks\n",
      options.seed, totals.steps.load(), totals.calls.load(), totals.opens.load(),
      totals.losses.load(), totals.failures.load(), totals.captures.load(), totals.forks.load(),
      totals.callbacks_called.load());
  if (!watch.flat()) complain("memory grows");
  if (totals.callbacks_called != totals.callbacks_wanted) {
    complain(std::to_string(totals.callbacks_wanted) + " callbacks were due, " +
             std::to_string(totals.callbacks_called) + " came");
  }
  // The kernel takes a moment to forget one that was joined.
  for (int i = 0; i < 100 && test::thread_count() > threads_before; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  if (test::thread_count() > threads_before)
    complain("threads are left over: " + std::to_string(test::thread_count()) + ", before " +
             std::to_string(threads_before));
  // Timelines of many streams at once may take further pieces of shared memory, kept for the next.
  constexpr uint64_t kPieces = 3;
  if (test::descriptor_count() > descriptors_before + kPieces)
    complain("descriptors are left over: " + std::to_string(test::descriptor_count()) +
             ", before " + std::to_string(descriptors_before));
  return anything_wrong() ? 1 : 0;
}

}  // namespace
}  // namespace xhal::soak

int main(int argc, char** argv) {
  xhal::soak::Options options;
  std::string wrong;
  try {
    wrong = xhal::soak::parse(argc, argv, options);
  } catch (const std::exception&) {
    wrong = "a value is not a number";
  }
  if (!wrong.empty()) return xhal::soak::usage(wrong.c_str());
  return xhal::soak::soak(options);
}
