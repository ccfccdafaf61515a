#include "core/json.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"

namespace lathe {
namespace {

constexpr std::size_t kMaxDepth = 64;

// Builds a Json from the parser's events; the open containers form a stack of pointers into the value under way.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Builder(std::string_view source) : source_(source) {}

  Json take() { return std::move(root_); }

  bool null() override { return put(Json()); }
  bool boolean(bool value) override { return put(Json(value)); }
  bool number_integer(number_integer_t value) override { return put(Json(std::int64_t{value})); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max()))
      return put(Json(static_cast<double>(value)));
    return put(Json(static_cast<std::int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t&) override { return put(Json(value)); }
  bool string(string_t& value) override { return put(Json(std::move(value))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json(Json::Object{})); }
  bool start_array(std::size_t) override { return open(Json(Json::Array{})); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) refuse("{}: the key \"{}\" stands twice in one object", source_, name);
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) override {
    std::string_view what = error.what();  // "[json.exception.parse_error.101] parse error at line 1, ...: reason"
    if (const auto end = what.find("] "); end != std::string_view::npos) what.remove_prefix(end + 2);
    std::string line(what.substr(0, 200));
    for (char& c : line)
      if (static_cast<unsigned char>(c) < ' ') c = ' ';
    refuse("{}: not valid JSON at byte {}: {}", source_, position, line);
  }

 private:
  Json* place(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return const_cast<Json*>(&parent.array().back());
    }
    auto& members = const_cast<Json::Object&>(parent.object());
    members.push_back({std::move(key_), std::move(value)});
    return &members.back().value;
  }
  bool put(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (stack_.size() == kMaxDepth) refuse("{}: JSON nested deeper than {}", source_, kMaxDepth);
    stack_.push_back(place(std::move(value)));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  std::string source_;
  Json root_;
  std::vector<Json*> stack_;
  std::vector<std::set<std::string>> keys_;
  std::string key_;
};

nlohmann::ordered_json convert(const Json& value) {
  if (value.is_bool()) return value.boolean();
  if (value.is_integer()) return value.integer();
  if (value.is_number()) return value.number();
  if (value.is_string()) return value.string();
  if (value.is_array()) {
    auto out = nlohmann::ordered_json::array();
    for (const Json& item : value.array()) out.push_back(convert(item));
    return out;
  }
  if (value.is_object()) {
    auto out = nlohmann::ordered_json::object();
    for (const auto& [key, item] : value.object()) out[key] = convert(item);
    return out;
  }
  return nullptr;
}

}  // namespace

Json Json::parse(std::string_view text, std::string_view source) {
  Builder builder(source);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

std::string Json::dump(int indent) const {
  return convert(*this).dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool Json::boolean() const {
  if (!is_bool()) refuse("expected true or false, found {}", type_name());
  return std::get<bool>(value_);
}

std::int64_t Json::integer() const {
  if (!is_integer()) refuse("expected a whole number, found {}", type_name());
  return std::get<std::int64_t>(value_);
}

double Json::number() const {
  if (is_integer()) return static_cast<double>(integer());
  if (!is_number()) refuse("expected a number, found {}", type_name());
  return std::get<double>(value_);
}

const std::string& Json::string() const {
  if (!is_string()) refuse("expected a string, found {}", type_name());
  return std::get<std::string>(value_);
}

const Json::Array& Json::array() const {
  if (!is_array()) refuse("expected a list, found {}", type_name());
  return std::get<Array>(value_);
}

const Json::Object& Json::object() const {
  if (!is_object()) refuse("expected an object, found {}", type_name());
  return std::get<Object>(value_);
}

const Json* Json::find(std::string_view key) const {
  if (!is_object()) return nullptr;
  for (const auto& member : object())
    if (member.key == key) return &member.value;
  return nullptr;
}

void Json::set(std::string key, Json value) {
  if (is_null()) value_ = Object{};
  for (auto& member : std::get<Object>(value_)) {
    if (member.key == key) {
      member.value = std::move(value);
      return;
    }
  }
  std::get<Object>(value_).push_back({std::move(key), std::move(value)});
}

void Json::push_back(Json value) {
  if (is_null()) value_ = Array{};
  std::get<Array>(value_).push_back(std::move(value));
}

bool Json::operator==(const Json& other) const { return value_ == other.value_; }

std::string_view Json::type_name() const {
  if (is_null()) return "null";
  if (is_bool()) return "true or false";
  if (is_integer()) return "a whole number";
  if (is_number()) return "a fractional number";
  if (is_string()) return "a string";
  return is_array() ? "a list" : "an object";
}

}  // namespace lathe
