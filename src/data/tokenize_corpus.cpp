#include "data/tokenize_corpus.h"

#include <exception>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/corpus_reader.h"
#include "data/token_file_writer.h"
#include "data/tokenize_progress.h"
#include "data/tokenizer.h"
#include "data/utf8.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kBatchDocuments = 8192;

struct Document {
  RawDocument raw;
  std::vector<std::int32_t> ids;
  std::exception_ptr error;
};

// Replaces `batch` by the next documents; false at the end.
bool read_batch(CorpusReader& reader, std::size_t max_bytes, std::vector<Document>& batch) {
  batch.clear();
  std::size_t bytes = 0;
  while (bytes < max_bytes && batch.size() < kBatchDocuments) {
    Document document;
    if (!reader.next(document.raw)) break;
    bytes += document.raw.content.size();
    batch.push_back(std::move(document));
  }
  return !batch.empty();
}

// Calls `work` on each document, in parallel; throws the error of the first document that has one.
template <typename Work>
void for_each_document(std::vector<Document>& batch, const Work& work) {
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < batch.size(); ++i) {
    try {
      work(batch[i]);
    } catch (...) {
      batch[i].error = std::current_exception();
    }
  }
  for (const Document& document : batch)
    if (document.error) std::rethrow_exception(document.error);
}

void check_documents(CorpusReader& reader, const Tokenizer& tokenizer, std::size_t batch_bytes) {
  // The line that refuses stands alone on stderr, so only a terminal sees this bar, which goes away.
  Progress progress("checking", reader.bytes_total(), Progress::Where::terminal_only);
  std::vector<Document> batch;
  while (read_batch(reader, batch_bytes, batch)) {
    for_each_document(batch, [&](Document& document) {
      const std::size_t file = document.raw.file;
      const bool is_plain = document.raw.line == 0;
      const std::string text = reader.text_of(std::move(document.raw));
      if (!is_plain || !tokenizer.needs_utf8()) return;  // JSON is UTF-8 already
      const auto bad = find_invalid_utf8(text);
      require(bad == std::string::npos, "{}: not UTF-8 at byte {}, which this tokenizer needs",
              reader.file(file).string(), bad);
    });
    progress.update(reader.bytes_done());
  }
}

void require_output(const fs::path& prefix) {
  require(prefix.has_filename(), "{}: --out takes a folder and a name, such as corpus/train", prefix.string());
  require_writable_directory(prefix.has_parent_path() ? prefix.parent_path() : fs::path("."));
  for (const fs::path& path : {bin_path(prefix), idx_path(prefix)})
    require(!fs::exists(path) || fs::is_regular_file(path), "{}: is there and not a regular file", path.string());
}

class Tokenization {
 public:
  Tokenization(const TokenizeJob& job, const Tokenizer& tokenizer, Json source)
      : job_(job), prefix_(job.out), tokenizer_(tokenizer), source_(std::move(source)), reader_(job.files) {}

  TokenizeResult run() {
    TokenizeResult result;
    result.type = token_type_for(tokenizer_.vocab_size());
    auto state = load_progress(prefix_, source_);
    if (state && state->renaming && renames_hold(*state, result.type)) {
      result.resumed_documents = state->written.documents;
      return end(*state, result);
    }
    // A state is saved only after this check.
    if (!state) check_documents(reader_, tokenizer_, job_.batch_bytes);
    make_folder();
    TokenFileWriter writer(prefix_, result.type);
    if (!state || state->renaming || !writer.start_at(state->written)) state = TokenizeState{};
    result.resumed_documents = state->written.documents;
    write(writer, *state);
    TokenFileWriter::finish_renames(prefix_);
    return end(*state, result);
  }

 private:
  void make_folder() const {
    if (!prefix_.has_parent_path()) return;
    std::error_code error;
    fs::create_directories(prefix_.parent_path(), error);
    check(!error, "{}: cannot be made: {}", prefix_.parent_path().string(), error.message());
  }

  // Makes the renames that a killed call left, if its files are there.
  bool renames_hold(const TokenizeState& state, TokenType type) const {
    TokenFileWriter::finish_renames(prefix_);
    return fs::exists(idx_path(prefix_)) && fs::exists(bin_path(prefix_)) &&
           static_cast<std::int64_t>(fs::file_size(bin_path(prefix_))) == state.written.tokens * size_of(type);
  }

  // From `state` to the end of the files.
  void write(TokenFileWriter& writer, TokenizeState& state) {
    const auto save = [&] {
      state.written = writer.sync();
      save_progress(prefix_, source_, state);
    };
    const auto note = [&] { return with_commas(writer.position().tokens) + " tokens"; };
    save();
    reader_.seek(state.read);
    Progress progress("tokenizing", reader_.bytes_total());
    auto saved = std::chrono::steady_clock::now();
    std::vector<Document> batch;
    while (read_batch(reader_, job_.batch_bytes, batch)) {
      for_each_document(batch, [&](Document& document) {
        document.ids = tokenizer_.encode(reader_.text_of(std::move(document.raw)));
        document.ids.push_back(tokenizer_.end_of_document());
      });
      for (const Document& document : batch) writer.append_document(document.ids);
      state.read = reader_.place();
      progress.update(reader_.bytes_done(), note());
      if (std::chrono::steady_clock::now() - saved < job_.save_interval) continue;
      save();
      saved = std::chrono::steady_clock::now();
    }
    writer.prepare_index();
    state.renaming = true;
    save();
    progress.finish(note());
  }

  TokenizeResult end(const TokenizeState& state, TokenizeResult result) const {
    save_complete(prefix_, source_, state.written);
    remove_progress(prefix_);
    result.documents = state.written.documents;
    result.tokens = state.written.tokens;
    return result;
  }

  TokenizeJob job_;
  fs::path prefix_;
  const Tokenizer& tokenizer_;
  Json source_;
  CorpusReader reader_;
};

}  // namespace

TokenizeResult tokenize_corpus(const TokenizeJob& job) {
  require_output(job.out);
  const auto tokenizer = load_tokenizer(job.tokenizer);
  const CorpusReader reader(job.files);  // checks the files
  Json source = describe_source(tokenizer->fingerprint(), job.files);
  if (const auto complete = find_complete(job.out, source))
    return {complete->documents, complete->tokens, token_type_for(tokenizer->vocab_size()), 0, true};
  return Tokenization(job, *tokenizer, std::move(source)).run();
}

}  // namespace lathe
