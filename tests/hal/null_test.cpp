// SPDX-License-Identifier: Apache-2.0
// NULL where a function needs something: every exported function, every pointer of it, one at
// a time. The call is refused with a text that names the function and the argument, and
// nothing else happens.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <functional>
#include <set>
#include <tuple>

#include "hal_test.hpp"
#include "loader/elf_symbols.hpp"
#include "xhal/plugin.h"

namespace xhal::test {
namespace {

constexpr uint8_t kUntouched = 0xA5;

template <class T, class... Kinds>
constexpr bool is_one_of = (std::is_same_v<T, Kinds> || ...);
template <class T>
concept Handle = is_one_of<T, xhal_device, xhal_context, xhal_stream, xhal_timeline, xhal_pool,
                           xhal_op, xhal_module, xhal_kernel, xhal_graph>;

// A live object of each kind on one plugin; NULL where the plugin has no such objects.
struct World {
  xhal_device* device = nullptr;
  xhal_context* context = nullptr;
  xhal_stream* stream = nullptr;
  xhal_timeline* timeline = nullptr;
  xhal_pool* pool = nullptr;
  xhal_op* op = nullptr;
  xhal_module* module = nullptr;
  xhal_kernel* kernel = nullptr;
  xhal_graph* graph = nullptr;

  template <Handle T>
  T* handle() const {
    return std::get<T*>(
        std::make_tuple(device, context, stream, timeline, pool, op, module, kernel, graph));
  }
};

template <class T>
concept Sized = requires(T t) {
  t.struct_size;
};

// An argument of type A that the function would take, with the memory it points to.
template <class A>
struct Good {
  alignas(64) std::array<uint8_t, 1024> memory;
  bool writable = false;

