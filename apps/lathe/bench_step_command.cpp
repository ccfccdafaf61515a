#include "lathe/bench_step_command.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "backends/register.h"
#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "device/work_recorder.h"
#include "lathe/bench_support.h"
#include "lathe/run_config.h"
#include "lathe/runtime.h"
#include "ops/linear.h"
#include "train/training_steps.h"

namespace lathe {
namespace {

constexpr int kRecordedSteps = 2;  // after one that does not count: it makes what recording needs (CUDA events)
constexpr double kExplained = 0.9;

// Times of a class are a step's; shares are of a step's time.
using Class = WorkRecorder::Class;

// Records a device's work while it lives.
class Recording {
 public:
  Recording(Device& device, WorkRecorder& recorder) : device_(device) { device_.set_recorder(&recorder); }
  ~Recording() { device_.set_recorder(nullptr); }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  Device& device_;
};

// What the device reaches: large enough that no more would come of a larger one.
struct CeilingRule {
  std::int64_t gemm_size;
  std::int64_t copy_bytes;
  double microseconds;  // a round of calls that counts
};
constexpr CeilingRule kCudaRule{8192, std::int64_t{1} << 30, 300e3};
constexpr CeilingRule kCpuRule{1024, std::int64_t{1} << 26, 50e3};

struct Ceilings {
  CeilingRule rule;
  double flops = 0;  // a microsecond
  double bytes = 0;  // a microsecond, read and written

  // The time that the work takes at least, in microseconds.
  double least_time(const Work& work) const { return std::max(work.flops / flops, work.bytes / bytes); }
};

struct StepTimes {
  double step_us = 0;           // median, not recorded
  double recorded_step_us = 0;  // mean, with what recording adds
  double tokens_per_second = 0;
  std::int64_t tokens = 0;  // of a step
  std::int64_t parameters = 0;
  std::size_t peak_memory_bytes = 0;
  std::vector<Class> classes;  // a step's, the longest first

  // Of all classes together.
  Class total() const {
    Class sum{.name = "total"};
    for (const Class& each : classes) {
      sum.calls += each.calls;
      sum.work.flops += each.work.flops;
      sum.work.bytes += each.work.bytes;
      sum.microseconds += each.microseconds;
    }
    return sum;
  }
};

// The rate of one call, repeated: rounds of twice as many calls until one takes long enough. Those before it warm up.
template <typename Call>
Class sustained(WorkRecorder& recorder, double microseconds, Call call) {
  for (std::int64_t calls = 1;; calls *= 2) {
    for (std::int64_t i = 0; i < calls; ++i) call();
    const Class round = recorder.take().at(0);
    if (round.microseconds >= microseconds) return round;
  }
}

Ceilings measure_ceilings(const Runtime& runtime, WorkRecorder& recorder) {
  Device& device = *runtime.device;
  Ceilings ceilings{.rule = device.kind() == DeviceKind::cpu ? kCpuRule : kCudaRule};
  Arena scratch(device, "scratch of the benchmark");
  const ops::Context context{.table = runtime.table, .device = &device, .stream = {}, .scratch = &scratch};
  {
    BenchMemory memory(device, context.stream);
    const std::int64_t size = ceilings.rule.gemm_size;
    const TensorView x = memory.normal(runtime.dtype, {size, size}, "x");
    const TensorView weight = memory.normal(runtime.dtype, {size, size}, "weight");
    const TensorView out = memory.empty(runtime.dtype, {size, size}, "out");
    const Recording recording(device, recorder);
    const Class gemm = sustained(recorder, ceilings.rule.microseconds, [&] {
      ops::linear_forward(context, {.x = x, .weight = weight, .bias = {}, .out = out});
    });
    ceilings.flops = gemm.work.flops / gemm.microseconds;
  }
  BenchMemory memory(device, context.stream);
  const std::int64_t elements = ceilings.rule.copy_bytes / std::int64_t{sizeof(float)};
  const TensorView from = memory.zeros(DType::f32, {elements}, "from");
  const TensorView to = memory.zeros(DType::f32, {elements}, "to");
  const Recording recording(device, recorder);
  const Class copy = sustained(recorder, ceilings.rule.microseconds, [&] { device.copy(to, from, context.stream); });
  ceilings.bytes = copy.work.bytes / copy.microseconds;
  return ceilings;
}

class StepBench {
 public:
  StepBench(const RunConfig& config, const Runtime& runtime, RunInputs& inputs, const BenchStepOptions& options)
      : options_(options), device_(*runtime.device), steps_(config, runtime, inputs) {
    inputs.weights.reset();
    result_.tokens = config.training.global_batch_size * config.training.sequence_length;
    result_.parameters = steps_.session().layout().total_parameters();
  }

