// What the tests of src/data share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "data/token_file_writer.h"

namespace lathe {

// A folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "lathe-data-XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, "{}: cannot be made", name);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

inline void write_documents(const std::filesystem::path& prefix,
                            const std::vector<std::vector<std::int32_t>>& documents, TokenType type = TokenType::u16) {
  TokenFileWriter writer(prefix, type);
  for (const auto& document : documents) writer.append_document(document);
  writer.finish();
}

// Runs `call`, which must throw InputError, and looks for each part in its message.
template <typename Call>
void expect_refused(const Call& call, std::initializer_list<std::string_view> parts) {
  try {
    call();
  } catch (const InputError& error) {
    const std::string message = error.what();
    for (const auto part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << "\"" << part << "\" is not in: " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return;
  }
  ADD_FAILURE() << "not refused; expected: " << *parts.begin();
}

}  // namespace lathe
