#include "lathe/bench_command.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "backends/register.h"
#include "core/json.h"
#include "lathe/arguments.h"
#include "lathe/bench_support.h"

namespace lathe {
namespace {

// DeepSeek-V2's heads; k_pe is a slice of what also holds the latent vector.
constexpr std::int64_t kNope = 128, kRope = 64, kValue = 128, kLatent = 512;
constexpr std::int64_t kMaxBatch = 4096, kMaxSeqlen = 1 << 20;

// The rule of bench/timing.py. A recording holds calls of about `replay_us`; inputs are rotated over `rotated_bytes`.
struct Rule {
  std::chrono::milliseconds idle;
  double warm_up_us, pass_us, replay_us;
  std::int64_t rotated_bytes;
};
constexpr Rule kCudaRule{std::chrono::milliseconds(150), 150e3, 300e3, 4e3, 200'000'000};
constexpr Rule kCpuRule{std::chrono::milliseconds(0), 2e3, 5e3, 500, 0};
constexpr int kBursts = 4, kBurstReplays = 3, kPasses = 3;

// What the device is timed with where the flags do not say.
struct Defaults {
  std::string_view shapes;
  std::int64_t heads;
};
constexpr Defaults kCudaDefaults{
    "1x2048,1x4096,1x8192,1x16384,1x32768,1x512,8x2048,4x4096,32x512,1x4096:full,1x16384:full", 16};
constexpr Defaults kCpuDefaults{"1x64,1x256,2x96:full", 2};

// What is timed: one shape, dtype and pass.
struct Problem {
  AttentionShape shape;
  std::int64_t heads;
  DType dtype;
  std::string_view pass;

  bool forward() const { return pass == "forward"; }

  ops::MlaAttentionProblem asked(DeviceKind device) const {
    return {.device = device,
            .dtype = dtype,
            .causal = shape.causal,
            .deterministic = pass == "backward_deterministic",
            .sequences = shape.batch,
            .s_q = shape.seqlen,
            .s_k = shape.seqlen,
            .h = heads,
            .dn = kNope,
            .dr = kRope,
            .dv = kValue,
            .softmax_scale = 1 / std::sqrt(static_cast<double>(kNope + kRope))};
  }

  // Two products of the forward, five of the backward; half of them where causal.
  double flops() const {
    const double pairs = static_cast<double>(shape.batch * heads) * std::pow(static_cast<double>(shape.seqlen), 2);
    return 2 * pairs * static_cast<double>(kNope + kRope + kValue) * (forward() ? 1 : 2.5) / (shape.causal ? 2 : 1);
  }