  StepTimes time(WorkRecorder& recorder) {
    steps_.log_start();
    for (std::int64_t i = 0; i < options_.warmup; ++i) run_step();
    std::vector<double> times;
    for (std::int64_t i = 0; i < options_.steps; ++i) times.push_back(1e6 * run_step().step_time);
    result_.step_us = median(std::move(times));
    result_.tokens_per_second = 1e6 * static_cast<double>(result_.tokens) / result_.step_us;
    record(recorder);
    return std::move(result_);
  }

 private:
  StepMetrics run_step() {
    StepMetrics metrics = steps_.run_step();
    metrics.max_steps = options_.warmup + options_.steps + 1 + kRecordedSteps;
    write_log_line(step_line(metrics));
    result_.peak_memory_bytes = metrics.peak_memory_bytes;
    return metrics;
  }

  void record(WorkRecorder& recorder) {
    using Clock = std::chrono::steady_clock;
    const Stream stream = steps_.session().ops().stream;
    const Recording recording(device_, recorder);
    run_step();
    recorder.take();
    for (int i = 0; i < kRecordedSteps; ++i) {
      const Clock::time_point begin = Clock::now();
      run_step();
      device_.synchronize(stream);
      result_.recorded_step_us += std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
      for (const Class& each : recorder.take()) add(each);
    }
    result_.recorded_step_us /= kRecordedSteps;
    for (Class& each : result_.classes) {
      each.calls /= kRecordedSteps;
      each.work.flops /= kRecordedSteps;
      each.work.bytes /= kRecordedSteps;
      each.microseconds /= kRecordedSteps;
    }
    std::ranges::sort(result_.classes, std::ranges::greater{}, &Class::microseconds);
  }

  void add(const Class& more) {
    auto found = std::ranges::find(result_.classes, more.name, &Class::name);
    if (found == result_.classes.end()) found = result_.classes.insert(found, {.name = more.name});
    found->calls += more.calls;
    found->work.flops += more.work.flops;
    found->work.bytes += more.work.bytes;
    found->microseconds += more.microseconds;
  }

  const BenchStepOptions& options_;
  Device& device_;
  TrainingSteps steps_;
  StepTimes result_;
};

// The columns of a class, for the table and for JSON.
struct Row {
  Row(const Class& of, double step_us, double least_us)
      : share(of.microseconds / step_us),
        tflops(of.work.flops / of.microseconds / 1e6),
        gb_per_second(of.work.bytes / of.microseconds / 1e3),
        share_of_ceiling(least_us / of.microseconds) {}

