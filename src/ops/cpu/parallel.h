// How the CPU ops share work: rows are cut by fixed rules, so that no result depends on the number of threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/tensor_view.h"

namespace lathe::ops::cpu {

// Calls body(begin, end) for chunks of at most `chunk` rows of [0, count), on all threads. Each chunk is run by one
// thread.
template <typename Body>
void for_chunks(std::int64_t count, std::int64_t chunk, Body&& body) {
  const std::int64_t chunks = (count + chunk - 1) / chunk;
  if (chunks <= 1 || omp_in_parallel() != 0) {
    for (std::int64_t i = 0; i < chunks; ++i) body(i * chunk, std::min(count, (i + 1) * chunk));
    return;
  }
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < chunks; ++i) body(i * chunk, std::min(count, (i + 1) * chunk));
}

// Calls body.template operator()<float>() or <double>() by the dtype.
template <typename Body>
void for_dtype(const TensorView& tensor, Body&& body) {
  if (tensor.dtype == DType::f64)
    body.template operator()<double>();
  else if (tensor.dtype == DType::f32)
    body.template operator()<float>();
  else
    fail("the CPU has fp32 and fp64 ops, not for {}", tensor.describe());
}

}  // namespace lathe::ops::cpu
