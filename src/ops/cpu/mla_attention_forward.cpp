// The forward: for a block of query rows, keys pass by in tiles; each row keeps its maximum and its sum so far (online
// softmax, Milakov and Gimelshein, 2018).
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/mla_attention_problem.h"
#include "ops/cpu/mla_attention_tiles.h"
#include "ops/mla_attention.h"

namespace lathe::ops::cpu {
namespace {

template <typename T>
constexpr T kMinusInfinity = -std::numeric_limits<T>::infinity();

// Rows that pass over the keys together: the keys are packed once for all of them, and what is kept for each row fits
// the second-level cache.
constexpr std::int64_t kMaxRows = 256;
constexpr std::int64_t kMaxBytes = 512 * 1024;

template <typename T>
struct Buffers {
  Tile<T> q;              // [rows, dn + dr]
  Tile<T> out;            // [rows, dv], not yet divided by the sum
  Tile<T> sum;            // [rows, kLanes]: the sum of exp(score - maximum), a part in each lane
  T* maximum;             // [rows]
  std::int64_t* visible;  // [rows]
  Tile<T> k, k_columns;   // [keys, dn + dr] and transposed
  Tile<T> v;              // [keys, dv]
  Tile<T> scores;         // [kTileQueries, keys]
};

template <typename T>
std::int64_t rows_per_task(const AttentionProblem& problem) {
  const std::int64_t bytes =
      (padded<T>(problem.qk()) + padded<T>(problem.dv) + kLanes<T>)*static_cast<std::int64_t>(sizeof(T));
  return std::clamp(kMaxBytes / bytes / kTileQueries * kTileQueries, std::int64_t{kTileQueries}, kMaxRows);
}

template <typename T>
Buffers<T> carve(Carver& carver, const AttentionProblem& problem, std::int64_t rows) {
  const std::int64_t qk = padded<T>(problem.qk());
  const std::int64_t dv = padded<T>(problem.dv);
  const auto tile = [&](std::int64_t count, std::int64_t stride) {
    return Tile<T>{carver.take<T>(count * stride), stride};
  };
  Buffers<T> buffers;
  buffers.q = tile(rows, qk);
  buffers.out = tile(rows, dv);
  buffers.sum = tile(rows, kLanes<T>);
  buffers.maximum = carver.take<T>(rows);
  buffers.visible = carver.take<std::int64_t>(rows);
  buffers.k = tile(kTileKeys, qk);
  buffers.k_columns = tile(qk, kTileKeys);
  buffers.v = tile(kTileKeys, dv);
  buffers.scores = tile(kTileQueries, kTileKeys);
  return buffers;
}

// Rows [row_begin, row_begin + rows) of the heads [head, head + heads) of a sequence, which share their keys: row r is
// query r / heads of head `head` + r % heads.
struct Task {
  const Sequence* sequence;
  std::int64_t head;
  std::int64_t row_begin;
  std::int64_t rows;
};

// One row of a tile: `scores` become exp(score - maximum), and what the row had so far is scaled to the new maximum.
template <typename T>
inline void softmax_row(T* scores, int count, T& maximum, T* sum, T* out, int out_vectors) {
  const int width = vectors<T>(count) * kLanes<T>;
  for (int j = count; j < width; ++j) scores[j] = kMinusInfinity<T>;
  Vector<T> tops = load(scores);
  for (int j = kLanes<T>; j < width; j += kLanes<T>) tops = larger<T>(load(scores + j), tops);
  const T top = std::max(maximum, largest_lane<T>(tops));
  // Where every score is -inf so far, exp(score - 0) = 0.
  const T origin = top == kMinusInfinity<T> ? T{0} : top;
  if (top != maximum) {
    const T factor = fast_exp(maximum - origin);
    store<T>(sum, load(sum) * factor);
    for (int v = 0; v < out_vectors; ++v) store<T>(out + v * kLanes<T>, load(out + v * kLanes<T>) * factor);
    maximum = top;
  }
  Vector<T> added = load(sum);
  for (int j = 0; j < width; j += kLanes<T>) {
#pragma omp simd
    for (int lane = 0; lane < kLanes<T>; ++lane) scores[j + lane] = fast_exp_flushed(scores[j + lane] - origin);
    added += load(scores + j);
  }
  store<T>(sum, added);
}

template <typename T>
void softmax_rows(const TileMask& mask, Tile<T> scores, T* maximum, Tile<T> sum, Tile<T> out, int out_vectors) {
  for (int r = 0; r < mask.queries(); ++r) {
    const int count = mask.count(r);
    if (count > 0) softmax_row(scores.row(r), count, maximum[r], sum.row(r), out.row(r), out_vectors);
    std::fill(scores.row(r) + count, scores.row(r) + kTileKeys, T{0});
  }
}

template <typename IO>
class Forward {
 public:
  using T = ComputeType<IO>;

