// The backward: probabilities are made again from lse, tile by tile (Dao et al., 2022). Keys are the outer loop: their
// gradients are finished tile by tile, the queries' gradients grow in a buffer.
#include <algorithm>
#include <limits>
#include <vector>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/mla_attention_problem.h"
#include "ops/cpu/mla_attention_tiles.h"
#include "ops/cpu/parallel.h"
#include "ops/mla_attention.h"

namespace lathe::ops::cpu {
namespace {

// A task is one head of a sequence with at most this many of its keys: enough that the sum over the chunks of dq is
// cheap, few enough that a long sequence with few heads has work for several threads.
constexpr std::int64_t kKeysPerTask = 2048;
constexpr std::int64_t kRowsPerChunk = 64;

template <typename T>
struct Buffers {
  Tile<T> q, dout, dq;    // [s_q, .]
  T* lse;                 // [s_q]; +inf for a row that saw no key, so that its probabilities are 0
  T* delta;               // [s_q]: sum(dout * out) - dlse
  std::int64_t* visible;  // [s_q]
  Tile<T> k, k_columns;   // [keys, dn + dr] and transposed
  Tile<T> v, v_columns;   // [keys, dv] and transposed
  Tile<T> dk, dv;         // [keys, .]
  Tile<T> p, ds;          // [kTileQueries, keys]
};

template <typename T>
Buffers<T> carve(Carver& carver, const AttentionProblem& problem) {
  const std::int64_t qk = padded<T>(problem.qk());
  const std::int64_t dv = padded<T>(problem.dv);
  const std::int64_t rows = problem.max_queries();
  const auto tile = [&](std::int64_t count, std::int64_t stride) {
    return Tile<T>{carver.take<T>(count * stride), stride};
  };
  Buffers<T> buffers;
  buffers.q = tile(rows, qk);
  buffers.dout = tile(rows, dv);
  buffers.dq = tile(rows, qk);
  buffers.lse = carver.take<T>(rows);
  buffers.delta = carver.take<T>(rows);
  buffers.visible = carver.take<std::int64_t>(rows);
  buffers.k = tile(kTileKeys, qk);
  buffers.k_columns = tile(qk, kTileKeys);
  buffers.v = tile(kTileKeys, dv);
  buffers.v_columns = tile(dv, kTileKeys);
  buffers.dk = tile(kTileKeys, qk);
  buffers.dv = tile(kTileKeys, dv);
  buffers.p = tile(kTileQueries, kTileKeys);
  buffers.ds = tile(kTileQueries, kTileKeys);
  return buffers;
}

struct Task {
  const Sequence* sequence;
  std::int64_t head;
  std::int64_t key_begin;
  std::int64_t keys;
  std::int64_t dq_row;  // where its part of dq begins in the memory for parts; -1: it is all of dq
};

// A head whose keys are in several tasks: the parts of dq are summed in the order of the keys.
struct DqSum {
  const Sequence* sequence;
  std::int64_t head;
  std::int64_t parts;
  std::int64_t dq_row;
};

struct Plan {
  std::vector<Task> tasks;
  std::vector<DqSum> sums;
  std::int64_t dq_rows = 0;
};

Plan make_plan(const AttentionProblem& problem) {
  Plan plan;
  for (const Sequence& sequence : problem.sequences)
    for (std::int64_t head = 0; head < problem.h; ++head) {
      const std::int64_t parts = std::max<std::int64_t>(1, (sequence.k_len + kKeysPerTask - 1) / kKeysPerTask);
      if (parts > 1) plan.sums.push_back({&sequence, head, parts, plan.dq_rows});
      for (std::int64_t part = 0; part < parts; ++part) {
        const std::int64_t begin = part * kKeysPerTask;
        const std::int64_t keys = std::min(kKeysPerTask, sequence.k_len - begin);
        plan.tasks.push_back({&sequence, head, begin, keys, parts > 1 ? plan.dq_rows : -1});
        if (parts > 1) plan.dq_rows += sequence.q_len;
      }
    }
  return plan;
}

// Of one query: scores become probabilities p, and their gradients dp become gradients ds of the unscaled products.
template <typename T>
void probability_row(T* p, T* ds, int count, T lse, T delta, T scale) {
  const int width = vectors<T>(count) * kLanes<T>;
  for (int j = 0; j < width; j += kLanes<T>) {
#pragma omp simd
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const T probability = fast_exp_flushed(p[j + lane] - lse);
      p[j + lane] = probability;
      ds[j + lane] = probability * (ds[j + lane] - delta) * scale;
    }
  }
  std::fill(p + count, p + kTileKeys, T{0});
  std::fill(ds + count, ds + kTileKeys, T{0});
}

template <typename IO>
class Backward {
 public:
  using T = ComputeType<IO>;

