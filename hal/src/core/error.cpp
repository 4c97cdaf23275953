// SPDX-License-Identifier: Apache-2.0
#include "core/error.hpp"

#include <cstddef>
#include <exception>
#include <map>
#include <new>
#include <utility>

#include "core/locks.hpp"
#include "core/thread_value.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

ThreadValue<ErrorRecord>& records() {
  static auto* value = new ThreadValue<ErrorRecord>;
  return *value;
}
const AtLoad records_at_load(records);

// What a thread without memory for a record of its own has: a status with nothing beside it.
constinit thread_local xhal_status bare_status = XHAL_OK;
const std::map<xhal_status, ErrorRecord>& bare_records() {
  static const auto* all = [] {
    auto* map = new std::map<xhal_status, ErrorRecord>;
    for (const auto& [status, text] : {std::pair<xhal_status, const char*>{XHAL_OK, ""},
#define RECORD(name, value, text) {XHAL_##name, text},
                                       XHAL_STATUS_LIST(RECORD)
#undef RECORD
         }) {
      (*map)[status].status = status;
      (*map)[status].text = text;
    }
    return map;
  }();
  return *all;
}
const AtLoad bare_records_at_load(bare_records);

xhal_string str(const std::string& text) { return {text.data(), text.size()}; }
std::string copy(xhal_string text) {
  // A plugin's may have a length and no text.
  return text.size == 0 || text.data == nullptr ? std::string() : std::string(text.data, text.size);
}

}  // namespace

ErrorRecord ErrorRecord::from(const xhal_error& error) {
  ErrorRecord r;
  r.status = error.status;
  r.scope = error.scope;
  r.vendor_code = error.vendor_code;
  r.plugin = copy(error.plugin);
  r.device = copy(error.device);
  r.operation = copy(error.operation);
  r.text = copy(error.text);
  r.context = error.context;
  r.stream = error.stream;
  r.cause = error.cause;
  r.operand = error.operand;
  r.cause_text = copy(error.cause_text);
  if (error.struct_size >= offsetof(xhal_error, stream_name) + sizeof error.stream_name)
    r.stream_name = copy(error.stream_name);
  return r;
}

xhal_error ErrorRecord::view() const {
  xhal_error e{};
  e.struct_size = sizeof e;
  e.status = status;
  e.scope = scope;
  e.vendor_code = vendor_code;
  e.plugin = str(plugin);
  e.device = str(device);
  e.context = context;
  e.stream = stream;
  e.operation = str(operation);
  e.text = str(text);
  e.cause = cause;
  e.operand = operand;
  e.cause_text = str(cause_text);
  e.stream_name = str(stream_name);
  return e;
}

ErrorRecord ErrorRecord::dependent(std::string_view dropped) const noexcept {
  // Some are everybody's own failure.
  const bool own = status == XHAL_ERR_DEVICE_LOST || status == XHAL_ERR_SHUTDOWN;
  try {
    ErrorRecord r = *this;
    if (own) return r;
    r.status = XHAL_ERR_DEPENDENCY;
    r.scope = XHAL_SCOPE_OPERATION;
    r.cause = cause == XHAL_OK ? status : cause;
    r.cause_text = cause == XHAL_OK ? text : cause_text;
    r.operation = dropped;
    r.text =
        fmt::format("{} was not run, because work it depends on failed: {}", dropped, r.cause_text);
    return r;
  } catch (...) {
    ErrorRecord r = plain(own ? status : XHAL_ERR_DEPENDENCY);
    r.scope = own ? scope : uint32_t{XHAL_SCOPE_OPERATION};
    r.cause = cause == XHAL_OK ? status : cause;
    return r;
  }
}

void error_is_reported(xhal_status status) noexcept {
  if (last_error().status != status) (void)set_error(ErrorRecord::plain(status));
  if (auto* record = records().find(); record != nullptr) record->reported = true;
}

xhal_status set_error(const ErrorRecord& record) noexcept {
  try {
    return set_error(ErrorRecord(record));
  } catch (...) {
    return set_error(ErrorRecord::plain(record.status));
  }
}

xhal_status set_error(ErrorRecord&& record) noexcept {
  const xhal_status status = record.status;
  record.reported = false;  // it may be a copy of one that was
  if (record.text.empty()) {
    try {
      record.text = xhal_status_text(status);
    } catch (...) {
    }
  }
  if (auto* mine = records().get(); mine != nullptr)
    *mine = std::move(record);
  else
    bare_status = status;
  return status;
}

const ErrorRecord& last_error() noexcept {
  if (const auto* record = records().find(); record != nullptr) return *record;
  const auto& bare = bare_records();
  const auto it = bare.find(bare_status);
  return it != bare.end() ? it->second : bare.at(XHAL_ERR_INTERNAL);
}

xhal_status fail_formatted(xhal_status status, std::string_view operation, fmt::string_view format,
                           fmt::format_args args) noexcept {
  try {
    ErrorRecord record;
    record.status = status;
    record.operation = operation;
    record.text = fmt::vformat(format, args);
    return set_error(std::move(record));
  } catch (...) {  // no memory for the text: the status itself still arrives
    return set_error(ErrorRecord::plain(status));
  }
}

xhal_status fail_with_exception(std::string_view operation) noexcept {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return fail(XHAL_ERR_OUT_OF_MEMORY, operation, "the host has no memory left for {}", operation);
  } catch (const std::exception& e) {
    return fail(XHAL_ERR_INTERNAL, operation, "{} failed inside libxhal: {}", operation, e.what());
  } catch (...) {
    return fail(XHAL_ERR_INTERNAL, operation, "{} failed inside libxhal", operation);
  }
}

}  // namespace xhal

extern "C" {

xhal_status xhal_last_error(xhal_error* error) {
  if (error == nullptr) return XHAL_ERR_INVALID_ARGUMENT;
  if (!xhal::structs::is_size<xhal_error>(error->struct_size)) return XHAL_ERR_STRUCT_SIZE;
  const auto& record = xhal::last_error();
  if (record.status == XHAL_OK) return XHAL_ERR_NOT_FOUND;
  xhal::structs::write(record.view(), error);
  return XHAL_OK;
}

const char* xhal_status_name(xhal_status status) {
  switch (status) {
#define NAME(name, value, text) \
  case XHAL_##name:             \
    return "XHAL_" #name;
    XHAL_STATUS_LIST(NAME)
#undef NAME
  }
  return "XHAL_?";
}

const char* xhal_status_text(xhal_status status) {
  switch (status) {
#define TEXT(name, value, text) \
  case XHAL_##name:             \
    return text;
    XHAL_STATUS_LIST(TEXT)
#undef TEXT
  }
  return "unknown status";
}

}  // extern "C"
