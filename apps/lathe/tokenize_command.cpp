#include "lathe/tokenize_command.h"

#include <fmt/core.h>

#include "core/log.h"
#include "data/tokenize_corpus.h"

namespace lathe {

void run_tokenize(const TokenizeOptions& options) {
  const TokenizeResult result = tokenize_corpus({options.tokenizer, options.out, options.files});
  const std::string contents = fmt::format("{} documents, {} tokens ({})", with_commas(result.documents),
                                           with_commas(result.tokens), name_of(result.type));
  const std::string files =
      fmt::format("{} and {}", bin_path(options.out).string(), idx_path(options.out).filename().string());
  if (result.was_complete) {
    fmt::print("{} are complete already: {}; nothing to do\n", files, contents);
    return;
  }
  if (result.resumed_documents > 0)
    fmt::print("resumed after {} documents of an interrupted call\n", with_commas(result.resumed_documents));
  fmt::print("{}: {}\n", files, contents);
}

}  // namespace lathe
