/* The host's time for one lathe_mla_forward: bench_host_cost liblathe.so
 *
 * 10,000 calls at one sequence of one token and 16 heads, enqueued in batches of 500 with a wait for the stream between
 * batches, outside of the time. Prints one JSON line: the median, over the batches, of nanoseconds a call. The library
 * is loaded by its path, so that a program built elsewhere runs beside any build of it. */
#define _POSIX_C_SOURCE 199309L
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lathe/lathe.h"

enum { kHeads = 16, kNope = 128, kRope = 64, kValue = 128, kBatches = 20, kBatch = 500 };

static void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "bench_host_cost: %s: %s\n", what, cudaGetErrorString(error));
  exit(1);
}

static void* zeros(size_t bytes) {
  void* data = NULL;
  check_cuda(cudaMalloc(&data, bytes), "cudaMalloc");
  check_cuda(cudaMemset(data, 0, bytes), "cudaMemset");
  return data;
}

static void* symbol(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (found) return found;
  fprintf(stderr, "bench_host_cost: %s\n", dlerror());
  exit(1);
}

/* [1, 1, heads, width] */
static lathe_tensor tensor(int64_t heads, int64_t width) {
  lathe_tensor view = {.dtype = LATHE_BF16, .rank = 4};
  const int64_t shape[4] = {1, 1, heads, width};
  const int64_t strides[4] = {heads * width, heads * width, width, 1};
  for (int dim = 0; dim < 4; ++dim) {
    view.shape[dim] = shape[dim];
    view.strides[dim] = strides[dim];
  }
  view.data = zeros((size_t)(heads * width) * 2);
  return view;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: bench_host_cost liblathe.so\n");
    return 2;
  }
  void* library = dlopen(argv[1], RTLD_NOW);
  if (!library) {
    fprintf(stderr, "bench_host_cost: %s\n", dlerror());
    return 1;
  }
  lathe_status (*forward)(const lathe_mla_forward_args*);
  lathe_status (*workspace_size)(const lathe_mla_forward_args*, size_t*);
  const char* (*last_error)(void);
  *(void**)&forward = symbol(library, "lathe_mla_forward");
  *(void**)&workspace_size = symbol(library, "lathe_mla_forward_workspace_size");
  *(void**)&last_error = symbol(library, "lathe_last_error");

  cudaStream_t stream;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  lathe_mla_forward_args args = {
      .q_nope = tensor(kHeads, kNope),
      .q_pe = tensor(kHeads, kRope),
      .k_nope = tensor(kHeads, kNope),
      .k_pe = tensor(1, kRope),
      .v = tensor(kHeads, kValue),
      .o = tensor(kHeads, kValue),
      .lse = {.dtype = LATHE_F32, .rank = 3, .shape = {1, kHeads, 1}, .strides = {kHeads, 1, 1}},
      .softmax_scale = 1 / sqrt(kNope + kRope),
      .causal = 1,
      .device = LATHE_CUDA,
      .stream = stream,
  };
  args.lse.data = zeros(kHeads * sizeof(float));
  if (workspace_size(&args, &args.workspace_size) != LATHE_STATUS_SUCCESS) {
    fprintf(stderr, "bench_host_cost: %s\n", last_error());
    return 1;
  }
  if (args.workspace_size > 0) args.workspace = zeros(args.workspace_size);
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");

  double each[kBatches];
  for (int batch = -1; batch < kBatches; ++batch) { /* the first warms up */
    const double start = now();
    for (int call = 0; call < kBatch; ++call) {
      if (forward(&args) == LATHE_STATUS_SUCCESS) continue;
      fprintf(stderr, "bench_host_cost: %s\n", last_error());
      return 1;
    }
    if (batch >= 0) each[batch] = (now() - start) / kBatch;
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }
  qsort(each, kBatches, sizeof(each[0]), ascending);
  printf(
      "{\"bench\": \"host_cost\", \"call\": \"lathe_mla_forward\", \"calls\": %d, \"median_ns\": %.0f, "
      "\"min_ns\": %.0f, \"max_ns\": %.0f}\n",
      kBatches * kBatch, (each[kBatches / 2 - 1] + each[kBatches / 2]) / 2, each[0], each[kBatches - 1]);
  return 0;
}
