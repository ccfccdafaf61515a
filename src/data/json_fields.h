// Members of the objects in a tokenizer.json, checked. `source` and `where` name the place in errors.
#pragma once

#include <string>
#include <string_view>

#include "core/error.h"
#include "core/json.h"

namespace lathe {

inline std::string string_field(const Json& object, std::string_view key, std::string_view where,
                                const std::string& source) {
  const Json* value = object.find(key);
  require(value != nullptr && value->is_string(), "{}: {}: \"{}\" is {}, expected a string", source, where, key,
          value == nullptr ? "missing" : value->type_name());
  return value->string();
}

// `otherwise` where the member is missing or null.
inline bool bool_field(const Json& object, std::string_view key, bool otherwise, const std::string& source) {
  const Json* value = object.find(key);
  if (value == nullptr || value->is_null()) return otherwise;
  require(value->is_bool(), "{}: \"{}\" is {}, expected true or false", source, key, value->type_name());
  return value->boolean();
}

}  // namespace lathe
