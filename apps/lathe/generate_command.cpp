#include <algorithm>
#include <cstdio>

#include "data/tokenizer.h"
#include "lathe/commands.h"
#include "lathe/process.h"
#include "lathe/runtime.h"
#include "train/generate.h"
#include "train/model_io.h"

namespace lathe {

int run_generate(const GenerateOptions& options) {
  const OpenedModel opened = open_model(options.checkpoint);
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(tokenizer_of(opened.folder));
  require(tokenizer->vocab_size() <= opened.config.vocab_size, "{}: vocab_size is {}, its tokenizer needs {}",
          opened.folder.string(), opened.config.vocab_size, tokenizer->vocab_size());
  // Without a prompt the text begins as a document does: after the end of another.
  std::vector<std::int32_t> prompt = tokenizer->encode(options.prompt);
  if (prompt.empty()) prompt.push_back(tokenizer->end_of_document());
  const auto needed = static_cast<std::int64_t>(prompt.size()) + options.max_tokens;
  const std::int64_t positions = std::min(needed, opened.config.max_position_embeddings);
  require(static_cast<std::int64_t>(prompt.size()) <= positions, "the prompt has {} tokens, the model takes {}",
          prompt.size(), positions);
  const LoadedModel model = load_model(opened, {.device = options.device, .max_positions = positions});

  std::vector<std::int32_t> stop = {tokenizer->end_of_document()};
  for (const std::int64_t id : opened.config.eos_token_ids) stop.push_back(static_cast<std::int32_t>(id));
  const auto print = [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  StreamDecoder decoder(*tokenizer);
  print(options.prompt);
  generate(*model.session, prompt,
           {.max_tokens = options.max_tokens,
            .temperature = options.temperature,
            .top_p = options.top_p,
            .seed = static_cast<std::uint64_t>(options.seed)},
           stop, positions, [&](std::int32_t token) {
             print(decoder.push(token));
             return !stdout_has_no_reader();
           });
  print(decoder.finish() + "\n");
  return 0;
}

}  // namespace lathe
