#include "train/model_io.h"

#include <unistd.h>

#include <array>
#include <cmath>
#include <map>

#include "checkpoint/manifest.h"
#include "core/file.h"
#include "core/json.h"
#include "train/host_copy.h"
#include "train/run_state.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMaxShardBytes = std::size_t{5} << 30;
constexpr std::array kTokenizerFiles = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
    "merges.txt",     "added_tokens.json"};

std::vector<std::int64_t> shape_of(const TensorView& view) {
  return {view.shape.begin(), view.shape.begin() + view.rank};
}

std::string_view torch_name(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return "bfloat16";
    case DType::f64:
      return "float64";
    default:
      return "float32";
  }
}

// The dtype that most elements of the folder are stored in.
DType main_dtype(const TensorFolder& folder) {
  std::map<DType, std::size_t> bytes;
  for (const std::string& name : folder.names()) {
    const StoredTensor& tensor = *folder.find(name);
    if (const auto dtype = tensor.readable_dtype()) bytes[*dtype] += tensor.bytes / size_of(*dtype);
  }
  DType best = DType::f32;
  for (const auto& [dtype, count] : bytes)
    if (count > bytes[best]) best = dtype;
  return best;
}

// The model as a config.json alone can describe it; throws if a checkpoint's state.json says more than that.
ModelConfig portable_config(const fs::path& folder) {
  ModelConfigOptions options{.norm_topk_prob = "ignore", .softmax_scale = 0};  // the field is copied as it is
  const double override_scale = has_run_state(folder) ? read_run_state(folder).softmax_scale : 0;
  const ModelConfig config =
      read_model_config(folder, {.norm_topk_prob = options.norm_topk_prob, .softmax_scale = override_scale});
  const ModelConfig again = parse_model_config(model_config_json(config), folder.string(), options);
  require(std::abs(again.softmax_scale - config.softmax_scale) <= 1e-12 * std::abs(config.softmax_scale),
          "{}: was trained with model.softmax_scale = {}, which config.json cannot say", folder.string(),
          config.softmax_scale);
  return again;
}

}  // namespace

ModelConfig read_folder_config(const fs::path& folder) {
  if (!has_run_state(folder)) return read_model_config(folder);
  const RunState state = read_run_state(folder);
  return read_model_config(folder, {.norm_topk_prob = state.norm_topk_prob, .softmax_scale = state.softmax_scale});
}

void require_model_tensors(const TensorFolder& folder, const ModelConfig& config, const ParameterLayout& layout) {
  std::vector<TensorFolder::Expected> expected;
  for (const ParameterLayout::Entry& entry : layout.entries()) expected.push_back({entry.name, entry.shape});
  std::vector<std::string> ignored;
  if (config.tie_word_embeddings) ignored.emplace_back("lm_head.weight");  // a second copy of the embedding
  folder.require_exactly(expected, ignored);
}

void read_weights(const TensorFolder& folder, Session& session) {
  session.fill_weights([&](const std::string& name, const TensorView& host) { folder.read_into(name, host); });
}

void write_config_files(const fs::path& folder, const ModelConfig& config, std::string_view torch_dtype) {
  Json json = model_config_json(config);
  json.set("torch_dtype", std::string(torch_dtype));
  write_file_durably(folder / "config.json", json.dump(2) + "\n");
  Json generation;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    const Json* value = json.find(key);
    if (value != nullptr && !value->is_null()) generation.set(key, *value);
  }
  if (generation.is_null()) generation = Json::Object{};
  write_file_durably(folder / "generation_config.json", generation.dump(2) + "\n");
}

void write_model_folder(const fs::path& folder, const ModelConfig& config, const ParameterLayout& layout,
                        Session& session) {
  std::vector<TensorSpec> specs;
  const std::vector<NamedTensor> tensors = layout.named(session.weights());
  for (const auto& [name, view] : tensors) specs.push_back({name, view.dtype, shape_of(view)});
  TensorFolderWriter writer(folder, std::move(specs), kMaxShardBytes);
  for (const NamedTensor& tensor : tensors)
    writer.write(HostCopy(session.device(), session.ops().stream, tensor.view).view());
  writer.finish();
  write_config_files(folder, config, torch_name(session.weights().dtype));
}

void copy_tokenizer_files(const fs::path& from, const fs::path& to) {
  for (const char* name : kTokenizerFiles)
    if (fs::is_regular_file(from / name)) write_file_durably(to / name, read_text_file(from / name));
}

std::string tokenizer_of(const fs::path& folder) {
  return fs::exists(folder / "tokenizer.json") ? folder.string() : "bytes";
}

void copy_model_folder(const fs::path& from, const fs::path& out, bool manifest) {
  const ModelConfig config = portable_config(from);
  const ParameterLayout layout(config);
  const TensorFolder folder(from);
  require_model_tensors(folder, config, layout);
  require(!fs::exists(out) || (fs::is_directory(out) && fs::is_empty(out)), "{}: exists and is not empty",
          out.string());
  require_writable_directory(out);

  std::vector<TensorSpec> specs;
  for (const ParameterLayout::Entry& entry : layout.entries()) {
    const auto dtype = folder.find(entry.name)->readable_dtype();
    require(dtype.has_value(), "{}: tensor {} cannot be read", from.string(), entry.name);
    specs.push_back({entry.name, *dtype, entry.shape});
  }

  const fs::path target = fs::absolute(out).lexically_normal();
  const fs::path whole = target.has_filename() ? target : target.parent_path();
  const fs::path temporary = whole.parent_path() / fmt::format(".tmp-{}-{}", whole.filename().string(), ::getpid());
  fs::create_directories(temporary);
  try {
    TensorFolderWriter writer(temporary, specs, kMaxShardBytes);
    for (const TensorSpec& spec : specs) {
      std::vector<std::byte> memory(spec.bytes());
      const TensorView view = TensorView::contiguous(memory.data(), spec.dtype, spec.shape);
      folder.read_into(spec.name, view);
      writer.write(view);
    }
    writer.finish();
    write_config_files(temporary, config, torch_name(main_dtype(folder)));
    copy_tokenizer_files(from, temporary);
    if (manifest) write_manifest(temporary);
    fs::remove(whole);  // an empty folder of that name
    fs::rename(temporary, whole);
    sync_directory(whole.parent_path());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
}

}  // namespace lathe
