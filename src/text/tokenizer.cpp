// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/tokenizer.hpp"

#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/bpe_tokenizer.hpp"
#include "fsllm/text/sentencepiece_tokenizer.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// Identifies the vocabulary file and the rules around it (not, say, the chat template).
std::string fingerprint(fs::path const& file, SpecialTokenRules const& rules) {
  auto const text = [](auto const& value) { return value ? fmt::format("{}", *value) : std::string("-"); };
  return sha256(fmt::format("{} {} {} {} {} {} {}", sha256_file(file), text(rules.bos), text(rules.eos),
                            text(rules.bos_id), text(rules.eos_id), text(rules.add_bos),
                            text(rules.add_eos)));
}

std::unique_ptr<Tokenizer> load_json(fs::path const& file, SpecialTokenRules const& rules) {
  auto const document = read_json(file);
  try {
    return std::make_unique<BpeTokenizer>(document, rules, fingerprint(file, rules), file.string());
  } catch (nlohmann::json::exception const& error) {
    fail(fmt::format("{}: not a tokenizer.json of Hugging Face tokenizers ({}). Copy the file again.",
                     file.string(), error.what()));
  }
}

}  // namespace

bool has_tokenizer(fs::path const& model_dir) {
  return fs::exists(model_dir / "tokenizer.json") || fs::exists(model_dir / "tokenizer.model");
}

std::unique_ptr<Tokenizer> load_tokenizer(fs::path const& model_dir) {
  FSLLM_CHECK(has_tokenizer(model_dir),
              "{} has no tokenizer (neither tokenizer.json nor tokenizer.model). Copy the "
              "tokenizer files of the model there.",
              model_dir.string());
  auto const rules = read_special_token_rules(model_dir);
  auto const json_file = model_dir / "tokenizer.json", model_file = model_dir / "tokenizer.model";
  if (fs::exists(json_file)) return load_json(json_file, rules);
  return std::make_unique<SentencePieceTokenizer>(read_file(model_file), rules,
                                                  fingerprint(model_file, rules), model_file.string());
}

}  // namespace fsllm