  // Of inputs in rotation, each with memory of its own; by the elements of the views alone.
  std::int64_t sets(std::int64_t rotated_bytes) const {
    const std::int64_t elements = shape.batch * shape.seqlen * (heads * (kNope + kRope + kNope + kValue) + kRope);
    const std::int64_t bytes = elements * static_cast<std::int64_t>(size_of(dtype));
    return std::max<std::int64_t>(2, (rotated_bytes + bytes - 1) / bytes);
  }
};

// One set. q_nope is a slice of the query projection's output, k_nope and v are slices of kv_b_proj's, k_pe of the
// latent's; q_pe comes out of rope.
struct Inputs {
  ops::MlaAttentionForward forward;
  ops::MlaAttentionBackward backward;
};

TensorView first(const TensorView& view, std::int64_t d) { return view.slice(3, 0, d); }
TensorView last(const TensorView& view, std::int64_t d) { return view.slice(3, view.shape[3] - d, d); }

Inputs make_inputs(const Problem& problem, const ops::MlaAttentionProblem& asked, BenchMemory& memory) {
  const std::int64_t b = problem.shape.batch, s = problem.shape.seqlen, h = problem.heads;
  const DType dtype = problem.dtype;
  Inputs inputs;
  ops::MlaAttentionForward& forward = inputs.forward;
  forward.q_nope = first(memory.normal(dtype, {b, s, h, kNope + kRope}, "q"), kNope);
  forward.q_pe = memory.normal(dtype, {b, s, h, kRope}, "q_pe");
  const TensorView kv = memory.normal(dtype, {b, s, h, kNope + kValue}, "kv");
  forward.k_nope = first(kv, kNope);
  forward.v = last(kv, kValue);
  forward.k_pe = last(memory.normal(dtype, {b, s, 1, kLatent + kRope}, "the latent and k_pe"), kRope);
  forward.out = memory.empty(dtype, {b, s, h, kValue}, "o");
  forward.lse = memory.empty(DType::f32, {b, h, s}, "lse");
  forward.softmax_scale = asked.softmax_scale;
  forward.causal = asked.causal;
  if (problem.forward()) return inputs;
  ops::MlaAttentionBackward& backward = inputs.backward;
  backward.q_nope = forward.q_nope;
  backward.q_pe = forward.q_pe;
  backward.k_nope = forward.k_nope;
  backward.k_pe = forward.k_pe;
  backward.v = forward.v;
  backward.out = forward.out;
  backward.lse = forward.lse;
  backward.dout = memory.normal(dtype, {b, s, h, kValue}, "do");
  backward.softmax_scale = asked.softmax_scale;
  backward.causal = asked.causal;
  backward.deterministic = asked.deterministic;
  return inputs;
}

// All sets have one place for their gradients.
void share_gradients(const Problem& problem, BenchMemory& memory, std::vector<Inputs>& sets) {
  const std::int64_t b = problem.shape.batch, s = problem.shape.seqlen, h = problem.heads;
  const TensorView dq = memory.empty(problem.dtype, {b, s, h, kNope + kRope}, "dq");
  const TensorView dkv = memory.empty(problem.dtype, {b, s, h, kNope + kValue}, "dkv");
  const TensorView dk_pe = memory.empty(problem.dtype, {b, s, 1, kRope}, "dk_pe");
  for (Inputs& set : sets) {
    set.backward.dq_nope = first(dq, kNope);
    set.backward.dq_pe = last(dq, kRope);
    set.backward.dk_nope = first(dkv, kNope);
    set.backward.dv = last(dkv, kValue);
    set.backward.dk_pe = dk_pe;
  }
}

// A backend at work on a problem's inputs.
struct Candidate {
  const ops::MlaAttentionBackend* backend = nullptr;
  TensorView counters;  // [SM cycles, nanoseconds] on a GPU
  std::unique_ptr<Stopwatch::Recording> recording;
  double calls = 0;      // in one replay
  double replay_us = 0;  // about
  std::vector<double> times{};
};

class AttentionBench {
 public:
  AttentionBench(DeviceKind kind, const BenchAttentionOptions& options)
      : options_(options),
        rule_(kind == DeviceKind::cpu ? kCpuRule : kCudaRule),
        device_(make_device(kind)),
        stopwatch_(make_stopwatch(kind)) {
    context_ = {.device = device_.get(), .stream = stopwatch_->stream()};
    if (kind == DeviceKind::cpu) context_.scratch = &scratch_.emplace(*device_, "scratch of the benchmark");
  }

  // Prints a row a backend and regime.
  void time(const Problem& problem, const std::vector<const ops::MlaAttentionBackend*>& backends) {
    BenchMemory memory(*device_, context_.stream);
    const ops::MlaAttentionProblem asked = problem.asked(device_->kind());
    std::vector<Inputs> sets;
    for (std::int64_t i = 0; i < problem.sets(rule_.rotated_bytes); ++i)
      sets.push_back(make_inputs(problem, asked, memory));
    if (!problem.forward()) share_gradients(problem, memory, sets);
    std::vector<Candidate> candidates;
    for (const ops::MlaAttentionBackend* backend : backends)
      candidates.push_back(prepare(*backend, problem, asked, sets, memory));
    if (options_.regime != "sustained")
      for (Candidate& candidate : candidates) burst(problem, candidate);
    if (options_.regime != "burst") sustained(problem, candidates);
  }

 private:
  Candidate prepare(const ops::MlaAttentionBackend& backend, const Problem& problem,
                    const ops::MlaAttentionProblem& asked, const std::vector<Inputs>& sets, BenchMemory& memory) {
    Candidate candidate{.backend = &backend};
    if (device_->kind() == DeviceKind::cuda) candidate.counters = memory.zeros(DType::i64, {2}, "clock counters");
    const auto workspace = [&](std::size_t bytes) {
      ops::Workspace made{.clock_counters = static_cast<std::uint64_t*>(candidate.counters.data)};
      if (bytes == 0) return made;
      const auto words = static_cast<std::int64_t>((bytes + 7) / 8);
      made.data = memory.zeros(DType::i64, {words}, "workspace").data;
      made.bytes = static_cast<std::size_t>(words) * 8;
      return made;
    };
    const ops::Workspace forward_workspace = workspace(backend.forward_workspace(asked));
    const ops::Workspace backward_workspace =
        problem.forward() ? ops::Workspace{} : workspace(backend.backward_workspace(asked));
    std::vector<std::function<void()>> calls;
    for (const Inputs& set : sets) {
      ops::MlaAttentionForward forward = set.forward;
      forward.workspace = forward_workspace;
      ops::check_mla_attention(context_, forward);
      backend.forward(context_, forward);  // a first call may compile or allocate; the backward needs its results
      if (problem.forward()) {
        calls.push_back([this, &backend, forward] { backend.forward(context_, forward); });
        continue;
      }
      ops::MlaAttentionBackward backward = set.backward;
      backward.workspace = backward_workspace;
      ops::check_mla_attention(context_, backward);
      backend.backward(context_, backward);
      calls.push_back([this, &backend, backward] { backend.backward(context_, backward); });
    }
    device_->synchronize(context_.stream);
    record(candidate, calls);
    return candidate;
  }

