/* The host's time for one lathe_mla_forward: bench_host_cost liblathe.so
 *
 * 10,000 calls at one sequence of one token and 16 heads, enqueued 16 at a time with a wait for the stream between,
 * outside of the time: so the queue is never full and the GPU's time is not counted. Then the same with no queries,
 * which is everything but the tensor maps and the launch. Prints one JSON line: medians of nanoseconds a call. The
 * library is loaded by its path, so that a program built elsewhere runs beside any build of it. */
#define _POSIX_C_SOURCE 199309L
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lathe/lathe.h"

enum { kHeads = 16, kNope = 128, kRope = 64, kValue = 128, kBatches = 625, kBatch = 16 };

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

typedef lathe_status (*forward_function)(const lathe_mla_forward_args*);

static double median_ns(forward_function forward, const char* (*last_error)(void), const lathe_mla_forward_args* args,
                        cudaStream_t stream) {
  static double each[kBatches];
  for (int batch = -1; batch < kBatches; ++batch) { /* the first warms up */
    const double start = now();
    for (int call = 0; call < kBatch; ++call) {
      if (forward(args) == LATHE_STATUS_SUCCESS) continue;
      fprintf(stderr, "bench_host_cost: %s\n", last_error());
      exit(1);
    }
    if (batch >= 0) each[batch] = (now() - start) / kBatch;
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }
  qsort(each, kBatches, sizeof(each[0]), ascending);
  return each[kBatches / 2];
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
  forward_function forward;
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

  const double call_ns = median_ns(forward, last_error, &args, stream);
  args.q_nope.shape[1] = args.q_pe.shape[1] = args.o.shape[1] = args.lse.shape[2] = 0;
  const double empty_ns = median_ns(forward, last_error, &args, stream);
  printf(
      "{\"bench\": \"host_cost\", \"call\": \"lathe_mla_forward\", \"calls\": %d, \"median_ns\": %.0f, "
      "\"without_launch_ns\": %.0f}\n",
      kBatches * kBatch, call_ns, empty_ns);
  return 0;
}
