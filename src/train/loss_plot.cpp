#include "train/loss_plot.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/log.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMaxPoints = 2000;  // two a pixel column

struct Point {
  double step = 0;
  double loss = 0;
};

struct Losses {
  std::vector<Point> training;
  std::vector<Point> validation;
};

void add_point(std::vector<Point>& points, const Json& row, std::string_view key) {
  const Json* step = row.find("step");
  const Json* loss = row.find(key);
  if (step == nullptr || loss == nullptr || !step->is_number() || !loss->is_number()) return;
  points.push_back({step->number(), loss->number()});
}

Losses read_losses(const fs::path& metrics) {
  std::ifstream file(metrics);
  check(file.is_open(), "{}: cannot be read: {}", metrics.string(), std::strerror(errno));
  Losses losses;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const Json row = Json::parse(line, fmt::format("{}: line {}", metrics.string(), number));
    add_point(losses.training, row, "cross_entropy_loss");
    add_point(losses.validation, row, "validation_loss");
  }
  check(!losses.training.empty() || !losses.validation.empty(), "{}: no losses to draw", metrics.string());
  return losses;
}

// Means of neighbours, so that a long run draws as quickly as a short one.
std::vector<Point> thin_out(const std::vector<Point>& points) {
  const std::size_t group = (points.size() + kMaxPoints - 1) / kMaxPoints;
  if (group <= 1) return points;
  std::vector<Point> means;
  for (std::size_t begin = 0; begin < points.size(); begin += group) {
    const std::size_t end = std::min(begin + group, points.size());
    Point sum;
    for (std::size_t i = begin; i < end; ++i) {
      sum.step += points[i].step;
      sum.loss += points[i].loss;
    }
    const auto count = static_cast<double>(end - begin);
    means.push_back({sum.step / count, sum.loss / count});
  }
  return means;
}

// A string of gnuplot's, where '' stands for a quote.
std::string quote(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') quoted += '\'';
    quoted += c == '\n' ? ' ' : c;
  }
  return quoted + "'";
}

void append_data(std::string& script, std::string_view name, const std::vector<Point>& points) {
  script += fmt::format("${} << EOD\n", name);
  for (const Point& point : points) script += fmt::format("{} {}\n", point.step, point.loss);
  script += "EOD\n";
}

double last_step(const Losses& losses) {
  double last = 1;
  if (!losses.training.empty()) last = std::max(last, losses.training.back().step);
  if (!losses.validation.empty()) last = std::max(last, losses.validation.back().step);
  return last;
}

std::string make_script(const Losses& losses, const fs::path& png, std::span<const ReferenceLoss> references) {
  std::string script = fmt::format(
      "set terminal pngcairo size 1000,600 noenhanced font 'DejaVu Sans,12'\n"
      "set output {}\n"
      "set xlabel 'step'\n"
      "set ylabel 'cross-entropy (nats a token)'\n"
      "set grid back linetype 1 linewidth 1 linecolor rgb '#dddddd'\n"
      "set border 3\nset tics nomirror\n"
      "set key top right\n"
      "set xrange [0:{}]\n"
      "set offsets graph 0, graph 0, graph 0.05, graph 0.05\n",
      quote(png.string()), last_step(losses));
  std::string plots;
  const auto add_plot = [&](const std::string& what) { plots += (plots.empty() ? "plot " : ", ") + what; };
  constexpr std::array kColors{"#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#17becf"};
  std::size_t widest = 0;
  for (std::size_t i = 0; i < references.size(); ++i) {
    const auto& [name, value] = references[i];
    const std::string label = fmt::format("{} {:.2f}", name, value);
    const char* color = kColors[i % kColors.size()];
    widest = std::max(widest, label.size());
    // The name stands beside the axis, where no curve crosses it.
    script += fmt::format("set label {} at graph 1.01, first {} left textcolor rgb '{}'\n", quote(label), value, color);
    add_plot(fmt::format("{} with lines dashtype 2 linewidth 1.5 linecolor rgb '{}' notitle", value, color));
  }
  script += fmt::format("set rmargin {}\n", widest + 3);
  if (!losses.training.empty()) {
    append_data(script, "training", thin_out(losses.training));
    add_plot("$training using 1:2 with lines linewidth 1.5 linecolor rgb '#1f77b4' title 'training'");
  }
  if (!losses.validation.empty()) {
    append_data(script, "validation", thin_out(losses.validation));
    add_plot(
        "$validation using 1:2 with linespoints linewidth 2 pointtype 7 pointsize 1 linecolor rgb '#d62728' "
        "title 'validation'");
  }
  return script + plots + "\n";
}

// A file without a name, for a child's standard input or output: unlike a pipe it never blocks and never signals.
class NamelessFile {
 public:
  explicit NamelessFile(const char* purpose) : fd_(::memfd_create(purpose, MFD_CLOEXEC)) {
    check(fd_ >= 0, "no memory for {}: {}", purpose, std::strerror(errno));
  }
  ~NamelessFile() { ::close(fd_); }
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;
  int get() const { return fd_; }

  void set_content(std::string_view text) const {
    const ssize_t count = ::pwrite(fd_, text.data(), text.size(), 0);
    check(count == static_cast<ssize_t>(text.size()), "no memory for {} bytes: {}", text.size(), std::strerror(errno));
  }

  // The first line that says something.
  std::string first_line() const {
    std::array<char, 1000> text{};
    const ssize_t count = ::pread(fd_, text.data(), text.size(), 0);
    std::string_view rest(text.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    rest.remove_prefix(std::min(rest.find_first_not_of(" \t\n"), rest.size()));
    return std::string(rest.substr(0, rest.find('\n')));
  }

 private:
  int fd_;
};

void run_gnuplot(std::string_view script) {
  const NamelessFile input("gnuplot-script");
  const NamelessFile messages("gnuplot-messages");
  input.set_content(script);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, messages.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, messages.get(), STDERR_FILENO);
  std::string program = "gnuplot";
  std::string skip_start_files = "-d";
  const std::array<char*, 3> arguments{program.data(), skip_start_files.data(), nullptr};
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, "gnuplot", &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  check(error != ENOENT, "gnuplot is not installed");
  check(error == 0, "gnuplot cannot be started: {}", std::strerror(error));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) check(errno == EINTR, "gnuplot was lost: {}", std::strerror(errno));
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "gnuplot failed: {}", messages.first_line());
}

}  // namespace

bool write_loss_plot(const fs::path& metrics, const fs::path& png, std::span<const ReferenceLoss> references) {
  try {
    run_gnuplot(make_script(read_losses(metrics), png, references));
    return true;
  } catch (const Error& error) {
    log_warning("no loss plot: {}", error.what());
    return false;
  }
}

}  // namespace lathe