  A make(const World& world) {
    memory.fill(0);
    if constexpr (std::is_integral_v<A>) {
      return 1;
    } else if constexpr (std::is_same_v<A, xhal_string>) {
      return {"name", 4};
    } else if constexpr (std::is_same_v<A, void*> || std::is_same_v<A, const char*>) {
      return reinterpret_cast<A>(memory.data());
    } else {
      using T = std::remove_pointer_t<A>;
      if constexpr (Handle<T>) {
        return world.handle<T>();
      } else if constexpr (std::is_function_v<T>) {
        return [](auto...) {};
      } else {
        if constexpr (!std::is_const_v<T> && !Sized<T>) {
          writable = true;
          memory.fill(kUntouched);
        }
        if constexpr (Sized<std::remove_const_t<T>>) {
          const uint32_t size = sizeof(T);
          std::memcpy(memory.data(), &size, sizeof size);
        }
        if constexpr (std::is_same_v<A, xhal_timeline* const*>) {
          std::memcpy(memory.data(), &world.timeline, sizeof(void*));
        }
        return reinterpret_cast<A>(memory.data());
      }
    }
  }
  bool untouched() const {
    return !writable || std::all_of(memory.begin(), memory.end(),
                                    [](uint8_t byte) { return byte == kUntouched; });
  }
};

enum class Position { plain, handle, pointer, text };

template <class A>
constexpr Position position_of() {
  if constexpr (std::is_same_v<A, xhal_string>) return Position::text;
  if constexpr (std::is_pointer_v<A>)
    return Handle<std::remove_pointer_t<A>> ? Position::handle : Position::pointer;
  return Position::plain;
}

// There is no object of that kind on this plugin.
template <class A>
bool unavailable(const A& argument) {
  if constexpr (position_of<A>() == Position::handle) return argument == nullptr;
  return false;
}

template <class A>
A nothing() {
  if constexpr (std::is_same_v<A, xhal_string>) return {nullptr, 4};
  return A{};
}

// One exported function: how many arguments it has, and a call of it with the n-th of them missing.
struct Function {
  std::string name;
  std::vector<std::string> arguments;  // "_": may be NULL
  struct Call {
    bool possible;  // there are objects for the other arguments
    xhal_status status;
    bool untouched;
  };
  std::vector<Position> positions;
  std::function<Call(const World&, size_t missing)> call;
};

template <class... A>
Function function(const std::string& name, std::vector<std::string> arguments,
                  xhal_status (*f)(A...)) {
  EXPECT_EQ(arguments.size(), sizeof...(A)) << name;
  return {
      name, std::move(arguments), {position_of<A>()...}, [f](const World& world, size_t missing) {
        return [&]<size_t... I>(std::index_sequence<I...>)->Function::Call {
          std::tuple<Good<A>...> good;
          std::tuple<A...> values{std::get<I>(good).make(world)...};
          const bool possible = ((I == missing || !unavailable(std::get<I>(values))) && ...);
          if (!possible) return {false, XHAL_OK, true};
          ((I == missing ? void(std::get<I>(values) = nothing<A>()) : void()), ...);
          const xhal_status status = std::apply(f, values);
          return {true, status, (std::get<I>(good).untouched() && ...)};
        }
        (std::index_sequence_for<A...>{});
      }};
}

std::vector<std::string> names_in(std::string list) {
  std::vector<std::string> names;
  std::string name;
  for (const char c : list) {
    if (c == ',' || c == ')') {
      names.push_back(std::exchange(name, {}));
    } else if (c != '(' && c != ' ') {
      name += c;
    }
  }
  return names;
}

// The exports that are slots name their arguments in the slot list; of those these may be NULL.
const std::set<std::string> kOptional = {"xhal_activity_enable callback",
                                         "xhal_activity_enable user", "xhal_stream_host_call user"};

std::vector<Function> every_function() {
  std::vector<Function> all;
#define XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second) \
  all.push_back(function("xhal_" #name, names_in(#args), &xhal_##name));
#include "xhal/slots.inc"
#undef XHAL_SLOT
#undef XHAL_SLOT_HOSTED
  for (auto& f : all) {
    for (auto& argument : f.arguments) {
      if (kOptional.contains(f.name + " " + argument)) argument = "_";
    }
  }
#define OF(name, ...) all.push_back(function("xhal_" #name, {__VA_ARGS__}, &xhal_##name))
  OF(init, "_");
  OF(shutdown);
  OF(get_proc, "name", "function");
  OF(log_set, "_", "_");
  OF(enumerate, "flags", "devices", "capacity", "count");
  OF(plugin_report, "plugins", "capacity", "count");
  OF(device_open, "info", "device", "context");
  OF(device_close, "device");
  OF(device_query, "device", "info");
  OF(device_control_table, "device", "table");
  OF(device_events_fd, "device", "fd");
  OF(context_create, "device", "_", "context");
  OF(context_destroy, "context");
  OF(memory_alloc, "context", "info", "address");
  OF(memory_free, "context", "address");
  OF(host_alloc, "size_bytes", "address");
  OF(host_free, "_");
  OF(host_register, "context", "host", "size_bytes", "device_address");
  OF(host_unregister, "context", "host");
  OF(memory_export, "context", "address", "handle_type", "external");
  OF(memory_import, "context", "external", "address");
  OF(pointer_query, "address", "info");
  OF(timeline_create, "initial", "timeline");
  OF(timeline_destroy, "timeline");
  OF(timeline_signal, "timeline", "value");
  OF(timeline_query, "timeline", "value", "_");
  OF(timeline_wait, "timeline", "value", "timeout_ns");
  OF(timeline_wait_many, "timelines", "values", "count", "any", "timeout_ns", "_");
  OF(timeline_notify, "timeline", "value", "callback", "_");
  OF(timeline_eventfd, "timeline", "value", "fd");
  OF(timeline_export, "timeline", "fd", "offset");
  OF(timeline_import, "fd", "offset", "timeline");
  OF(event_record, "stream", "flags", "event");
  OF(event_query, "event");
  OF(event_wait, "event", "timeout_ns");
  OF(event_elapsed, "start", "end", "elapsed_ns");
  OF(stream_wait_event, "stream", "event");
  OF(stream_create, "context", "_", "stream");
  OF(stream_destroy, "stream");
  OF(stream_timeline, "stream", "timeline");
  OF(stream_synchronize, "stream", "timeout_ns");
  OF(stream_copy, "stream", "dst", "src", "size_bytes");
  OF(stream_fill, "stream", "dst", "size_bytes", "pattern", "pattern_bytes");
  OF(stream_wait, "stream", "timeline", "value");
  OF(stream_signal, "stream", "timeline", "value");
  OF(stream_recover, "stream");
  OF(stream_abort, "stream");
  OF(stream_begin_capture, "stream", "_");
  OF(stream_end_capture, "stream", "graph");
  OF(stream_capturing, "stream", "capturing");
  OF(graph_destroy, "graph");
  OF(pool_create, "context", "_", "pool");
  OF(pool_destroy, "pool");
  OF(pool_alloc, "pool", "_", "size_bytes", "tag", "address");
  OF(pool_free, "pool", "address", "events", "event_count");
  OF(pool_trim, "pool", "keep_bytes");
  OF(pool_query, "pool", "stats");
  OF(pool_reset_peaks, "pool");
  OF(pool_observe, "pool", "_", "_");
  OF(op_destroy, "op");
  OF(module_destroy, "module");
  OF(module_kernel, "module", "name", "kernel");
  OF(kernel_query, "kernel", "properties");
  OF(device_comm_table, "device", "table");
  OF(correlation_push, "id");
  OF(correlation_pop, "_");
  OF(timeline_fail, "timeline", "error");
#undef OF
  return all;
}

std::string bytes_of(const char* file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class NullTest : public HalTest {
 protected:
  void SetUp() override { begin("cpu"); }
  void begin(const char* plugin) {
    HalTest::SetUp();
    auto& d = device(plugin);
    stream_ = d.stream();
    pool_ = d.pool();
    world_.device = d.get();
    world_.context = d.context();
    world_.stream = stream_.get();
    world_.pool = pool_.get();
    check(xhal_timeline_create(0, &world_.timeline));
    const uint32_t group = 1;
    info_.struct_size = sizeof info_;
    info_.id = XHAL_OP_fill;
    info_.group_count = info_.operand_count = 1;
    info_.group_sizes = &group;
    info_.operands = &operand_;
    check(xhal_op_prepare(world_.context, &info_, &world_.op));
    info_.group_sizes = nullptr;
    const auto bytes = bytes_of(SOME_LIBRARY);
    module_info_.struct_size = sizeof module_info_;
    module_info_.format = {"elf-so", 6};
    module_info_.name = {"null_test", 9};
    module_info_.bytes = bytes.data();
    module_info_.size_bytes = bytes.size();
    if (xhal_module_load(world_.context, &module_info_, &world_.module) == XHAL_OK)
      check(xhal_module_kernel(world_.module, {"xhal_plugin_negotiate", 21}, &world_.kernel));
    if (xhal_stream_begin_capture(world_.stream, nullptr) == XHAL_OK)
      check(xhal_stream_end_capture(world_.stream, &world_.graph));
  }
  void TearDown() override {
    if (world_.graph != nullptr) check(xhal_graph_destroy(world_.graph));
    if (world_.module != nullptr) check(xhal_module_destroy(world_.module));
    check(xhal_op_destroy(world_.op));
    check(xhal_timeline_destroy(world_.timeline));
    pool_.reset();
    stream_.reset();
    HalTest::TearDown();
  }

  Stream stream_;
  Pool pool_;
  World world_;
  xhal_tensor_desc operand_ = [] {
    xhal_tensor_desc t{};
    t.code = XHAL_CODE_FLOAT;
    t.bits = 32;
    t.lanes = 1;
    t.ndim = 1;
    t.sizes[0] = t.strides[0] = 1;
    return t;
  }();
  xhal_op_info info_{};
  xhal_module_info module_info_{};
};

class EveryNullTest : public NullTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override { begin(GetParam()); }
};

TEST_P(EveryNullTest, EveryFunctionRefusesItAndNamesTheArgument) {
  for (const auto& f : every_function()) {
    for (size_t i = 0; i < f.positions.size(); ++i) {
      if (f.positions[i] == Position::plain || f.arguments[i] == "_") continue;
      SCOPED_TRACE(f.name + " without " + f.arguments[i]);
      const auto call = f.call(world_, i);
      if (!call.possible) continue;
      const auto& text = error_text();
      if (f.positions[i] == Position::handle) {
        EXPECT_EQ(call.status, XHAL_ERR_INVALID_HANDLE) << xhal_status_name(call.status) << text;
        EXPECT_THAT(text, HasSubstr("handle is NULL"));
      } else {
        EXPECT_EQ(call.status, XHAL_ERR_INVALID_ARGUMENT) << xhal_status_name(call.status) << text;
        EXPECT_THAT(text, HasSubstr("NULL"));
        EXPECT_THAT(text, HasSubstr(f.arguments[i]));
      }
      EXPECT_THAT(text, HasSubstr(f.name));
      EXPECT_EQ(last_error_info().operation, f.name);
      EXPECT_TRUE(call.untouched) << "a refused call writes no results";
    }
  }
  xhal_pool_stats stats{};
  stats.struct_size = sizeof stats;
  EXPECT_OK(xhal_pool_query(world_.pool, &stats));
  EXPECT_EQ(stats.allocation_count, 0u);
  EXPECT_OK(xhal_stream_synchronize(world_.stream, kSoon));
  uint64_t value = 0;
  EXPECT_OK(xhal_timeline_query(world_.timeline, 0, &value));
  EXPECT_EQ(value, 0u);
}

TEST_P(EveryNullTest, ArraysMayBeNullWhenTheyHaveNoElements) {
  uint32_t count = 0;
  EXPECT_OK(xhal_enumerate(0, nullptr, 0, &count));
  EXPECT_OK(xhal_plugin_report(nullptr, 0, &count));
  EXPECT_OK(xhal_device_telemetry(world_.device, nullptr, 0));
  EXPECT_OK(xhal_timeline_wait_many(nullptr, nullptr, 0, 0, 0, nullptr));
  xhal_op_properties properties{};
  properties.struct_size = sizeof properties;
  EXPECT_OK(xhal_op_query(world_.op, &properties, nullptr, 0));
  uint64_t block = 0;
  EXPECT_OK(xhal_pool_alloc(world_.pool, nullptr, 64, {nullptr, 0}, &block));
  EXPECT_OK(xhal_pool_free(world_.pool, block, nullptr, 0));
}

TEST_P(EveryNullTest, AnOperatorWithoutOneOfItsArraysIsRefusedByName) {
  const uint32_t group = 1;
  const auto refused = [&](const char* field) {
    xhal_op* op = nullptr;
    EXPECT_EQ(xhal_op_prepare(world_.context, &info_, &op), XHAL_ERR_INVALID_ARGUMENT) << field;
    EXPECT_THAT(error_text(), HasSubstr(field));
    EXPECT_EQ(op, nullptr);
  };
  refused("group_sizes");
  info_.group_sizes = &group;
  info_.operands = nullptr;
  refused("operands");
  info_.operands = &operand_;
  info_.attribute_count = 1;
  refused("attributes");
  xhal_attribute attribute{};
  attribute.kind = XHAL_ATTR_INTS;
  attribute.count = 2;
  info_.attributes = &attribute;
  refused("attributes");
}

TEST_P(EveryNullTest, AModuleWithoutItsBytesOrTextsIsRefusedByName) {
  const auto refused = [&](const xhal_module_info& info, const char* field) {
    xhal_module* module = nullptr;
    EXPECT_EQ(xhal_module_load(world_.context, &info, &module), XHAL_ERR_INVALID_ARGUMENT) << field;
    EXPECT_THAT(error_text(), HasSubstr(field));
  };
  auto info = module_info_;
  info.bytes = nullptr;
  refused(info, "bytes");
  info = module_info_;
  info.format.data = nullptr;
  refused(info, "format");
  info = module_info_;
  info.name.data = nullptr;
  refused(info, "name");
  info = module_info_;
  info.options = {nullptr, 3};
  refused(info, "options");
}

TEST_F(NullTest, AKernelArgumentWithoutItsValueIsRefused) {
  xhal_kernel_arg argument{};
  argument.kind = XHAL_ARG_VALUE;
  argument.size_bytes = 16;
  xhal_grid grid{sizeof grid, 0, {1, 1, 1}, {1, 1, 1}};
  EXPECT_EQ(xhal_kernel_launch(world_.stream, world_.kernel, &grid, &argument, 1),
            XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_THAT(error_text(), HasSubstr("args"));
}

INSTANTIATE_TEST_SUITE_P(Plugins, EveryNullTest, testing::Values("cpu", "template"),
                         [](const auto& info) { return std::string(info.param); });

TEST(NullTableTest, AnErrorRecordCannotBeReadIntoNothing) {
  EXPECT_EQ(xhal_last_error(nullptr), XHAL_ERR_INVALID_ARGUMENT);
}

TEST(NullTableTest, NoPluginPathButALengthIsRefused) {
  xhal_init_info info{};
  info.struct_size = sizeof info;
  info.plugin_path.size = 5;
  EXPECT_EQ(xhal_init(&info), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_THAT(error_text(), HasSubstr("plugin_path"));
}

TEST(NullTableTest, KnowsEveryExportedFunction) {
  std::set<std::string> known = {"xhal_last_error", "xhal_status_name", "xhal_status_text",
                                 "xhal_version", "xhal_build_id"};
  for (const auto& f : every_function()) known.insert(f.name);
  Dl_info library{};
  ASSERT_NE(dladdr(reinterpret_cast<void*>(&xhal_version), &library), 0);
  const auto symbols = exported_symbols(library.dli_fname);
  ASSERT_TRUE(symbols);
  EXPECT_GT(symbols->size(), 50u);
  for (const auto& symbol : *symbols) {
    if (!symbol.starts_with("xhal_")) continue;
    EXPECT_TRUE(known.contains(symbol)) << symbol;
  }
}

}  // namespace
}  // namespace xhal::test