  double share, tflops, gb_per_second, share_of_ceiling;
};

void print_row(const Class& of, const Row& row) {
  const auto number = [](double value) { return value > 0 ? fmt::format("{:.3f}", value) : std::string("-"); };
  fmt::print("{:<26} {:>6} {:>11.3f} {:>6.1f}% {:>11} {:>11.3f} {:>9} {:>9.1f} {:>6.1f}%\n", of.name, of.calls,
             of.microseconds * 1e-3, 100 * row.share, number(of.work.flops * 1e-9), of.work.bytes * 1e-9,
             number(row.tflops), row.gb_per_second, 100 * row.share_of_ceiling);
}

double least_time_of_all(const StepTimes& times, const Ceilings& ceilings) {
  double sum = 0;
  for (const Class& each : times.classes) sum += ceilings.least_time(each.work);
  return sum;
}

void print_table(const StepTimes& times, const Ceilings& ceilings, DType dtype) {
  fmt::print("{:<26} {:>6} {:>11} {:>7} {:>11} {:>11} {:>9} {:>9} {:>7}\n", "class", "calls", "time ms", "share",
             "GFLOP", "GB", "TFLOP/s", "GB/s", "ceiling");
  for (const Class& each : times.classes) print_row(each, Row(each, times.step_us, ceilings.least_time(each.work)));
  const Class total = times.total();
  print_row(total, Row(total, times.step_us, least_time_of_all(times, ceilings)));
  const double unexplained = times.step_us - total.microseconds;
  fmt::print("{:<26} {:>6} {:>11.3f} {:>6.1f}%\n", "unexplained", "", unexplained * 1e-3,
             100 * unexplained / times.step_us);
  fmt::print("step {:.3f} ms | {} tokens/s | peak memory {}\n", times.step_us * 1e-3,
             with_commas(std::llround(times.tokens_per_second)), format_bytes(times.peak_memory_bytes));
  fmt::print("ceilings: product of {} x {} in {} {:.3f} TFLOP/s | copy of {} {:.1f} GB/s\n", ceilings.rule.gemm_size,
             ceilings.rule.gemm_size, name_of(dtype), ceilings.flops * 1e-6,
             format_bytes(static_cast<std::size_t>(ceilings.rule.copy_bytes)), ceilings.bytes * 1e-3);
  const double explained = total.microseconds / times.step_us;
  fmt::print("the classes explain {:.1f}% of the step{}\n", 100 * explained,
             explained < kExplained ? fmt::format(": less than {:.0f}%", 100 * kExplained) : "");
  std::fflush(stdout);
}

Json json_row(const Class& of, const Row& row) {
  return Json::Object{{"class", std::string(of.name)},
                      {"calls", of.calls},
                      {"time_us", of.microseconds},
                      {"share", row.share},
                      {"flops", of.work.flops},
                      {"bytes", of.work.bytes},
                      {"tflops", row.tflops},
                      {"gb_per_second", row.gb_per_second},
                      {"share_of_ceiling", row.share_of_ceiling}};
}

Json to_json(const StepTimes& times, const Ceilings& ceilings, const Runtime& runtime, const RunConfig& config,
             const BenchStepOptions& options) {
  Json::Array rows;
  for (const Class& each : times.classes)
    rows.push_back(json_row(each, Row(each, times.step_us, ceilings.least_time(each.work))));
  const Class total = times.total();
  return Json::Object{
      {"version", LATHE_VERSION},
      {"device", runtime.device->describe()},
      {"dtype", std::string(name_of(runtime.dtype))},
      {"parameters", times.parameters},
      {"sequence_length", config.training.sequence_length},
      {"micro_batch_size", config.training.micro_batch_size},
      {"global_batch_size", config.training.global_batch_size},
      {"steps", options.steps},
      {"warmup", options.warmup},
      {"recorded_steps", kRecordedSteps},
      {"step_us", times.step_us},
      {"recorded_step_us", times.recorded_step_us},
      {"tokens_per_second", times.tokens_per_second},
      {"peak_memory_bytes", static_cast<std::int64_t>(times.peak_memory_bytes)},
      {"gemm", Json::Object{{"size", ceilings.rule.gemm_size}, {"tflops", ceilings.flops * 1e-6}}},
      {"copy", Json::Object{{"bytes", ceilings.rule.copy_bytes}, {"gb_per_second", ceilings.bytes * 1e-3}}},
      {"explained", total.microseconds / times.step_us},
      {"unexplained_us", times.step_us - total.microseconds},
      {"total", json_row(total, Row(total, times.step_us, least_time_of_all(times, ceilings)))},
      {"rows", std::move(rows)}};
}

}  // namespace

void run_bench_step(const BenchStepOptions& options) {
  const RunConfig config = load_run_config(options.config, options.set);
  if (options.out) require_writable_file(*options.out);
  const Runtime runtime = make_runtime(choose_device(config.training.device, config.training.dtype, "training.device"));
  RunInputs inputs = open_step_inputs(config);
  WorkRecorder recorder(make_timeline(runtime.device->kind(), {}));
  const StepTimes times = StepBench(config, runtime, inputs, options).time(recorder);
  // Afterwards: the model's memory is free again, and the device as warm as it was in the steps.
  const Ceilings ceilings = measure_ceilings(runtime, recorder);
  print_table(times, ceilings, runtime.dtype);
  if (!options.out) return;
  std::filesystem::create_directories(std::filesystem::absolute(*options.out).parent_path());
  write_file_durably(*options.out, to_json(times, ceilings, runtime, config, options).dump(2) + "\n");
}

}  // namespace lathe
