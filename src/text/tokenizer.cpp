// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/tokenizer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/gguf_tokenizer.hpp"
#include "fsllm/text/json_tokenizer.hpp"
#include "fsllm/text/sentencepiece_tokenizer.hpp"
#include "gpt2_files.hpp"
#include "ruled_tokenizer.hpp"
#include "tiktoken.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// Identifies the vocabulary file and the rules around it (not, say, the chat template).
std::string fingerprint(std::string const& file_sha256, SpecialTokenRules const& rules) {
  auto const text = [](auto const& value) { return value ? fmt::format("{}", *value) : std::string("-"); };
  auto all = fmt::format("{} {} {} {} {} {} {}", file_sha256, text(rules.bos), text(rules.eos),
                         text(rules.bos_id), text(rules.eos_id), text(rules.add_bos), text(rules.add_eos));
  for (auto const& token : rules.added) {
    all += fmt::format(" {} {}", token.id, token.content);
    if (token.lstrip || token.rstrip || token.single_word)
      all += fmt::format(" {}{}{}", token.lstrip, token.rstrip, token.single_word);
  }
  for (auto const& token : rules.further) {
    auto const listed = [&](AddedToken const& other) { return other.content == token.content; };
    if (std::none_of(rules.added.begin(), rules.added.end(), listed))
      all += fmt::format(" further {} {}{}", token.content, token.lstrip, token.rstrip);
  }
  if (rules.legacy) all += " legacy";
  if (rules.add_prefix_space) all += fmt::format(" prefix {}", *rules.add_prefix_space);
  return sha256(all);
}

std::unique_ptr<Tokenizer> make_json(nlohmann::json const& document, SpecialTokenRules const& rules,
                                     std::string const& file_sha256, fs::path const& file) {
  FSLLM_CHECK(
      document.is_object(),
      "{}: not a tokenizer.json of Hugging Face tokenizers (it is no JSON object). Copy the file again.",
      file.string());
  try {
    return std::make_unique<JsonTokenizer>(document, rules, fingerprint(file_sha256, rules), file.string());
  } catch (nlohmann::json::exception const& error) {
    auto const what = std::string(error.what());  // "[json.exception....] key 'model' not found"
    fail(fmt::format("{}: not a tokenizer.json of Hugging Face tokenizers ({}). Copy the file again.",
                     file.string(),
                     what.substr(what.find("] ") == std::string::npos ? 0 : what.find("] ") + 2)));
  }
}

std::unique_ptr<Tokenizer> load_gguf(GgufTokenizer const& found, SpecialTokenRules const& rules,
                                     fs::path const& file) {
  auto const hash = sha256(found.content);
  if (found.file_name == "tokenizer.json")
    return make_json(parse_json(found.content, file.string()), rules, hash, file);
  return std::make_unique<SentencePieceTokenizer>(found.content, rules, fingerprint(hash, rules),
                                                  file.string());
}

/// A tokenizer.model, which is one of two formats.
std::unique_ptr<Tokenizer> load_model(fs::path const& file, SpecialTokenRules const& rules) {
  auto const content = read_file(file);
  auto const hash = fingerprint(sha256(content), rules);
  if (is_tiktoken(content)) return read_tiktoken(content, rules, hash, file.string());
  return std::make_unique<SentencePieceTokenizer>(content, rules, hash, file.string());
}

std::unique_ptr<Tokenizer> load_gpt2(Gpt2Files const& files, SpecialTokenRules const& rules) {
  auto const merges = read_file(files.merges);
  auto const hash = sha256(sha256_file(files.vocabulary) + sha256(merges));
  return make_json(gpt2_document(read_json(files.vocabulary), merges, rules, files.merges.string()), rules,
                   hash, files.merges);
}

std::unique_ptr<Tokenizer> load_folder(fs::path const& model, SpecialTokenRules const& rules) {
  auto const json_file = model / "tokenizer.json", model_file = model / "tokenizer.model";
  if (fs::exists(json_file)) return make_json(read_json(json_file), rules, sha256_file(json_file), json_file);
  if (fs::exists(model_file)) return load_model(model_file, rules);
  return load_gpt2(*find_gpt2_files(model), rules);
}

}  // namespace

std::vector<int32_t> Tokenizer::encode_beginning(std::string_view text) const {
  auto ids = prefix();
  auto const words = encode(text, false);
  ids.insert(ids.end(), words.begin(), words.end());
  return ids;
}

bool has_tokenizer(fs::path const& model_dir) {
  if (is_gguf(model_dir)) return GgufReader(model_dir).metadata().contains("tokenizer.ggml.model");
  return fs::exists(model_dir / "tokenizer.json") || fs::exists(model_dir / "tokenizer.model") ||
         find_gpt2_files(model_dir);
}

fs::path tokenizer_source(fs::path const& model_dir, fs::path const& adapter_dir) {
  bool const brings = !adapter_dir.empty() && has_tokenizer(adapter_dir);
  return brings && !is_tokenizer_copy(adapter_dir, model_dir) ? adapter_dir : model_dir;
}

RuledTokenizer load_ruled_tokenizer(fs::path const& model, TokenAdditions const& additions) {
  FSLLM_CHECK(
      has_tokenizer(model),
      "{} has no tokenizer (neither tokenizer.json nor tokenizer.model, nor vocab.json with merges.txt). "
      "Copy the tokenizer files of the model there.",
      model.string());
  std::optional<GgufTokenizer> gguf;
  if (is_gguf(model)) gguf = read_gguf_tokenizer(GgufReader(model).metadata(), model.string());
  RuledTokenizer result{nullptr, gguf ? gguf->rules : read_special_token_rules(model)};
  auto const load = [&] {
    result.tokenizer = gguf ? load_gguf(*gguf, result.rules, model) : load_folder(model, result.rules);
  };
  load();
  if (additions.empty()) return result;
  add_tokens(result.rules, additions, *result.tokenizer);
  load();
  return result;
}

std::unique_ptr<Tokenizer> load_tokenizer(fs::path const& model, TokenAdditions const& additions) {
  return load_ruled_tokenizer(model, additions).tokenizer;
}

}  // namespace fsllm
