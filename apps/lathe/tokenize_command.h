// `lathe tokenize`
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace lathe {

struct TokenizeOptions {
  std::string tokenizer;  // "bytes" or a folder with tokenizer.json
  std::filesystem::path out;
  std::vector<std::filesystem::path> files;
};

void run_tokenize(const TokenizeOptions& options);

}  // namespace lathe
