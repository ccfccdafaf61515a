// Attention of any head sizes, a block a query: the keys pass by in tiles, with a running maximum and sum (online
// softmax). For small models and for checks; the fast kernels are in mla_sm90.
#include "ops/cuda/mla_attention_row.cuh"
#include "ops/cuda/reduce.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = kAttentionThreads;

template <typename T>
__global__ void __launch_bounds__(kThreads) forward(AttentionParams params) {
  extern __shared__ float shared[];
  float* q = shared;
  float* sums = q + params.nope + params.rope;  // [value], not yet divided by the sum of the exponentials
  float* weights = sums + params.value;         // [kThreads]
  const AttentionRow row = find_row<true>(params, blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  load_row(params.q_nope.at<const T>(row.batch, row.token, head), params.nope, q);
  load_row(params.q_pe.at<const T>(row.batch, row.token, head), params.rope, q + params.nope);
  clear_row(sums, params.value);
  __syncthreads();

  const std::int64_t visible = row.visible(row.index, params.causal);
  float most = -INFINITY, total = 0;
  for (std::int64_t first = 0; first < visible; first += kThreads) {
    const int keys = static_cast<int>(min(static_cast<std::int64_t>(kThreads), visible - first));
    float score = -INFINITY;
    if (static_cast<int>(threadIdx.x) < keys) {
      const std::int64_t token = row.k_begin + first + threadIdx.x;
      score = params.scale * (dot(q, params.k_nope.at<const T>(row.batch, token, head), params.nope) +
                              dot(q + params.nope, params.k_pe.at<const T>(row.batch, token, 0), params.rope));
    }
    const float larger = fmaxf(most, block_max(score));
    const float origin = larger == -INFINITY ? 0.f : larger;  // exp(-inf - 0) = 0
    const float factor = expf(most - origin);
    const float weight = expf(score - origin);
    most = larger;
    total = total * factor + block_sum(weight);
    weights[threadIdx.x] = weight;
    for (int i = static_cast<int>(threadIdx.x); i < params.value; i += kThreads) sums[i] *= factor;
    __syncthreads();
    add_rows(
        weights, keys, [&](int j) { return params.v.at<const T>(row.batch, row.k_begin + first + j, head); },
        params.value, sums);
    __syncthreads();
  }
  const bool empty = total == 0;  // no key seen, or none with a score above -inf
  for (int i = static_cast<int>(threadIdx.x); i < params.value; i += kThreads)
    params.out.at<T>(row.batch, row.token, head)[i] = from_float<T>(empty ? 0.f : sums[i] / total);
  if (threadIdx.x == 0) *params.lse.at<float>(row.batch, row.token, head) = empty ? -INFINITY : most + logf(total);
}

}  // namespace

cudaError_t launch_attention_forward(const AttentionParams& params, cudaStream_t stream) {
  const std::int64_t rows = params.cu_seqlens_q == nullptr ? params.sequences * params.s_q : params.s_q;
  if (rows == 0 || params.heads == 0 || params.sequences == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(params.heads));
  const std::size_t shared =
      sizeof(float) * static_cast<std::size_t>(params.nope + params.rope + params.value + kThreads);
  return with_element(params.element, [&]<typename T>() {
    forward<T><<<grid, kThreads, shared, stream>>>(params);
    return cudaGetLastError();
  });
}

}  // namespace lathe::ops::cuda