  // As many rounds over the sets as make a replay long enough.
  void record(Candidate& candidate, const std::vector<std::function<void()>>& calls) {
    const auto rounds = [&](int count) {
      return stopwatch_->record([calls, count] {
        for (int i = 0; i < count; ++i)
          for (const auto& call : calls) call();
      });
    };
    candidate.recording = rounds(1);
    const std::vector<double> trial = stopwatch_->replay(*candidate.recording, 3);
    const double round_us = std::min(trial[1], trial[2]);
    const int count = std::max(1, static_cast<int>(std::ceil(rule_.replay_us / std::max(round_us, 1.0))));
    if (count > 1) candidate.recording = rounds(count);
    candidate.calls = static_cast<double>(count) * static_cast<double>(calls.size());
    candidate.replay_us = count * round_us;
  }

  void start(Candidate& candidate) {
    candidate.times.clear();
    if (candidate.counters) device_->fill_zero(candidate.counters, context_.stream);
  }

  // Replays back to back, of which the first `dropped` do not count.
  void replay(Candidate& candidate, int count, int dropped) {
    const std::vector<double> times = stopwatch_->replay(*candidate.recording, count);
    for (std::size_t i = static_cast<std::size_t>(dropped); i < times.size(); ++i)
      candidate.times.push_back(times[i] / candidate.calls);
  }

  // A chip that its power limit does not slow.
  void burst(const Problem& problem, Candidate& candidate) {
    start(candidate);
    for (int i = 0; i < kBursts; ++i) {
      std::this_thread::sleep_for(rule_.idle);
      replay(candidate, kBurstReplays, 1);
    }
    print_row(problem, candidate, "burst");
  }

  // In passes over all backends, another one first in each.
  void sustained(const Problem& problem, std::vector<Candidate>& candidates) {
    for (Candidate& candidate : candidates) start(candidate);
    const std::size_t count = candidates.size();
    for (std::size_t pass = 0; pass < kPasses; ++pass)
      for (std::size_t i = 0; i < count; ++i) {
        Candidate& candidate = candidates[(pass * count / kPasses + i) % count];
        const int warm_up = static_cast<int>(std::ceil(rule_.warm_up_us / candidate.replay_us));
        const int counted = static_cast<int>(std::ceil(rule_.pass_us / candidate.replay_us));
        replay(candidate, warm_up + counted, warm_up);
      }
    for (const Candidate& candidate : candidates) print_row(problem, candidate, "sustained");
  }

  // The SM clock that the kernel counted; null where none did.
  Json clock_mhz(const Candidate& candidate) {
    if (!candidate.counters) return {};
    std::array<std::int64_t, 2> counted{};
    device_->copy(TensorView::contiguous(counted.data(), DType::i64, {2}), candidate.counters, context_.stream);
    device_->synchronize(context_.stream);
    if (counted[1] <= 0) return {};
    return std::round(1e4 * static_cast<double>(counted[0]) / static_cast<double>(counted[1])) / 10;
  }

  void print_row(const Problem& problem, const Candidate& candidate, std::string_view regime) {
    const double median_us = median(candidate.times);
    const Json row = Json::Object{{"batch", problem.shape.batch},
                                  {"seqlen", problem.shape.seqlen},
                                  {"heads", problem.heads},
                                  {"causal", problem.shape.causal},
                                  {"pass", std::string(problem.pass)},
                                  {"scope", "operator"},
                                  {"impl", "lathe"},
                                  {"backend", std::string(candidate.backend->name)},
                                  {"dtype", std::string(name_of(problem.dtype))},
                                  {"version", LATHE_VERSION},
                                  {"regime", std::string(regime)},
                                  {"median_us", median_us},
                                  {"tflops", problem.flops() / median_us / 1e6},
                                  {"clock_mhz", clock_mhz(candidate)},
                                  {"device", device_->describe()}};
    fmt::print("{}\n", row.dump());
    std::fflush(stdout);
  }

