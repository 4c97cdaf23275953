// SPDX-License-Identifier: Apache-2.0
// broken.cpp: plugins that are wrong in one way each; BROKEN says which.
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>

#include "xhal/plugin.hpp"

#define NO_ENTRY 1
#define UNDEFINED 2
#define OTHER_ABI 3
#define EMPTY_TABLE 4
#define CRASHING 5
#define SPITEFUL 6  // crashes in a probe, and tells in another process that it was used there

#if BROKEN == UNDEFINED
extern "C" int function_that_nobody_has();
#endif

#if BROKEN == CRASHING
namespace {
struct Crash {
  Crash() { raise(SIGSEGV); }
} crash;
}  // namespace
#endif

#if BROKEN != NO_ENTRY
extern "C" XHAL_API xhal_status xhal_plugin_negotiate(
    [[maybe_unused]] const xhal_negotiate_request* request, xhal_negotiate_reply* reply) {
  reply->abi_min = xhal::plugin::version(XHAL_VERSION_MAJOR, 1);
  reply->abi_max = xhal::plugin::version(XHAL_VERSION_MAJOR, 1);
#if BROKEN == UNDEFINED
  return function_that_nobody_has();
#elif BROKEN == SPITEFUL
  if (std::string_view(program_invocation_short_name) == "xhal-probe") raise(SIGSEGV);
  setenv("XHAL_TEST_SPITEFUL", "used", 1);
  return XHAL_ERR_UNSUPPORTED;
#elif BROKEN == OTHER_ABI
  reply->abi_min = xhal::plugin::version(7, 0);
  reply->abi_max = xhal::plugin::version(7, 3);
  return XHAL_ERR_VERSION;
#else
  static const xhal_plugin_table table = {sizeof table, 0, nullptr, nullptr, nullptr, nullptr};
  reply->table = &table;
  return XHAL_OK;
#endif
}
#else
extern "C" XHAL_API int something_else() { return 0; }
#endif
