#include "device/work_recorder.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "core/error.h"

namespace lathe {

void WorkRecorder::begin(std::string_view name, const Work& work) {
  check(!inside_, "{} is to be timed inside of {}: it would count twice", name,
        spans_.empty() ? "" : classes_[spans_.back()].name);
  inside_ = true;
  auto found = std::ranges::find(classes_, name, &Class::name);
  if (found == classes_.end()) found = classes_.insert(found, {.name = name});
  ++found->calls;
  found->work.flops += work.flops;
  found->work.bytes += work.bytes;
  spans_.push_back(static_cast<std::size_t>(found - classes_.begin()));
  timeline_->begin();
}

void WorkRecorder::end() {
  timeline_->end();
  inside_ = false;
}

// A span that has begun is ended, or all later ones would be taken for their neighbours.
void WorkRecorder::end_after_failure() noexcept {
  inside_ = false;
  try {
    timeline_->end();
  } catch (const std::exception&) {  // the failure that is being reported says more
  }
}

std::vector<WorkRecorder::Class> WorkRecorder::take() {
  const std::vector<double> times = timeline_->take();
  for (std::size_t i = 0; i < times.size(); ++i) classes_[spans_[i]].microseconds += times[i];
  spans_.clear();
  return std::exchange(classes_, {});
}

}  // namespace lathe