  Forward(const MlaAttentionForward& op, const AttentionProblem& problem, bool shared_heads)
      : problem_(problem),
        heads_(shared_heads ? problem.h : 1),
        q_nope_(rows_of<const IO>(op.q_nope)),
        q_pe_(rows_of<const IO>(op.q_pe)),
        k_nope_(rows_of<const IO>(op.k_nope)),
        k_pe_(rows_of<const IO>(op.k_pe)),
        v_(rows_of<const IO>(op.v)),
        out_(rows_of<IO>(op.out)),
        lse_(stats_of<T>(op.lse)) {}

  void run(Arena& scratch) const {
    const std::int64_t rows = rows_per_task<T>(problem_);
    std::vector<Task> tasks;
    for (const Sequence& sequence : problem_.sequences)
      for (std::int64_t head = 0; head < problem_.h; head += heads_)
        for (std::int64_t begin = 0; begin < sequence.q_len * heads_; begin += rows)
          tasks.push_back({&sequence, head, begin, std::min(rows, sequence.q_len * heads_ - begin)});
    for_tasks(
        scratch, static_cast<std::int64_t>(tasks.size()),
        [&](Carver& carver) { return carve<T>(carver, problem_, rows); },
        [&](std::int64_t task, const Buffers<T>& buffers) {
          run_task(tasks[static_cast<std::size_t>(task)], buffers);
        });
  }

 private:
  void run_task(const Task& task, const Buffers<T>& buffers) const {
    load_queries(task, buffers);
    const std::int64_t keys = buffers.visible[task.rows - 1];
    for (std::int64_t begin = 0; begin < keys; begin += kTileKeys) {
      const int count = static_cast<int>(std::min<std::int64_t>(kTileKeys, keys - begin));
      load_keys(task, begin, count, buffers);
      for (std::int64_t row = 0; row < task.rows; row += kTileQueries) {
        const int queries = static_cast<int>(std::min<std::int64_t>(kTileQueries, task.rows - row));
        const TileMask mask(buffers.visible + row, queries, begin, count);
        if (!mask.none()) add_tile(row, mask, buffers);
      }
    }
    store_rows(task, buffers);
  }

  struct Place {
    std::int64_t batch, token, head;
  };
  Place place(const Task& task, std::int64_t row) const {
    const std::int64_t r = task.row_begin + row;
    return {task.sequence->batch, task.sequence->q_begin + r / heads_, task.head + r % heads_};
  }

  void load_queries(const Task& task, const Buffers<T>& buffers) const {
    for (std::int64_t r = 0; r < task.rows; ++r) {
      const Place ahead = place(task, std::min(r + kRowsAhead, task.rows - 1));
      prefetch_row(q_nope_.at(ahead.batch, ahead.token, ahead.head), problem_.dn);
      prefetch_row(q_pe_.at(ahead.batch, ahead.token, ahead.head), problem_.dr);
      const Place at = place(task, r);
      pack_row(q_nope_.at(at.batch, at.token, at.head), problem_.dn, q_pe_.at(at.batch, at.token, at.head), problem_.dr,
               buffers.q.row(r));
      std::fill_n(buffers.out.row(r), buffers.out.stride, T{0});
      std::fill_n(buffers.sum.row(r), kLanes<T>, T{0});
      buffers.maximum[r] = kMinusInfinity<T>;
      buffers.visible[r] = problem_.visible(*task.sequence, at.token - task.sequence->q_begin);
    }
  }

