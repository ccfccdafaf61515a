// The gradients of the plain attention. Probabilities are made again from lse, once by query for dq and once by key for
// dk and dv: twice the work, and no sum that other blocks add to.
#include "ops/cuda/mla_attention_row.cuh"
#include "ops/cuda/reduce.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = kAttentionThreads;

// delta = sum(dout * out) - dlse of each query and head.
template <typename T>
__global__ void __launch_bounds__(kThreads) make_delta(AttentionParams params) {
  const AttentionRow row = find_row<true>(params, blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const T* out = params.out.at<const T>(row.batch, row.token, head);
  const T* dout = params.dout.at<const T>(row.batch, row.token, head);
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < params.value; i += kThreads)
    sum += to_float(out[i]) * to_float(dout[i]);
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  if (params.dlse.data != nullptr) sum -= *params.dlse.at<const float>(row.batch, row.token, head);
  params.delta[static_cast<std::int64_t>(blockIdx.x) * params.heads + head] = sum;
}

// What a score's gradient is made of: exp(score - lse), 0 for a query that saw no key.
__device__ __forceinline__ float probability(float score, float lse) {
  return lse == -INFINITY ? 0.f : expf(score - lse);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) query_gradients(AttentionParams params) {
  extern __shared__ float shared[];
  const int width = params.nope + params.rope;
  float* q = shared;
  float* dq = q + width;
  float* dout = dq + width;
  float* dscores = dout + params.value;  // [kThreads]
  const AttentionRow row = find_row<true>(params, blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  load_row(params.q_nope.at<const T>(row.batch, row.token, head), params.nope, q);
  load_row(params.q_pe.at<const T>(row.batch, row.token, head), params.rope, q + params.nope);
  load_row(params.dout.at<const T>(row.batch, row.token, head), params.value, dout);
  clear_row(dq, width);
  __syncthreads();

  const float lse = *params.lse.at<const float>(row.batch, row.token, head);
  const float delta = params.delta[static_cast<std::int64_t>(blockIdx.x) * params.heads + head];
  const std::int64_t visible = row.visible(row.index, params.causal);
  for (std::int64_t first = 0; first < visible; first += kThreads) {
    const int keys = static_cast<int>(min(static_cast<std::int64_t>(kThreads), visible - first));
    const auto k_nope = [&](int j) { return params.k_nope.at<const T>(row.batch, row.k_begin + first + j, head); };
    const auto k_pe = [&](int j) { return params.k_pe.at<const T>(row.batch, row.k_begin + first + j, 0); };
    const int mine = static_cast<int>(threadIdx.x);
    if (mine < keys) {
      const float score =
          params.scale * (dot(q, k_nope(mine), params.nope) + dot(q + params.nope, k_pe(mine), params.rope));
      const float dweight = dot(dout, params.v.at<const T>(row.batch, row.k_begin + first + mine, head), params.value);
      dscores[mine] = probability(score, lse) * (dweight - delta) * params.scale;
    }
    __syncthreads();
    add_rows(dscores, keys, k_nope, params.nope, dq);
    add_rows(dscores, keys, k_pe, params.rope, dq + params.nope);
    __syncthreads();
  }
  store_row(dq, params.nope, params.dq_nope.at<T>(row.batch, row.token, head));
  store_row(dq + params.nope, params.rope, params.dq_pe.at<T>(row.batch, row.token, head));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) key_gradients(AttentionParams params) {
  extern __shared__ float shared[];
  const int width = params.nope + params.rope;
  float* k = shared;
  float* dk = k + width;
  float* v = dk + width;
  float* dv = v + params.value;
  float* weights = dv + params.value;   // [kThreads]
  float* dscores = weights + kThreads;  // [kThreads]
  const AttentionRow row = find_row<false>(params, blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  load_row(params.k_nope.at<const T>(row.batch, row.token, head), params.nope, k);
  load_row(params.k_pe.at<const T>(row.batch, row.token, 0), params.rope, k + params.nope);
  load_row(params.v.at<const T>(row.batch, row.token, head), params.value, v);
  clear_row(dk, width);
  clear_row(dv, params.value);
  __syncthreads();

  for (std::int64_t first = row.first_query(row.index, params.causal); first < row.q_count; first += kThreads) {
    const int queries = static_cast<int>(min(static_cast<std::int64_t>(kThreads), row.q_count - first));
    const auto token = [&](int j) { return row.q_begin + first + j; };
    const auto q_nope = [&](int j) { return params.q_nope.at<const T>(row.batch, token(j), head); };
    const auto q_pe = [&](int j) { return params.q_pe.at<const T>(row.batch, token(j), head); };
    const auto dout = [&](int j) { return params.dout.at<const T>(row.batch, token(j), head); };
    const int mine = static_cast<int>(threadIdx.x);
    if (mine < queries) {
      const float score =
          params.scale * (dot(k, q_nope(mine), params.nope) + dot(k + params.nope, q_pe(mine), params.rope));
      const float weight = probability(score, *params.lse.at<const float>(row.batch, token(mine), head));
      const std::int64_t query = row.batch * params.s_q + token(mine);
      const float delta = params.delta[query * params.heads + head];
      weights[mine] = weight;
      dscores[mine] = weight * (dot(v, dout(mine), params.value) - delta) * params.scale;
    }
    __syncthreads();
    add_rows(weights, queries, dout, params.value, dv);
    add_rows(dscores, queries, q_nope, params.nope, dk);
    add_rows(dscores, queries, q_pe, params.rope, dk + params.nope);
    __syncthreads();
  }
  store_row(dk, params.nope, params.dk_nope.at<T>(row.batch, row.token, head));
  store_row(dv, params.value, params.dv.at<T>(row.batch, row.token, head));
  store_row(dk + params.nope, params.rope,
            params.dk_pe_parts + (static_cast<std::int64_t>(blockIdx.x) * params.heads + head) * params.rope);
}

// dk_pe: the parts of all heads, in their order.
template <typename T>
__global__ void __launch_bounds__(kThreads) add_heads(AttentionParams params) {
  const AttentionRow row = find_row<false>(params, blockIdx.x);
  const float* parts = params.dk_pe_parts + static_cast<std::int64_t>(blockIdx.x) * params.heads * params.rope;
  for (int i = static_cast<int>(threadIdx.x); i < params.rope; i += kThreads) {
    float sum = 0;
    for (int head = 0; head < params.heads; ++head) sum += parts[head * params.rope + i];
    params.dk_pe.at<T>(row.batch, row.token, 0)[i] = from_float<T>(sum);
  }
}

std::size_t bytes(int floats) { return sizeof(float) * static_cast<std::size_t>(floats); }

}  // namespace

cudaError_t launch_attention_backward(const AttentionParams& params, cudaStream_t stream) {
  if (params.sequences == 0 || params.heads == 0) return cudaSuccess;
  const bool packed = params.cu_seqlens_q != nullptr;
  const auto q_rows = static_cast<unsigned>(packed ? params.s_q : params.sequences * params.s_q);
  const auto k_rows = static_cast<unsigned>(packed ? params.s_k : params.sequences * params.s_k);
  const auto heads = static_cast<unsigned>(params.heads);
  const int width = params.nope + params.rope;
  return with_element(params.element, [&]<typename T>() {
    if (q_rows > 0) {
      make_delta<T><<<dim3(q_rows, heads), kThreads, 0, stream>>>(params);
      query_gradients<T><<<dim3(q_rows, heads), kThreads, bytes(2 * width + params.value + kThreads), stream>>>(params);
    }
    if (k_rows > 0) {
      key_gradients<T>
          <<<dim3(k_rows, heads), kThreads, bytes(2 * width + 2 * params.value + 2 * kThreads), stream>>>(params);
      add_heads<T><<<k_rows, kThreads, 0, stream>>>(params);
    }
    return cudaGetLastError();
  });
}

}  // namespace lathe::ops::cuda