  Backward(const MlaAttentionBackward& op, const AttentionProblem& problem)
      : problem_(problem),
        q_nope_(rows_of<const IO>(op.q_nope)),
        q_pe_(rows_of<const IO>(op.q_pe)),
        k_nope_(rows_of<const IO>(op.k_nope)),
        k_pe_(rows_of<const IO>(op.k_pe)),
        v_(rows_of<const IO>(op.v)),
        out_(rows_of<const IO>(op.out)),
        dout_(rows_of<const IO>(op.dout)),
        lse_(stats_of<const T>(op.lse)),
        dq_nope_(rows_of<IO>(op.dq_nope)),
        dq_pe_(rows_of<IO>(op.dq_pe)),
        dk_nope_(rows_of<IO>(op.dk_nope)),
        dk_pe_(rows_of<IO>(op.dk_pe)),
        dv_(rows_of<IO>(op.dv)) {
    if (op.dlse) dlse_ = stats_of<const T>(op.dlse);
    const bool packed = op.k_pe.rank == 3;
    batches_ = packed ? 1 : op.k_pe.shape[0];
    keys_ = op.k_pe.shape[packed ? 0 : 1];
    // dk_pe of each head, [b, s_k, h, dr]: the heads are summed when all are there.
    dk_pe_heads_ = {nullptr, keys_ * problem.h * problem.dr, problem.h * problem.dr, problem.dr};
  }

