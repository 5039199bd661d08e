// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/vocabulary.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

bool names_tokens(TokenAdditions const& additions) {
  return !additions.eos.empty() || !additions.pad.empty() || !additions.additional.empty();
}

/// The adapter's rows stand for the tokens of its own tokenizer.
void check_ids(TokenAdditions const& additions, Tokenizer const& tokenizer, fs::path const& model_dir,
               fs::path const& adapter_dir) {
  if (!names_tokens(additions) || tokenizer_source(model_dir, adapter_dir) != adapter_dir) return;
  auto const adapters = load_tokenizer(adapter_dir);
  auto tokens = additions.additional;
  tokens.insert(tokens.end(), {additions.eos, additions.pad});
  for (auto const& token : tokens) {
    auto const here = tokenizer.token_id(token), there = adapters->token_id(token);
    auto const text = [](auto id) { return id ? std::to_string(*id) : std::string("absent"); };
    FSLLM_CHECK(
        token.empty() || here == there,
        "llm.added_tokens: '{}' has the id {} (in {}: {}). Leave llm.added_tokens out; the adapter brings "
        "its tokens along.",
        token, text(here), adapter_dir.string(), text(there));
  }
}

}  // namespace

void write_special_ids(fs::path const& model_dir, Tokenizer const& tokenizer) {
  for (auto const* name : {"config.json", "generation_config.json"}) {
    auto const file = model_dir / name;
    if (!fs::exists(file)) continue;
    auto config = nlohmann::ordered_json::parse(read_file(file));
    for (auto const& [key, id] : {std::pair{"bos_token_id", tokenizer.bos_id()},
                                  {"eos_token_id", tokenizer.eos_id()},
                                  {"pad_token_id", tokenizer.pad_id()}}) {
      auto const known = config.find(key);
      bool const listed = id && known != config.end() && known->is_array() &&
                          std::find(known->begin(), known->end(), *id) != known->end();
      if (id && !listed) config[key] = *id;
    }
    write_file_atomic(file, config.dump(2) + "\n");
  }
}

Vocabulary load_vocabulary(RunConfig const& run, fs::path const& model_dir, ModelConfig const& model) {
  auto const& additions = run.data.added_tokens;
  fs::path const adapter_dir = run.peft.init_from;
  Vocabulary vocabulary;
  vocabulary.source = names_tokens(additions) ? model_dir : tokenizer_source(model_dir, adapter_dir);
  vocabulary.size = model.vocab_size;
  if (!has_tokenizer(vocabulary.source)) {
    FSLLM_CHECK(
        !names_tokens(additions),
        "llm.added_tokens ({} holds no tokenizer to add them to). Put tokenizer.json or tokenizer.model "
        "there.",
        model_dir.string());
    return vocabulary;
  }
  vocabulary.tokenizer = load_tokenizer(vocabulary.source, additions);
  vocabulary.is_own =
      vocabulary.source != model_dir ||
      (!additions.empty() && vocabulary.tokenizer->sha256() != load_tokenizer(model_dir)->sha256());
  auto const rows = adapter_dir.empty() ? 0 : adapter_vocab_size(adapter_dir, model);
  if (!additions.empty()) vocabulary.size = std::max(vocabulary.size, vocabulary.tokenizer->vocab_size());
  if (rows == 0) return vocabulary;
  check_ids(additions, *vocabulary.tokenizer, model_dir, adapter_dir);
  FSLLM_CHECK(additions.empty() || rows >= vocabulary.tokenizer->vocab_size(),
              "{}: its embedding has {} rows (the tokenizer with llm.added_tokens has {} tokens). Leave "
              "llm.added_tokens out, or start from another adapter.",
              adapter_dir.string(), rows, vocabulary.tokenizer->vocab_size());
  vocabulary.size = rows;
  return vocabulary;
}

}  // namespace fsllm
