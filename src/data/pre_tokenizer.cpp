#include "data/pre_tokenizer.h"

#include "core/error.h"
#include "data/json_fields.h"

namespace lathe {
namespace {

// GPT-2's.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace

PreTokenizer::PreTokenizer(const Json* description, const std::string& source) {
  require(description != nullptr && !description->is_null(), "{}: no pre_tokenizer; supported: ByteLevel", source);
  add(*description, source);
  require(byte_level_, "{}: the pre_tokenizer has no ByteLevel; supported: byte-level BPE", source);
}

void PreTokenizer::add(const Json& description, const std::string& source) {
  require(!byte_level_, "{}: a pre_tokenizer after ByteLevel is not supported", source);
  const std::string type = string_field(description, "type", "pre_tokenizer", source);
  if (type == "Sequence") {
    const Json* parts = description.find("pretokenizers");
    require(parts != nullptr && parts->is_array(), "{}: a pre_tokenizer Sequence needs a list \"pretokenizers\"",
            source);
    for (const Json& part : parts->array()) add(part, source);
  } else if (type == "Split") {
    add_split(description, source);
  } else if (type == "Digits") {
    const bool individual = bool_field(description, "individual_digits", false, source);
    steps_.push_back({Step::Kind::isolate, std::nullopt});
    steps_.back().regex.emplace(individual ? "\\p{N}" : "\\p{N}+", source);
  } else if (type == "ByteLevel") {
    add_byte_level(description, source);
  } else {
    refuse("{}: pre_tokenizer {} is not supported; supported: ByteLevel, Split, Digits, Sequence", source, type);
  }
}

void PreTokenizer::add_split(const Json& description, const std::string& source) {
  const std::string behavior = string_field(description, "behavior", "pre_tokenizer Split", source);
  require(behavior == "Isolated" || behavior == "Removed",
          "{}: pre_tokenizer Split with behavior {} is not supported; supported: Isolated, Removed", source, behavior);
  const bool invert = bool_field(description, "invert", false, source);
  const Json* pattern = description.find("pattern");
  const Json* regex = pattern == nullptr ? nullptr : pattern->find("Regex");
  const Json* literal = pattern == nullptr ? nullptr : pattern->find("String");
  require((regex != nullptr && regex->is_string()) || (literal != nullptr && literal->is_string()),
          "{}: pre_tokenizer Split needs a pattern, Regex or String", source);
  require(literal == nullptr || !literal->string().empty(), "{}: pre_tokenizer Split has an empty String", source);
  auto kind = Step::Kind::isolate;
  if (behavior == "Removed") kind = invert ? Step::Kind::keep_matches : Step::Kind::drop_matches;
  steps_.push_back({kind, std::nullopt});
  steps_.back().regex.emplace(regex != nullptr ? regex->string() : quote_regex(literal->string()), source);
}

void PreTokenizer::add_byte_level(const Json& description, const std::string& source) {
  byte_level_ = true;
  if (bool_field(description, "add_prefix_space", true, source))
    steps_.push_back({Step::Kind::prefix_space, std::nullopt});
  if (bool_field(description, "use_regex", true, source)) {
    steps_.push_back({Step::Kind::isolate, std::nullopt});
    steps_.back().regex.emplace(kByteLevelPattern, source);
  }
}

const std::vector<std::string_view>& PreTokenizer::split(std::string_view text, Scratch& scratch) const {
  auto& pieces = scratch.pieces;
  auto& next = scratch.next;
  scratch.texts.clear();
  pieces.clear();
  if (!text.empty()) pieces.push_back(text);
  for (const Step& step : steps_) {
    next.clear();
    for (const std::string_view piece : pieces) {
      if (step.kind == Step::Kind::prefix_space) {
        const bool has_space = piece.front() == ' ';
        next.push_back(has_space ? piece : scratch.texts.emplace_back(" ").append(piece));
        continue;
      }
      const auto put = [&](std::size_t begin, std::size_t end, bool wanted) {
        if (wanted && end > begin) next.push_back(piece.substr(begin, end - begin));
      };
      step.regex->find_all(piece, scratch.regex, scratch.matches);
      std::size_t done = 0;
      for (const auto& match : scratch.matches) {
        put(done, match.begin, step.kind != Step::Kind::keep_matches);
        put(match.begin, match.end, step.kind != Step::Kind::drop_matches);
        done = match.end;
      }
      put(done, piece.size(), step.kind != Step::Kind::keep_matches);
    }
    pieces.swap(next);
  }
  return pieces;
}

}  // namespace lathe
