#include "listener.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <iostream>

#include "common/table.hpp"

namespace xhal::cts {
namespace {

constexpr unsigned kSecondsForOneTest = 300;
char running[512];  // read by the signal handler

void last_words(int signal) {
  char text[700];
  const char* what = signal == SIGALRM ? "did not end within 5 minutes" : strsignal(signal);
  const int length = std::snprintf(text, sizeof text, "xhal-cts: %s: %s\n", running, what);
  (void)!write(STDERR_FILENO, text, static_cast<size_t>(length));
  if (signal == SIGALRM) _exit(1);
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  sigaction(signal, &standard, nullptr);
  raise(signal);
}

std::string indented(const std::string& text) {
  std::string out = "  ";
  for (const char c : text) {
    out += c;
    if (c == '\n') out += "  ";
  }
  return out;
}

}  // namespace

std::string display_name(const testing::TestInfo& test) {
  const std::string suite = test.test_suite_name();
  return suite == "training" ? test.name() : suite + "." + test.name();
}

void Listener::OnTestStart(const testing::TestInfo& test) {
  std::snprintf(running, sizeof running, "%s", display_name(test).c_str());
  alarm(kSecondsForOneTest);
}

void Listener::OnTestEnd(const testing::TestInfo& test) {
  alarm(0);
  const auto& outcome = *test.result();
  std::string reason;
  for (int i = 0; i < outcome.total_part_count(); ++i) {
    const auto& part = outcome.GetTestPartResult(i);
    if (part.passed()) continue;
    if (!reason.empty()) reason += "\n";
    if (part.file_name() != nullptr && !part.skipped()) {
      const std::string_view file = part.file_name();
      reason += fmt::format("{}:{}: ", file.substr(file.rfind('/') + 1), part.line_number());
    }
    reason += part.message();
  }
  while (!reason.empty() && reason.back() == '\n') reason.pop_back();
  auto end = outcome.Failed() ? End::failed : outcome.Skipped() ? End::skipped : End::passed;
  for (int i = 0; i < outcome.test_property_count() && end == End::skipped; ++i) {
    if (std::strcmp(outcome.GetTestProperty(i).key(), "refused") != 0) continue;
    end = End::refused;
    reason = outcome.GetTestProperty(i).value();
  }
  auto result = judge(display_name(test), end, std::move(reason), waivers_);
  result.seconds = static_cast<double>(outcome.elapsed_time()) / 1000;
  if (result.status == Status::failed) {
    std::cout << tools::paint("FAILED", tools::Colour::bad, colours_) << " " << result.name << "\n"
              << indented(result.reason) << "\n"
              << std::flush;
  }
  report_.tests.push_back(std::move(result));
}

void name_the_test_on_death() {
  struct sigaction action {};
  action.sa_handler = last_words;
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM})
    sigaction(signal, &action, nullptr);
}

}  // namespace xhal::cts
