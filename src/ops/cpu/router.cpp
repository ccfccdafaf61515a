#include "ops/router.h"

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/simd.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kRowsPerChunk = 64;

template <typename T>
void softmax(const T* x, std::int64_t count, T* out) {
  T largest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : largest)
  for (std::int64_t i = 0; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    const T value = fast_exp(x[i] - largest);
    out[i] = value;
    sum += value;
  }
  const T scale = T(1) / sum;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) out[i] *= scale;
}

// The `k` largest of the candidates offered so far, in falling order; of equal ones the first offered stays ahead.
// Comparisons with NaN are false: such candidates fill free places in the order offered, so the indices stay valid.
template <typename T>
class TopK {
 public:
  explicit TopK(std::int64_t k) : values_(static_cast<std::size_t>(k)), indices_(static_cast<std::size_t>(k)) {}

  void clear() { size_ = 0; }
  std::span<const std::int32_t> indices() const { return {indices_.data(), size_}; }

  void offer(T value, std::int64_t index) {
    if (size_ == values_.size() && !(value > values_[size_ - 1])) return;
    std::size_t place = size_ < values_.size() ? size_++ : size_ - 1;
    for (; place > 0 && value > values_[place - 1]; --place) {
      values_[place] = values_[place - 1];
      indices_[place] = indices_[place - 1];
    }
    values_[place] = value;
    indices_[place] = static_cast<std::int32_t>(index);
  }

 private:
  std::vector<T> values_;
  std::vector<std::int32_t> indices_;
  std::size_t size_ = 0;
};

// Chooses the experts of one row after another; holds the lists that it needs meanwhile.
template <typename T>
class Chooser {
 public:
  Chooser(const RouterForward& op, std::int64_t num_experts, std::int64_t k)
      : num_experts_(num_experts),
        num_groups_(op.method == TopkMethod::group_limited_greedy ? op.num_groups : 0),
        experts_(k),
        groups_(num_groups_ > 0 ? op.topk_group : 0),
        open_(static_cast<std::size_t>(num_groups_)) {}

  std::span<const std::int32_t> choose(const T* scores) {
    experts_.clear();
    if (num_groups_ > 0)
      offer_best_groups(scores);
    else
      offer(scores, 0, num_experts_);
    return experts_.indices();
  }

 private:
  void offer(const T* scores, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) experts_.offer(scores[i], i);
  }

  // Experts of other groups count as 0. They are never offered: with scores that underflow to 0 an open group's expert
  // goes first.
  void offer_best_groups(const T* scores) {
    groups_.clear();
    const std::int64_t group_size = num_experts_ / num_groups_;
    for (std::int64_t group = 0; group < num_groups_; ++group) {
      const T* first = scores + group * group_size;
      T largest = first[0];
      for (std::int64_t i = 1; i < group_size; ++i) largest = first[i] > largest ? first[i] : largest;
      groups_.offer(largest, group);
    }
    std::fill(open_.begin(), open_.end(), false);
    for (const std::int32_t group : groups_.indices()) open_[static_cast<std::size_t>(group)] = true;
    for (std::int64_t group = 0; group < num_groups_; ++group)
      if (open_[static_cast<std::size_t>(group)]) offer(scores, group * group_size, (group + 1) * group_size);
  }

  std::int64_t num_experts_;
  std::int64_t num_groups_;  // 0: greedy
  TopK<T> experts_;
  TopK<T> groups_;
  std::vector<bool> open_;
};

constexpr double kNormalizeEps = 1e-20;  // as DeepSeek's own code: keeps 0 / 0 out

template <typename T>
T sum_of_chosen(const T* scores, const std::int32_t* indices, std::int64_t k) {
  T sum = static_cast<T>(kNormalizeEps);
  for (std::int64_t j = 0; j < k; ++j) sum += scores[indices[j]];
  return sum;
}

