// "Did you mean": the known name that is fewest edits away.
#pragma once

#include <span>
#include <string_view>

namespace lathe {

// Inserted, removed, replaced and swapped neighbouring characters; only the first 128 of each name count.
int edit_distance(std::string_view a, std::string_view b);

// The first of the nearest; `known` holds at least one name.
std::string_view nearest_name(std::string_view name, std::span<const std::string_view> known);

}  // namespace lathe
