#include "train/run_state.h"

#include "core/checked.h"
#include "core/file.h"
#include "core/json.h"

namespace lathe {
namespace {

constexpr const char* kFileName = "state.json";

}  // namespace

bool has_run_state(const std::filesystem::path& folder) { return std::filesystem::exists(folder / kFileName); }

void write_run_state(const std::filesystem::path& folder, const RunState& state) {
  Json json;
  json.set("step", state.step);
  json.set("consumed_samples", state.consumed_samples);
  json.set("updates", state.updates);
  json.set("seed", narrow<std::int64_t>(state.seed));
  json.set("norm_topk_prob", state.norm_topk_prob);
  json.set("softmax_scale", state.softmax_scale);
  json.set("run_config", state.toml);
  write_file_durably(folder / kFileName, json.dump(2) + "\n");
}

RunState read_run_state(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kFileName;
  const Json json = Json::parse(read_text_file(path, std::size_t{16} << 20), path.string());
  const auto field = [&](const char* key) -> const Json& {
    const Json* value = json.find(key);
    require(value != nullptr, "{}: no field {}", path.string(), key);
    return *value;
  };
  const auto count = [&](const char* key) {
    const Json& value = field(key);
    require(value.is_integer() && value.integer() >= 0, "{}: {} is {}, expected a whole number from 0", path.string(),
            key, value.dump());
    return value.integer();
  };
  RunState state;
  state.step = count("step");
  state.consumed_samples = count("consumed_samples");
  state.updates = count("updates");
  state.seed = static_cast<std::uint64_t>(count("seed"));
  for (const char* key : {"run_config", "norm_topk_prob"})
    require(field(key).is_string(), "{}: {} is no string", path.string(), key);
  state.toml = field("run_config").string();
  state.norm_topk_prob = field("norm_topk_prob").string();
  require(field("softmax_scale").is_number(), "{}: softmax_scale is no number", path.string());
  state.softmax_scale = field("softmax_scale").number();
  return state;
}

}  // namespace lathe