  const BenchAttentionOptions& options_;
  Rule rule_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stopwatch> stopwatch_;
  std::optional<Arena> scratch_;
  ops::Context context_;
};

DeviceKind device_of(const std::string& device) {
  if (device == "cpu") return DeviceKind::cpu;
  const std::string obstacle = device_unavailable(DeviceKind::cuda);
  if (device == "auto") return obstacle.empty() ? DeviceKind::cuda : DeviceKind::cpu;
  require(obstacle.empty(), "--device cuda: {}", obstacle);
  return DeviceKind::cuda;
}

void require_known(const std::string& backend) {
  std::string names;
  for (const ops::MlaAttentionBackend& known : attention_backends()) {
    if (backend == "all" || backend == known.name) return;
    names += fmt::format(", {}", known.name);
  }
  refuse("--backend {}: expected all{}", backend.empty() ? "''" : backend.substr(0, 80), names);
}

// Of the name that was asked for, all that support the problem on the device.
std::vector<const ops::MlaAttentionBackend*> backends_for(const std::string& name, const Problem& problem,
                                                          DeviceKind device) {
  const ops::MlaAttentionProblem asked = problem.asked(device);
  std::vector<const ops::MlaAttentionBackend*> found;
  for (const ops::MlaAttentionBackend& backend : attention_backends())
    if (name == "all" || name == backend.name)
      if (const auto* supported = find_attention_backend(backend.name, asked)) found.push_back(supported);
  return found;
}

std::vector<Problem> problems_of(const BenchAttentionOptions& options, DeviceKind device) {
  const bool cpu = device == DeviceKind::cpu;
  const Defaults& defaults = cpu ? kCpuDefaults : kCudaDefaults;
  const std::vector<AttentionShape> shapes =
      options.shapes.empty() ? parse_attention_shapes("--shapes", defaults.shapes) : options.shapes;
  std::vector<Problem> problems;
  for (const std::string_view pass : {"forward", "backward", "backward_deterministic"})
    if (options.pass == "all" || options.pass == pass)
      for (const AttentionShape& shape : shapes) {
        const std::int64_t heads = options.heads == 0 ? defaults.heads : options.heads;
        problems.push_back({shape, heads, DType::bf16, pass});
        if (cpu) problems.push_back({shape, heads, DType::f32, pass});
      }
  return problems;
}

}  // namespace

std::vector<AttentionShape> parse_attention_shapes(std::string_view flag, std::string_view text) {
  constexpr std::string_view kFull = ":full";
  std::vector<AttentionShape> shapes;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view item = text.substr(begin, end - begin);
    std::string_view size = item;
    AttentionShape shape;
    if (size.ends_with(kFull)) {
      shape.causal = false;
      size.remove_suffix(kFull.size());
    }
    const std::size_t cross = size.find('x');
    require(cross != std::string_view::npos,
            "{}: '{}': expected BATCHxLENGTH, or BATCHxLENGTH:full without a mask, separated by commas", flag,
            item.substr(0, 80));
    shape.batch = parse_integer(fmt::format("{}: batch", flag), size.substr(0, cross), 1, kMaxBatch);
    shape.seqlen = parse_integer(fmt::format("{}: length", flag), size.substr(cross + 1), 1, kMaxSeqlen);
    shapes.push_back(shape);
    begin = end + 1;
  }
  return shapes;
}

void run_bench_attention(const BenchAttentionOptions& options) {
  require_known(options.backend);
  const DeviceKind device = device_of(options.device);
  const std::vector<Problem> problems = problems_of(options, device);
  for (const Problem& problem : problems) {
    if (!backends_for(options.backend, problem, device).empty()) continue;
    const bool all = options.backend == "all";
    const std::string reason = choose_attention_backend(all ? "auto" : options.backend, problem.asked(device)).reason;
    refuse("--backend {}{}", all ? "all: " : "", reason);  // the reason begins with the backend's name
  }
  AttentionBench bench(device, options);
  for (const Problem& problem : problems) bench.time(problem, backends_for(options.backend, problem, device));
}

}  // namespace lathe
