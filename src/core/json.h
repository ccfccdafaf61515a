// JSON as a plain value. The parser (nlohmann-json) is seen by json.cpp alone, so that including this stays cheap.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace lathe {

class Json {
 public:
  struct Member;
  using Array = std::vector<Json>;
  using Object = std::vector<Member>;  // in file order

  Json() = default;
  Json(bool value) : value_(value) {}
  Json(double value) : value_(value) {}
  Json(std::int64_t value) : value_(value) {}
  Json(int value) : value_(std::int64_t{value}) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value);

  // Throws InputError naming `source`, with the place: bad syntax, a key twice in one object, nesting deeper than 64.
  // A whole number outside int64 becomes a double.
  static Json parse(std::string_view text, std::string_view source);

  // Compact with indent < 0. Doubles get the shortest digits that read back equal; non-finite ones become null.
  std::string dump(int indent = -1) const;

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const { return std::holds_alternative<std::int64_t>(value_); }
  bool is_number() const { return is_integer() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  // Each throws InputError if the value is of another type; `number` takes integers too.
  bool boolean() const;
  std::int64_t integer() const;
  double number() const;
  const std::string& string() const;
  const Array& array() const;
  const Object& object() const;

  // The member called `key`, or null: also for values that are no object.
  const Json* find(std::string_view key) const;
  // Adds or replaces a member; a null value becomes an object first.
  void set(std::string key, Json value);
  void push_back(Json value);

  bool operator==(const Json& other) const;

  // "a number", "a string", ... for messages.
  std::string_view type_name() const;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> value_;
};

struct Json::Member {
  std::string key;
  Json value;
  bool operator==(const Member&) const = default;
};

inline Json::Json(Object value) : value_(std::move(value)) {}

}  // namespace lathe
