// What a build with CUDA adds. CMake takes with_cuda.cpp or without_cuda.cpp.
#pragma once

#include <memory>
#include <string>

#include "device/device.h"
#include "device/stopwatch.h"
#include "device/timeline.h"
#include "ops/mla_attention.h"
#include "ops/table.h"

namespace lathe {

// Why there is no CUDA device; "" if there is one.
std::string cuda_unavailable();
std::unique_ptr<Device> make_cuda_device_or_refuse();
std::unique_ptr<Stopwatch> make_cuda_stopwatch_or_refuse();
std::unique_ptr<Timeline> make_cuda_timeline_or_refuse(Stream stream);

const ops::Table& cuda_table();
const ops::MlaAttentionBackend& sm90_attention_backend();
const ops::MlaAttentionBackend& cudnn_attention_backend();

}  // namespace lathe
