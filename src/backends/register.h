// Which implementations this build holds: the one place that joins ops and their implementations.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "device/device.h"
#include "device/stopwatch.h"
#include "device/timeline.h"
#include "ops/mla_attention.h"
#include "ops/table.h"

namespace lathe {

// Why this build on this machine has no device of the kind; "" if it has one.
std::string device_unavailable(DeviceKind kind);

// Device 0 of the kind. Throws InputError with the reason where there is none.
std::unique_ptr<Device> make_device(DeviceKind kind);

// One for work on the device that make_device made last; throws as it does.
std::unique_ptr<Stopwatch> make_stopwatch(DeviceKind kind);

// The same for the work of a stream.
std::unique_ptr<Timeline> make_timeline(DeviceKind kind, Stream stream);

// The op table of a device; lives as long as the program.
const ops::Table& op_table(DeviceKind kind);

// Every attention backend that Lathe knows of; one that this build lacks says so when asked.
std::span<const ops::MlaAttentionBackend> attention_backends();

struct AttentionChoice {
  const ops::MlaAttentionBackend* backend = nullptr;  // none: nothing supports the call
  std::string reason;                                 // why this one, or what each lacks
};

// The backend of that name, or for "auto" the first in the list that supports the call; null if none does.
// Throws InputError for a name that does not exist. Allocates nothing where it finds one.
const ops::MlaAttentionBackend* find_attention_backend(std::string_view name, const ops::MlaAttentionProblem& problem);

// The same with its reason.
AttentionChoice choose_attention_backend(std::string_view name, const ops::MlaAttentionProblem& problem);

}  // namespace lathe
