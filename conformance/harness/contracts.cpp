// SPDX-License-Identifier: Apache-2.0
#include "harness/contracts.hpp"

#include <fmt/core.h>
#include <fnmatch.h>

#include "harness/catalogue.hpp"

namespace xhal::cts {
namespace {

// Where a contract stands, and what it asks for.
struct Contract {
  const char* tests;  // display names, with * and ?
  const char* where;
  const char* asks;
};

// The first that matches counts.
constexpr Contract kContracts[] = {
    {kStart, "xhal/plugin.h",
     "xhal_plugin_negotiate and enumerate return, and leave the process alone: they do not "
     "wait, crash or exit"},
    {"outside of a test", "xhal/plugin.h (device_close, shutdown)",
     "closing a device ends by itself; a plugin never ends the process and writes nothing to "
     "standard output"},
    {"Basics.*Copy*", "xhal/stream.h (xhal_stream_copy)",
     "the bytes of the source lie at the destination when the stream has come behind the copy"},
    {"Basics.*Fill*", "xhal/stream.h (xhal_stream_fill)",
     "the pattern lies in the whole range when the stream has come behind the fill"},
    {"Basics.*HostCall*", "xhal/stream.h (xhal_stream_host_call)",
     "the callback is called exactly once for each accepted call, before what is behind it in "
     "the stream"},
    {"Basics.*Signal*", "xhal/plugin.h (stream_signal), xhal/host.h (timeline_advance)",
     "the timeline is raised to the value when the work before the signal has run"},
    {"Basics.*", "xhal/plugin.h (stream_create, stream_signal)",
     "a stream is made, takes work, and its timeline tells when that is done"},
    {"Enumeration.*", "xhal/plugin.h (enumerate)",
     "it is passive: no driver call, and no thread and no descriptor is left, not even by the "
     "first"},
    {"Process.*",
     "xhal/plugin.h (xhal_plugin_negotiate, device_open, device_close), docs/vendor-guide.md",
     "signals, working directory, umask, environment, locale and a calling thread's "
     "floating-point mode are the program's: a plugin leaves them as they are"},
    {"Negotiation.*Slots*", "xhal/plugin.h (xhal_dispatch), docs/vendor-guide.md",
     "the slots that every device has are filled"},
    {"Negotiation.*Exports*", "docs/vendor-guide.md, xhal/plugin.h (xhal_plugin_negotiate)",
     "the library exports its entry and nothing else, which could clash with another plugin's"},
    {"Negotiation.*", "xhal/plugin.h (xhal_plugin_negotiate)",
     "both sides name a range and the highest common minor wins; without one the answer is "
     "XHAL_ERR_VERSION, and range and build are filled in all the same"},
    {"Context.DestroyingOneGivesBack*", "xhal/plugin.h (context_destroy, stream_destroy)",
     "what was allocated and created in a context ends with it"},
    {"Context.DestroyingOneLeaves*", "xhal/plugin.h (context_destroy)",
     "it frees what is left of this context; memory of the others stays theirs"},
    {"Context.DestroyingOneFrees*", "xhal/context.h (xhal_context_destroy)",
     "what a context owns is freed with it, and its addresses are nobody's"},
    {"Context.Quota*", "xhal/context.h (xhal_context_info)",
     "a context allocates no more than its quota; libxhal counts, and answers LIMIT"},
    {"Context.Default*", "xhal/context.h (xhal_context_destroy)",
     "the default context lives as long as its device is open"},
    {"Context.*", "xhal/context.h (xhal_context_create)",
     "a further context has streams and memory of its own"},
    {"Scrub.*", "xhal/plugin.h (context_scrub), xhal/context.h (XHAL_CONTEXT_SCRUB)",
     "what such a context allocated is overwritten before the memory is given back"},
    {"Device.Clock*", "xhal/device.h (xhal_device_clock)",
     "nanoseconds of the device's clock, and of CLOCK_MONOTONIC at the same moment"},
    {"Device.CanBeOpenedAgain*", "xhal/plugin.h (device_close)",
     "it stops all work, frees everything of the device and returns"},
    {"Device.*Uuid*", "xhal/device.h (xhal_device_info.uuid)",
     "it names the card: the same in every process, and stable across reboots where the "
     "hardware allows; all zero means none"},
    {"Device.Has*Name*", "xhal/device.h (xhal_device_info), xhal/plugin.h (enumerate)",
     "a device has a name and a vendor, for people to know it by"},
    {"Device.Enumeration*", "xhal/device.h (xhal_enumerate), xhal/plugin.h (enumerate)",
     "the same devices come in the same order; `capacity` 0 only counts"},
    {"Device.Ids*", "xhal/device.h (xhal_device_info.id)",
     "each device has an id that no other has"},
    {"Device.Observing*", "xhal/device.h (XHAL_OPEN_OBSERVE), xhal/plugin.h (device_open)",
     "who observes gets identity, limits and telemetry, but no context, and disturbs nobody's "
     "work"},
    {"Device.Unclaimed*", "xhal/device.h (XHAL_CAP_*), docs/vendor-guide.md",
     "what a device does not claim answers UNSUPPORTED, and changes nothing"},
    {"Device.Telemetry*", "xhal/device.h (xhal_device_telemetry), docs/vendor-guide.md",
     "a sample that the device cannot tell is left alone: zero is a reading"},
    {"Device.Control*", "xhal/device.h (xhal_device_control_table)",
     "a device that was not opened for control answers PERMISSION"},
    {"Device.*Limit*", "xhal/device.h (xhal_device_limit)",
     "a limit that the device does not know is UNSUPPORTED, and the value stays as it was"},
    {"Device.MemorySize*",
     "xhal/device.h (xhal_device_info.memory_bytes, XHAL_LIMIT_MEMORY_TOTAL_BYTES)",
     "record and limit tell the same size"},
    {"Device.Allocation*", "xhal/device.h (XHAL_LIMIT_ALLOCATION_ALIGNMENT_BYTES)",
     "a power of two, which every allocation without another wish has"},
    {"Device.HasAtLeast*", "xhal/device.h (XHAL_LIMIT_STREAM_PRIORITIES)",
     "how many priorities streams have: 1 when they are all the same"},
    {"Device.*", "xhal/device.h (xhal_device_open, xhal_device_close, xhal_device_query)",
     "a device that is open for several is one device, open until it is closed as often, and "
     "its record is verified then"},
    {"Memory.AllocatingFromManyThreads*", "xhal/memory.h (xhal_memory_alloc)",
     "thread: any; every allocation is the caller's alone"},
    {"Memory.*OutOfMemory*", "xhal/memory.h (xhal_memory_alloc)",
     "OUT_OF_MEMORY when the device has no more; LIMIT is the context's quota, which libxhal "
     "counts"},
    {"Memory.PointerQuery*",
     "xhal/memory.h (xhal_pointer_query), xhal/host.h (range_add, range_remove)",
     "the allocation that an address lies in, from any address of it, and none once it is "
     "freed"},
    {"Memory.*Alignment*", "xhal/memory.h (xhal_memory_info.alignment_bytes)",
     "an allocation begins at a multiple of the alignment asked for, a power of two, or of "
     "the device's"},
    {"Memory.Freeing*", "xhal/memory.h (xhal_memory_free)",
     "only the start of a live allocation can be freed, and only once"},
    {"Memory.AddressArithmetic*", "xhal/memory.h, docs/vendor-guide.md (Addresses)",
     "offsets into an allocation are legal everywhere an address is"},
    {"Memory.HostVisibility*", "xhal/device.h (XHAL_CAP_HOST_VISIBLE), xhal/host.h (range_add)",
     "device memory that the host can touch is announced as such, and the device claims it"},
    {"Memory.*Refused", "xhal/memory.h (xhal_memory_alloc)",
     "a request that cannot be met is refused before anything changes"},
    {"Memory.*", "xhal/memory.h (xhal_memory_alloc, xhal_memory_free)",
     "an allocation is the caller's alone, and holds what is written to it until it is freed"},
    {"HostMemory.*Refused", "xhal/memory.h (xhal_host_alloc, xhal_host_free, xhal_host_register)",
     "nothing, and what is no pinned memory, is refused before anything changes"},
    {"HostMemory.*", "xhal/memory.h (xhal_host_alloc, xhal_host_register)",
     "pinned memory is ordinary memory for the host, and copies of every device go from and "
     "to it"},
    {"VirtualMemory.*Refus*", "xhal/memory.h (xhal_virtual_reserve and the others)",
     "sizes and addresses are multiples of the granularity, mappings lie inside of the "
     "reservation, and what is mapped is not released"},
    {"VirtualMemory.*", "xhal/memory.h (xhal_virtual_reserve and the others)",
     "a part of a reservation that is mapped is memory, and grows in place"},
    {"Export.*", "xhal/memory.h (xhal_memory_export, xhal_memory_import)",
     "what was allocated as exportable can be imported and is the same memory; everything "
     "else is refused"},
    {"Large.*Fill*", "xhal/stream.h (xhal_stream_fill)",
     "the whole range is filled, of any size, to the last byte and no further"},
    {"Large.*", "xhal/stream.h (xhal_stream_copy)",
     "all bytes are copied, however many, to the last one and no further"},
    {"Core/LargeOperator.*", "xhal/ops.inc, xhal/op.h (xhal_op_launch)",
     "every element is computed, however many there are"},
    {"Threads.*", "xhal/stream.h, xhal/op.h, xhal/context.h (Thread: any)",
     "objects are made and destroyed by any thread, at the same time"},
    {"Stream.*HostCall*", "xhal/stream.h (xhal_stream_host_call)",
     "the callback is called in stream order, exactly once for each accepted call"},
    {"Stream.Submitting*", "xhal/stream.h", "submitting never waits for other work to finish"},
    {"Stream.DestroyingItWaits*", "xhal/plugin.h (stream_destroy)",
     "it returns when the stream's work has run"},
    {"Width/FillPattern.*", "xhal/stream.h (xhal_stream_fill)",
     "the low `pattern_bytes` (1, 2, 4 or 8) of the pattern, repeated"},
    {"Stream.*Refused", "xhal/stream.h (xhal_stream_copy, xhal_stream_fill)",
     "ranges lie inside of one allocation and do not overlap, and a fill is a multiple of its "
     "pattern: anything else is refused before it is queued"},
    {"Stream.*Cop*", "xhal/stream.h (xhal_stream_copy)",
     "the bytes of the source lie at the destination when the stream has come behind the copy"},
    {"Stream.*Recover*", "xhal/stream.h (xhal_stream_recover)",
     "a stream that has not failed stays as it is"},
    {"Stream.Priorities*", "xhal/stream.h (xhal_stream_info.priority)",
     "a priority is a wish: one that the device has not is brought into its range"},
    {"Stream.Synchronize*", "xhal/stream.h (xhal_stream_synchronize)",
     "it returns when everything submitted has run, or TIMEOUT, which changes nothing"},
    {"Stream.*", "xhal/stream.h",
     "what is submitted to a stream runs in that order, also when several threads submit, and "
     "streams do not wait for each other"},
    {"*Dependent*HostCall*", "xhal/stream.h (xhal_stream_host_call)",
     "exactly once for each accepted call: with the stream's failure when it is dropped"},
    {"*Dependent*Recover*", "xhal/stream.h (xhal_stream_recover), xhal/plugin.h (stream_recover)",
     "a failed stream works again, and from now on its own timeline is `fresh`"},
    {"*Dependent*Timelines*", "xhal/plugin.h (stream_signal), xhal/host.h (timeline_fail)",
     "what a failed stream was to signal fails, with DEPENDENCY or the origin's status"},
    {"*Dependent*", "xhal/plugin.h (stream_wait), xhal/stream.h",
     "a stream that waits for a failed value fails with DEPENDENCY and the origin as its "
     "cause, and drops what is behind"},
    {"Failure.*Recover*", "xhal/stream.h (xhal_stream_recover)",
     "a failed stream refuses work until it is recovered; then it works again, with a fresh "
     "timeline, and the old one keeps the failure"},
    {"Failure.*HostCall*", "xhal/stream.h (xhal_stream_host_call)",
     "exactly once for each accepted call: with the stream's failure when it is dropped"},
    {"Failure.*", "xhal/stream.h, xhal/timeline.h",
     "a failure belongs to its stream: what was reached stays reached, what is behind is "
     "dropped, and who waits for it fails with DEPENDENCY"},
    {"OperatorFailure.*", "xhal/stream.h, xhal/host.h (timeline_fail)",
     "an operator that fails when it runs fails its stream, with a record that names the "
     "operation, and nothing else"},
    {"Abort.*", "xhal/stream.h (xhal_stream_abort)",
     "what is queued is dropped and the stream fails; one that has nothing to do, and all "
     "others, stay as they are"},
    {"Timeline.*Stream*", "xhal/timeline.h, xhal/host.h (timeline_advance)",
     "a stream raises its timelines in its order, after the work before; its own is nobody "
     "else's to signal or destroy"},
    {"Timeline.WaitMany*", "xhal/timeline.h (xhal_timeline_wait_many)",
     "all values, or the first that is reached, and which one"},
    {"Timeline.WaitBeforeSignal*", "xhal/timeline.h, xhal/device.h (XHAL_CAP_WAIT_BEFORE_SIGNAL)",
     "a wait may be submitted before its signal, by any thread; without the capability "
     "libxhal holds it back"},
    {"Timeline.Notify*", "xhal/timeline.h (xhal_timeline_notify)",
     "the callback is called once: when the value is reached, at once if it is, or with the "
     "failure"},
    {"Timeline.Eventfd*", "xhal/timeline.h (xhal_timeline_eventfd)",
     "the descriptor becomes readable when the value is reached"},
    {"Timeline.*", "xhal/timeline.h, xhal/host.h (timeline_advance)",
     "a number that only grows; who waits for a value wakes when it is reached, and an "
     "expired wait changes nothing"},
    {"Event.Timed*", "xhal/event.h (xhal_event_elapsed), xhal/host.h (xhal_timestamp)",
     "nanoseconds between two points of a stream, on a clock that runs as the host's does"},
    {"Event.Elapsed*", "xhal/event.h (xhal_event_elapsed)",
     "both events are timed, or it is INVALID_ARGUMENT, and reached, or it is NOT_READY"},
    {"Event.Times*", "xhal/event.h (xhal_event_elapsed), xhal/device.h (XHAL_LIMIT_TIMESTAMP_RING)",
     "a time that the ring has overwritten is EXPIRED; the event itself stays reached"},
    {"Event.*Flags*", "xhal/event.h (xhal_event_record)",
     "a flag that is not known is UNKNOWN_FIELD"},
    {"Event.*", "xhal/event.h (xhal_event_record, xhal_stream_wait_event)",
     "an event is reached when everything that was submitted before it has run, and not "
     "earlier; one that was never recorded counts as reached"},
    {"Pool.*", "xhal/pool.h (xhal_pool_alloc, xhal_pool_free)",
     "a block is its owner's alone until its event or its stream has passed; the pool counts "
     "what is out, and gives back only what is free"},
    {"PoolLimit.*", "xhal/pool.h (xhal_pool_info)",
     "a pool takes no more from its device than its limit"},
    {"Graph.*", "xhal/graph.h",
     "captured work runs when its graph is launched, and only then, as often as it is; what "
     "breaks the rules of a capture is a CAPTURE error"},
    {"Activity.*", "xhal/activity.h",
     "each operation is delivered once, with the correlation id of the thread that submitted "
     "it, to the one receiver"},
    {"Claims.*", "xhal/device.h (XHAL_CAP_*), docs/vendor-guide.md",
     "a device claims only what xHAL knows and what works, and what is promised by the list "
     "holds for the open device"},
    {"Structures.*", "docs/abi-policy.md, xhal/struct_check.hpp",
     "structures are read by their struct_size: too small is STRUCT_SIZE, a tail that is not "
     "known must be zero, and chained structures are known or ignorable"},
    {"Handles.*", "xhal/base.h",
     "what is no live handle of the right kind is refused, never touched"},
    {"Arguments.*", "xhal/base.h, xhal/status.h",
     "a pointer that may not be NULL, or an operator that is not there, is refused with the "
     "status that says so"},
    {"Errors.*", "xhal/status.h (xhal_error)",
     "a failed call leaves a record on its thread, with plugin, operation and text, which "
     "successful calls do not touch"},
    {"Correlation.*", "xhal/activity.h", "correlation ids are a stack of the thread"},
    {"Fork.*", "xhal/init.h",
     "a child of a process with an open device gets FORKED and harms nobody; one of a process "
     "that has only listed devices may use them"},
    {"Shutdown.*", "xhal/init.h (xhal_shutdown), xhal/plugin.h (device_close, shutdown)",
     "it ends every wait, joins every thread of the plugins, and a later xhal_init starts "
     "afresh"},
    {"Leaks.*", "xhal/plugin.h (device_close, stream_destroy, memory_free)",
     "what is destroyed or freed leaves no thread, no descriptor and no memory behind"},
    {"Refusal.OfInputsOfTwoDtypes*", "xhal/ops.inc (types), xhal/op.h (xhal_op_prepare)",
     "within one operator all groups have one dtype unless its prose says otherwise; "
     "INVALID_ARGUMENT"},
    {"Refusal.*Operand*Dtype*", "xhal/status.h (xhal_error.operand), xhal/op.h (xhal_op_prepare)",
     "`operand` is 1 + the index of the operand that was refused"},
    {"Refusal.*Lanes*", "xhal/op.h (xhal_tensor_desc.lanes)",
     "elements have 1 lane: another number is refused, with a text"},
    {"Refusal.*", "xhal/op.h (xhal_op_prepare), xhal/status.h (xhal_error.text)",
     "INVALID_ARGUMENT for what contradicts the catalogue, UNSUPPORTED for what this plugin "
     "cannot, each with a text that says which and why"},
    {"CoreOperators.*Cost*", "xhal/op.h (xhal_op_properties), xhal/ops.inc",
     "flops and bytes of one launch, by the catalogue's cost formula"},
    {"CoreOperators.AQuery*", "xhal/op.h (xhal_op_query)",
     "`needs` has room for `need_capacity` operands, and may be NULL when that is 0"},
    {"CoreOperators.*Scalar*", "xhal/op.h (xhal_scalar)",
     "scalars left out have the catalogue's defaults; one given by address is read in its "
     "dtype, when the operator runs"},
    {"CoreOperators.AxpbyRunsInPlace", "xhal/ops.inc (axpby, alias)",
     "the output may lie where x lies, or where y lies: each element is read before it is "
     "written"},
    {"CoreOperators.AxpbyWithoutY*", "xhal/ops.inc (axpby)", "without y: alpha*x + beta"},
    {"CoreOperators.*Copy*", "xhal/ops.inc (strided_copy, conversion)",
     "the copy converts between any two dtypes it accepts, floats to integers by truncation"},
    {"CoreOperators.IntegersOf64Bits*", "xhal/ops.inc (arithmetic)",
     "integers are computed as i64, never by way of floats"},
    {"CoreOperators.*Dimensions*", "xhal/op.h (XHAL_MAX_DIMENSIONS)",
     "tensors have up to 8 dimensions; more are INVALID_ARGUMENT"},
    {"CoreOperators.*Refused", "xhal/op.h (xhal_op_prepare, xhal_op_launch)",
     "what contradicts the catalogue, in shapes, layouts or the number of addresses, is "
     "refused before it runs"},
    {"CoreOperators.LaunchesOfSeveralThreads*", "xhal/op.h (xhal_op_prepare)",
     "a prepared operator is immutable and shared: launches of several threads do not meet"},
    {"CoreOperators.*", "xhal/op.h (xhal_op_launch, xhal_op_destroy)",
     "a prepared operator is launched many times, on any stream; work already submitted runs "
     "to its end also when it is destroyed"},
    {"Core/CoreOperator.*", "xhal/ops.inc, xhal/op.h (xhal_tensor_desc)",
     "fill, strided_copy and axpby in f32 and i32, over every offset, stride and broadcast"},
    {"Arithmetic.*", "xhal/ops.inc (arithmetic)",
     "integers and bool are computed as i64 and wrap to their width when stored; a scalar is "
     "first converted to what is computed in"},
    {"Conversion.*", "xhal/ops.inc (conversion)",
     "signs and values are kept where the new dtype has them; floats become integers by "
     "truncation and wrap from i64; to a float there is one rounding, to nearest even"},
    {"Dtypes.*", "xhal/ops.inc (types)",
     "a dtype that a group does not list is INVALID_ARGUMENT; one that it lists and the "
     "plugin has not is UNSUPPORTED"},
};

// "gelu/f32/plain" is of the training profile.
const Operator* operator_in(const std::string& test) {
  const auto name = test.substr(0, test.find('/'));
  for (const auto& op : catalogue()) {
    if (op.name == name) return &op;
  }
  return nullptr;
}

}  // namespace

std::string contract_of(const std::string& test) {
  const auto text = [](const std::string& where, const std::string& asks) {
    return fmt::format("the contract, {}: {}", where, asks);
  };
  for (const auto& c : kContracts) {
    if (fnmatch(c.tests, test.c_str(), 0) == 0) return text(c.where, c.asks);
  }
  if (const auto* op = operator_in(test); op != nullptr)
    return text("xhal/ops.inc, " + op->name, op->prose);
  return text("xhal/xhal.h", "what the header of this object says");
}

}  // namespace xhal::cts