template <typename T>
void forward_rows(const RouterForward& op, std::int64_t begin, std::int64_t end) {
  const std::int64_t num_experts = op.logits.shape[1];
  const std::int64_t k = op.indices.shape[1];
  Chooser<T> chooser(op, num_experts, k);
  for (std::int64_t t = begin; t < end; ++t) {
    T* scores = op.scores.as<T>() + t * op.scores.strides[0];
    std::int32_t* indices = op.indices.as<std::int32_t>() + t * op.indices.strides[0];
    T* weights = op.weights.as<T>() + t * op.weights.strides[0];
    softmax(op.logits.as<T>() + t * op.logits.strides[0], num_experts, scores);
    if (op.force_balanced) {
      for (std::int64_t j = 0; j < k; ++j) indices[j] = static_cast<std::int32_t>((t * k + j) % num_experts);
    } else {
      const auto chosen = chooser.choose(scores);
      std::copy(chosen.begin(), chosen.end(), indices);
    }
    const T scale = op.normalize ? T(1) / sum_of_chosen(scores, indices, k) : static_cast<T>(op.scaling_factor);
    for (std::int64_t j = 0; j < k; ++j) weights[j] = scores[indices[j]] * scale;
  }
}

// dscore[t, i] of the weights: w_j = p_j * factor, or p_j / (sum of the chosen p + eps).
template <typename T>
void add_weight_gradient(const RouterBackward& op, const T* scores, const std::int32_t* indices, const T* dweights,
                         std::int64_t k, T* dscores) {
  if (!op.normalize) {
    for (std::int64_t j = 0; j < k; ++j) dscores[indices[j]] += dweights[j] * static_cast<T>(op.scaling_factor);
    return;
  }
  const T scale = T(1) / sum_of_chosen(scores, indices, k);
  T dot = 0;
  for (std::int64_t j = 0; j < k; ++j) dot += dweights[j] * scores[indices[j]] * scale;
  for (std::int64_t j = 0; j < k; ++j) dscores[indices[j]] += (dweights[j] - dot) * scale;
}

template <typename T>
void backward_rows(const RouterBackward& op, std::int64_t begin, std::int64_t end) {
  const std::int64_t num_experts = op.scores.shape[1];
  const std::int64_t k = op.indices.shape[1];
  const std::int64_t rows_per_scope = op.dscores ? op.scores.shape[0] / op.dscores.shape[0] : 1;
  std::vector<T> dscores_row(static_cast<std::size_t>(num_experts));
  T* dscores = dscores_row.data();
  for (std::int64_t t = begin; t < end; ++t) {
    const T* scores = op.scores.as<T>() + t * op.scores.strides[0];
    if (op.dscores) {
      const T* balance = op.dscores.as<T>() + t / rows_per_scope * op.dscores.strides[0];
      std::copy(balance, balance + num_experts, dscores);
    } else {
      std::fill(dscores_row.begin(), dscores_row.end(), T(0));
    }
    add_weight_gradient(op, scores, op.indices.as<std::int32_t>() + t * op.indices.strides[0],
                        op.dweights.as<T>() + t * op.dweights.strides[0], k, dscores);
    T dot = 0;
#pragma omp simd reduction(+ : dot)
    for (std::int64_t i = 0; i < num_experts; ++i) dot += scores[i] * dscores[i];
    T* dlogits = op.dlogits.as<T>() + t * op.dlogits.strides[0];
#pragma omp simd
    for (std::int64_t i = 0; i < num_experts; ++i) dlogits[i] = scores[i] * (dscores[i] - dot);
  }
}

}  // namespace

void router_forward(const Context&, const RouterForward& op) {
  for_dtype(op.logits, [&]<typename T>() {
    for_chunks(op.logits.shape[0], kRowsPerChunk,
               [&](std::int64_t begin, std::int64_t end) { forward_rows<T>(op, begin, end); });
  });
}

void router_backward(const Context&, const RouterBackward& op) {
  for_dtype(op.scores, [&]<typename T>() {
    for_chunks(op.scores.shape[0], kRowsPerChunk,
               [&](std::int64_t begin, std::int64_t end) { backward_rows<T>(op, begin, end); });
  });
}

}  // namespace lathe::ops::cpu