  // Asks for key `index` of the sequence. Row by row, between the loads of what came before: more requests at once than
  // the processor can keep in flight would hold up the loads.
  void prefetch_key(const Task& task, std::int64_t index) const {
    const Sequence& s = *task.sequence;
    if (index >= s.k_len) return;
    const std::int64_t token = s.k_begin + index;
    prefetch_row(k_nope_.at(s.batch, token, task.head), problem_.dn);
    prefetch_row(k_pe_.at(s.batch, token, 0), problem_.dr);
    prefetch_row(v_.at(s.batch, token, task.head), problem_.dv);
  }

  void load_keys(const Task& task, std::int64_t begin, int count, const Buffers<T>& buffers) const {
    const Sequence& s = *task.sequence;
    for (int j = 0; j < count; ++j) {
      const std::int64_t token = s.k_begin + begin + j;
      prefetch_key(task, begin + j + kTileKeys);
      pack_row(k_nope_.at(s.batch, token, task.head), problem_.dn, k_pe_.at(s.batch, token, 0), problem_.dr,
               buffers.k.row(j));
      pack_row(v_.at(s.batch, token, task.head), problem_.dv, buffers.v.row(j));
    }
    transpose<T>({buffers.k.data, buffers.k.stride}, count, problem_.qk(), buffers.k_columns);
  }

  void add_tile(std::int64_t row, const TileMask& mask, const Buffers<T>& buffers) const {
    const Tile<T> scores = buffers.scores;
    const Tile<const T> v{buffers.v.data, buffers.v.stride};
    tile_product<TileOperand::rows, TileResult::set, T>(
        {buffers.q.row(row), buffers.q.stride}, {buffers.k_columns.data, buffers.k_columns.stride}, scores,
        mask.queries(), vectors<T>(mask.keys()), kTileMaxRows, static_cast<T>(problem_.softmax_scale),
        mask.query_key<T>(problem_.qk()));
    const int out_vectors = vectors<T>(problem_.dv);
    softmax_rows(mask, scores, buffers.maximum + row, Tile<T>{buffers.sum.row(row), buffers.sum.stride},
                 Tile<T>{buffers.out.row(row), buffers.out.stride}, out_vectors);
    tile_product<TileOperand::rows, TileResult::add, T>(
        {scores.data, scores.stride}, v, {buffers.out.row(row), buffers.out.stride}, mask.queries(), out_vectors,
        group_rows(mask, v, mask.keys(), problem_.dv), T{1}, mask.over_keys<T>(problem_.dv));
  }

  void store_rows(const Task& task, const Buffers<T>& buffers) const {
    for (std::int64_t r = 0; r < task.rows; ++r) {
      const Place at = place(task, r);
      T total = 0;
      for (int lane = 0; lane < kLanes<T>; ++lane) total += buffers.sum.row(r)[lane];
      // A total of 0: no key seen, or none with a score above -inf.
      const bool empty = total == T{0};
      unpack_row(buffers.out.row(r), problem_.dv, empty ? T{0} : T{1} / total, out_.at(at.batch, at.token, at.head));
      *lse_.at(at.batch, at.token, at.head) = empty ? kMinusInfinity<T> : buffers.maximum[r] + std::log(total);
    }
  }

  const AttentionProblem& problem_;
  std::int64_t heads_;  // heads that share their keys and values
  Operand<const IO> q_nope_, q_pe_, k_nope_, k_pe_, v_;
  Operand<IO> out_;
  Operand<T> lse_;
};

// Keys and values of all heads are the same memory: then the heads are more rows of one.
bool heads_share_keys(const MlaAttentionForward& op) {
  const std::size_t head = op.cu_seqlens_q ? 1 : 2;
  return op.k_nope.strides[head] == 0 && op.v.strides[head] == 0;
}

}  // namespace

void mla_attention_forward(const Context& context, const MlaAttentionForward& op) {
  AttentionProblem problem = make_problem(op.q_nope, op.q_pe, op.k_nope, op.v, op.cu_seqlens_q, op.cu_seqlens_k);
  problem.softmax_scale = op.softmax_scale;
  problem.causal = op.causal;
  const ArenaScope scope(*context.scratch);
  for_input_type(op.q_nope.dtype,
                 [&]<typename IO>() { Forward<IO>(op, problem, heads_share_keys(op)).run(*context.scratch); });
}

}  // namespace lathe::ops::cpu
