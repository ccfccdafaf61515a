/* Lathe's C interface: multi-head latent attention (MLA) on split inputs, where they lie.
 *
 *   scores = softmax_scale * (q_nope k_nope^T + q_pe k_pe^T),  o = softmax(scores) v,  lse = log(sum(exp(scores)))
 *
 * k_pe is one head that all heads share (DeepSeek-V2, arXiv:2405.04434). Nothing is concatenated, expanded or made
 * contiguous; no function throws, allocates device memory or waits for the device, and each may be captured in a CUDA
 * graph. All functions may be called from any thread, but those that share a workspace by one thread at a time. They
 * work on CUDA's current device, where the tensors must lie. */
#ifndef LATHE_LATHE_H
#define LATHE_LATHE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define LATHE_API __attribute__((visibility("default")))
#else
#define LATHE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lathe_status {
  LATHE_STATUS_SUCCESS = 0,
  LATHE_STATUS_INVALID_ARGUMENT = 1, /* sizes, strides, dtypes or pointers that clash; nothing was launched */
  LATHE_STATUS_UNSUPPORTED = 2,      /* a valid call that no backend, or not the one asked for, can compute */
  LATHE_STATUS_OUT_OF_MEMORY = 3,    /* of the host */
  LATHE_STATUS_DEVICE_ERROR = 4,     /* the CUDA driver or runtime reported an error */
  LATHE_STATUS_INTERNAL_ERROR = 5
} lathe_status;

typedef enum lathe_dtype { LATHE_F32 = 0, LATHE_F64 = 1, LATHE_BF16 = 2, LATHE_I32 = 3 } lathe_dtype;

typedef enum lathe_device { LATHE_CPU = 0, LATHE_CUDA = 1 } lathe_device;

/* A view: pointer, dtype, shape, strides in elements; the last stride is 1. An optional tensor that is not given is all
 * zeros. sm90 also asks for pointers and strides that are multiples of 16 bytes; others are
 * LATHE_STATUS_INVALID_ARGUMENT at the call. */
typedef struct lathe_tensor {
  void* data;
  lathe_dtype dtype;
  int32_t rank;
  int64_t shape[4];
  int64_t strides[4];
} lathe_tensor;

/* Dense: q_nope, q_pe [b, s_q, h, .], k_nope, v [b, s_k, h, .], k_pe [b, s_k, 1, .], o [b, s_q, h, .], lse [b, h, s_q].
 * Packed (cu_seqlens given): the same without b, over the total of all sequences; lse [h, total_q].
 * lse is fp32 (fp64 for fp64 inputs), the natural logarithm. Causal is aligned to the end: query i sees the keys
 * j <= i + s_k - s_q. A row that sees no key has o = 0 and lse = -inf. */
typedef struct lathe_mla_forward_args {
  lathe_tensor q_nope;
  lathe_tensor q_pe;
  lathe_tensor k_nope;
  lathe_tensor k_pe;
  lathe_tensor v;
  lathe_tensor o;            /* written */
  lathe_tensor lse;          /* written */
  lathe_tensor cu_seqlens_q; /* [n + 1] i32, from 0, ascending, or none */
  lathe_tensor cu_seqlens_k;
  double softmax_scale;
  int32_t causal;      /* 0 or 1 */
  lathe_device device; /* where every tensor lies */
  const char* backend; /* "auto" (as NULL), "cpu", "sm90" or "cudnn" */
  /* Device memory, 256-byte aligned, of at least lathe_mla_forward_workspace_size bytes. Zero before its first use;
   * every call leaves it so that the next may follow on the same stream. Two calls that may run at the same time need
   * two workspaces. */
  void* workspace;
  size_t workspace_size;
  void* stream;             /* a cudaStream_t; ignored on the CPU */
  uint64_t* clock_counters; /* benchmarks: two words of device memory to which the kernel adds the SM cycles and the
                               nanoseconds that it took; else NULL */
} lathe_mla_forward_args;

/* The gradients of the forward's five inputs, for given do and, if given, dlse. dk_pe is summed over the heads. */
typedef struct lathe_mla_backward_args {
  lathe_tensor q_nope;
  lathe_tensor q_pe;
  lathe_tensor k_nope;
  lathe_tensor k_pe;
  lathe_tensor v;
  lathe_tensor o; /* the forward's results */
  lathe_tensor lse;
  lathe_tensor do_;     /* [b, s_q, h, .], as o */
  lathe_tensor dlse;    /* as lse, or none */
  lathe_tensor dq_nope; /* written, shapes of their inputs */
  lathe_tensor dq_pe;
  lathe_tensor dk_nope;
  lathe_tensor dk_pe;
  lathe_tensor dv;
  lathe_tensor cu_seqlens_q;
  lathe_tensor cu_seqlens_k;
  double softmax_scale;
  int32_t causal;
  int32_t deterministic; /* 1: equal bits in every run */
  lathe_device device;
  const char* backend;
  void* workspace; /* as the forward's; one may serve both passes */
  size_t workspace_size;
  void* stream;
  uint64_t* clock_counters;
} lathe_mla_backward_args;

/* Runs on `stream`, which must belong to the calling thread's current device. On the CPU it has finished when it
 * returns, and each calling thread keeps the scratch memory that it needed until the thread ends. */
LATHE_API lathe_status lathe_mla_forward(const lathe_mla_forward_args* args);
LATHE_API lathe_status lathe_mla_backward(const lathe_mla_backward_args* args);

/* Bytes of workspace that the call needs; workspace, stream and, for tensors, data are not looked at. */
LATHE_API lathe_status lathe_mla_forward_workspace_size(const lathe_mla_forward_args* args, size_t* size);
LATHE_API lathe_status lathe_mla_backward_workspace_size(const lathe_mla_backward_args* args, size_t* size);

/* The backend that the call, and its backward, would run on and why; or LATHE_STATUS_UNSUPPORTED with *name = "none"
 * and what each backend lacks; or another status with "none" and "". Looks at as little as the workspace sizes do. The
 * strings live until this thread's next call of this function. */
LATHE_API lathe_status lathe_mla_backend(const lathe_mla_forward_args* args, const char** name, const char** reason);

/* "LATHE_STATUS_SUCCESS", ... */
LATHE_API const char* lathe_status_string(lathe_status status);
/* What this thread's last call that failed had to say, with the values that clashed; "" if none failed. */
LATHE_API const char* lathe_last_error(void);
/* "0.1.0" */
LATHE_API const char* lathe_version(void);

#ifdef __cplusplus
}
#endif

#endif