  void run(Arena& scratch) {
    const Plan plan = make_plan(problem_);
    dk_pe_heads_.data = take(scratch, batches_ * dk_pe_heads_.batch_stride);
    const std::int64_t stride = padded<T>(problem_.qk());
    const Tile<T> dq_parts{take(scratch, plan.dq_rows * stride), stride};
    for_tasks(
        scratch, static_cast<std::int64_t>(plan.tasks.size()),
        [&](Carver& carver) { return carve<T>(carver, problem_); },
        [&](std::int64_t index, Buffers<T> buffers) {
          const Task& task = plan.tasks[static_cast<std::size_t>(index)];
          if (task.dq_row >= 0) buffers.dq.data = dq_parts.row(task.dq_row);
          run_task(task, buffers);
        });
    for_chunks(static_cast<std::int64_t>(plan.sums.size()), 1,
               [&](std::int64_t index, std::int64_t) { sum_dq(plan.sums[static_cast<std::size_t>(index)], dq_parts); });
    for_chunks(batches_ * keys_, kRowsPerChunk, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) sum_dk_pe(row / keys_, row % keys_);
    });
  }

 private:
  static T* take(Arena& scratch, std::int64_t count) {
    return reinterpret_cast<T*>(take_scratch(scratch, static_cast<std::size_t>(count) * sizeof(T)));
  }
  static Tile<const T> constant(Tile<T> tile, std::int64_t row = 0) { return {tile.row(row), tile.stride}; }

  void run_task(const Task& task, const Buffers<T>& buffers) const {
    const std::int64_t queries = task.sequence->q_len;
    load_queries(task, buffers);
    for (std::int64_t key = 0; key < task.keys; key += kTileKeys) {
      const std::int64_t begin = task.key_begin + key;
      const int count = static_cast<int>(std::min<std::int64_t>(kTileKeys, task.keys - key));
      load_keys(task, begin, count, buffers);
      for (std::int64_t row = 0; row < queries; row += kTileQueries) {
        const int rows = static_cast<int>(std::min<std::int64_t>(kTileQueries, queries - row));
        const TileMask mask(buffers.visible + row, rows, begin, count);
        if (!mask.none()) add_tile(row, mask, buffers);
      }
      store_keys(task, begin, count, buffers);
    }
    if (task.dq_row >= 0) return;
    for (std::int64_t r = 0; r < queries; ++r) store_query(*task.sequence, task.head, r, buffers.dq.row(r));
  }

  void load_queries(const Task& task, const Buffers<T>& buffers) const {
    const Sequence& s = *task.sequence;
    for (std::int64_t r = 0; r < s.q_len; ++r) {
      const std::int64_t token = s.q_begin + r;
      const std::int64_t ahead = s.q_begin + std::min(r + kRowsAhead, s.q_len - 1);
      prefetch_row(q_nope_.at(s.batch, ahead, task.head), problem_.dn);
      prefetch_row(q_pe_.at(s.batch, ahead, task.head), problem_.dr);
      prefetch_row(dout_.at(s.batch, ahead, task.head), problem_.dv);
      prefetch_row(out_.at(s.batch, ahead, task.head), problem_.dv);
      pack_row(q_nope_.at(s.batch, token, task.head), problem_.dn, q_pe_.at(s.batch, token, task.head), problem_.dr,
               buffers.q.row(r));
      const IO* dout = dout_.at(s.batch, token, task.head);
      const IO* out = out_.at(s.batch, token, task.head);
      pack_row(dout, problem_.dv, buffers.dout.row(r));
      std::fill_n(buffers.dq.row(r), buffers.dq.stride, T{0});
      T delta = 0;
#pragma omp simd reduction(+ : delta)
      for (std::int64_t i = 0; i < problem_.dv; ++i) delta += static_cast<T>(dout[i]) * static_cast<T>(out[i]);
      if (dlse_.data != nullptr) delta -= *dlse_.at(s.batch, token, task.head);
      const T lse = *lse_.at(s.batch, token, task.head);
      constexpr T kInfinity = std::numeric_limits<T>::infinity();
      buffers.delta[r] = delta;
      buffers.lse[r] = lse == -kInfinity ? kInfinity : lse;
      buffers.visible[r] = problem_.visible(s, r);
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
      std::fill_n(buffers.dk.row(j), buffers.dk.stride, T{0});
      std::fill_n(buffers.dv.row(j), buffers.dv.stride, T{0});
    }
    transpose(constant(buffers.k), count, problem_.qk(), buffers.k_columns);
    transpose(constant(buffers.v), count, problem_.dv, buffers.v_columns);
  }

  void add_tile(std::int64_t row, const TileMask& mask, const Buffers<T>& buffers) const {
    const Tile<const T> q = constant(buffers.q, row);
    const Tile<const T> dout = constant(buffers.dout, row);
    const Tile<const T> k = constant(buffers.k);
    const Tile<const T> p = constant(buffers.p);
    const Tile<const T> ds = constant(buffers.ds);
    const Tile<T> dq{buffers.dq.row(row), buffers.dq.stride};
    const std::int64_t qk = problem_.qk();
    const std::int64_t dv = problem_.dv;
    const T scale = static_cast<T>(problem_.softmax_scale);
    const int key_vectors = vectors<T>(mask.keys());

    tile_product<TileOperand::rows, TileResult::set, T>(q, constant(buffers.k_columns), buffers.p, mask.queries(),
                                                        key_vectors, kTileMaxRows, scale, mask.query_key<T>(qk));
    tile_product<TileOperand::rows, TileResult::set, T>(dout, constant(buffers.v_columns), buffers.ds, mask.queries(),
                                                        key_vectors, kTileMaxRows, T{1}, mask.query_key<T>(dv));
    for (int r = 0; r < mask.queries(); ++r)
      probability_row(buffers.p.row(r), buffers.ds.row(r), mask.count(r), buffers.lse[row + r], buffers.delta[row + r],
                      scale);

    tile_product<TileOperand::columns, TileResult::add, T>(p, dout, buffers.dv, mask.keys(), vectors<T>(dv),
                                                           group_rows(mask, dout, mask.queries(), dv), T{1},
                                                           mask.over_queries<T>(dv));
    tile_product<TileOperand::columns, TileResult::add, T>(ds, q, buffers.dk, mask.keys(), vectors<T>(qk),
                                                           group_rows(mask, q, mask.queries(), qk), T{1},
                                                           mask.over_queries<T>(qk));
    tile_product<TileOperand::rows, TileResult::add, T>(
        ds, k, dq, mask.queries(), vectors<T>(qk), group_rows(mask, k, mask.keys(), qk), T{1}, mask.over_keys<T>(qk));
  }

  void store_keys(const Task& task, std::int64_t begin, int count, const Buffers<T>& buffers) const {
    const Sequence& s = *task.sequence;
    for (int j = 0; j < count; ++j) {
      const std::int64_t token = s.k_begin + begin + j;
      unpack_row(buffers.dk.row(j), problem_.dn, T{1}, dk_nope_.at(s.batch, token, task.head));
      copy_row(buffers.dk.row(j) + problem_.dn, problem_.dr, dk_pe_heads_.at(s.batch, token, task.head));
      unpack_row(buffers.dv.row(j), problem_.dv, T{1}, dv_.at(s.batch, token, task.head));
    }
  }

  void store_query(const Sequence& s, std::int64_t head, std::int64_t query, const T* dq) const {
    unpack_row(dq, problem_.dn, T{1}, dq_nope_.at(s.batch, s.q_begin + query, head));
    unpack_row(dq + problem_.dn, problem_.dr, T{1}, dq_pe_.at(s.batch, s.q_begin + query, head));
  }

  // Leaves the sum in the first part.
  void sum_dq(const DqSum& sum, Tile<T> parts) const {
    const std::int64_t queries = sum.sequence->q_len;
    for (std::int64_t r = 0; r < queries; ++r) {
      T* const total = parts.row(sum.dq_row + r);
      for (std::int64_t part = 1; part < sum.parts; ++part) {
        const T* const other = parts.row(sum.dq_row + part * queries + r);
        for (std::int64_t i = 0; i < parts.stride; ++i) total[i] += other[i];
      }
      store_query(*sum.sequence, sum.head, r, total);
    }
  }

  // Leaves the sum in the first head.
  void sum_dk_pe(std::int64_t batch, std::int64_t token) const {
    T* const total = dk_pe_heads_.at(batch, token, 0);
    for (std::int64_t head = 1; head < problem_.h; ++head) {
      const T* const other = dk_pe_heads_.at(batch, token, head);
      for (std::int64_t i = 0; i < problem_.dr; ++i) total[i] += other[i];
    }
    unpack_row(total, problem_.dr, T{1}, dk_pe_.at(batch, token, 0));
  }

  const AttentionProblem& problem_;
  Operand<const IO> q_nope_, q_pe_, k_nope_, k_pe_, v_, out_, dout_;
  Operand<const T> lse_, dlse_;
  Operand<IO> dq_nope_, dq_pe_, dk_nope_, dk_pe_, dv_;
  Operand<T> dk_pe_heads_;
  std::int64_t batches_ = 0;  // 1 for packed inputs
  std::int64_t keys_ = 0;     // of a batch
};

}  // namespace

void mla_attention_backward(const Context& context, const MlaAttentionBackward& op) {
  AttentionProblem problem = make_problem(op.q_nope, op.q_pe, op.k_nope, op.v, op.cu_seqlens_q, op.cu_seqlens_k);
  problem.softmax_scale = op.softmax_scale;
  problem.causal = op.causal;
  const ArenaScope scope(*context.scratch);
  for_input_type(op.q_nope.dtype, [&]<typename IO>() { Backward<IO>(op, problem).run(*context.scratch); });
}

}  // namespace lathe::ops::cpu
