// SPDX-License-Identifier: Apache-2.0
#include "xhal/watchdog.hpp"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include "common/envelope.hpp"

namespace xhal::tools {
namespace {

// Composed beforehand: a signal handler may only write.
std::string* last_words;
int last_words_to;

void give_up(int) {
  (void)!write(last_words_to, last_words->data(), last_words->size());
  _exit(kUsage);
}

}  // namespace

Watchdog::Watchdog(const std::string& command, const std::string& what, bool json,
                   unsigned seconds) {
  const auto text = fmt::format(
      "{} did not answer within {} s; its plugin or driver hangs. Leave it out with "
      "XHAL_PLUGIN_DISABLE, or look closer:  xhal plugins doctor",
      what, seconds);
  static std::string words;
  words = json ? json_text(envelope(command, nullptr, {}, text)) : "xhal: " + text + "\n";
  last_words = &words;
  last_words_to = json ? STDOUT_FILENO : STDERR_FILENO;
  struct sigaction action {};
  action.sa_handler = give_up;
  sigaction(SIGALRM, &action, nullptr);
  alarm(seconds);
}

Watchdog::~Watchdog() { alarm(0); }

}  // namespace xhal::tools
