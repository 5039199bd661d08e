// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/tokenizer.hpp"

#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/bpe_tokenizer.hpp"
#include "fsllm/text/gguf_tokenizer.hpp"
#include "fsllm/text/sentencepiece_tokenizer.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// Identifies the vocabulary file and the rules around it (not, say, the chat template).
std::string fingerprint(std::string const& file_sha256, SpecialTokenRules const& rules) {
  auto const text = [](auto const& value) { return value ? fmt::format("{}", *value) : std::string("-"); };
  return sha256(fmt::format("{} {} {} {} {} {} {}", file_sha256, text(rules.bos), text(rules.eos),
                            text(rules.bos_id), text(rules.eos_id), text(rules.add_bos),
                            text(rules.add_eos)));
}

std::unique_ptr<Tokenizer> make_bpe(nlohmann::json const& document, SpecialTokenRules const& rules,
                                    std::string const& file_sha256, fs::path const& file) {
  FSLLM_CHECK(
      document.is_object(),
      "{}: not a tokenizer.json of Hugging Face tokenizers (it is no JSON object). Copy the file again.",
      file.string());
  try {
    return std::make_unique<BpeTokenizer>(document, rules, fingerprint(file_sha256, rules), file.string());
  } catch (nlohmann::json::exception const& error) {
    auto const what = std::string(error.what());  // "[json.exception....] key 'model' not found"
    fail(fmt::format("{}: not a tokenizer.json of Hugging Face tokenizers ({}). Copy the file again.",
                     file.string(),
                     what.substr(what.find("] ") == std::string::npos ? 0 : what.find("] ") + 2)));
  }
}

std::unique_ptr<Tokenizer> load_gguf(fs::path const& file) {
  auto const found = read_gguf_tokenizer(GgufReader(file).metadata(), file.string());
  auto const hash = sha256(found.content);
  if (found.file_name == "tokenizer.json")
    return make_bpe(parse_json(found.content, file.string()), found.rules, hash, file);
  return std::make_unique<SentencePieceTokenizer>(found.content, found.rules, fingerprint(hash, found.rules),
                                                  file.string());
}

}  // namespace

bool has_tokenizer(fs::path const& model_dir) {
  if (is_gguf(model_dir)) return GgufReader(model_dir).metadata().contains("tokenizer.ggml.model");
  return fs::exists(model_dir / "tokenizer.json") || fs::exists(model_dir / "tokenizer.model");
}

std::unique_ptr<Tokenizer> load_tokenizer(fs::path const& model_dir) {
  FSLLM_CHECK(has_tokenizer(model_dir),
              "{} has no tokenizer (neither tokenizer.json nor tokenizer.model). Copy the "
              "tokenizer files of the model there.",
              model_dir.string());
  if (is_gguf(model_dir)) return load_gguf(model_dir);
  auto const rules = read_special_token_rules(model_dir);
  auto const json_file = model_dir / "tokenizer.json", model_file = model_dir / "tokenizer.model";
  if (fs::exists(json_file)) return make_bpe(read_json(json_file), rules, sha256_file(json_file), json_file);
  return std::make_unique<SentencePieceTokenizer>(
      read_file(model_file), rules, fingerprint(sha256_file(model_file), rules), model_file.string());
}

}  // namespace fsllm
