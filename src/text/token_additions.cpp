// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/token_additions.hpp"

#include <algorithm>
#include <utility>

#include "fsllm/core/error.hpp"
#include "fsllm/text/special_tokens.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {
namespace {

/// Classes and model types of transformers whose BOS, EOS and unknown token are <|endoftext|> where no file
/// names others.
constexpr char const* kEndOfTextFamilies[] = {
    "GPT2Tokenizer", "GPTNeoXTokenizer", "CodeGenTokenizer", "gpt2", "gpt_neo", "gpt_neox", "gptj"};

bool is_end_of_text_family(SpecialTokenRules const& rules) {
  auto const& name = rules.tokenizer_class.empty() ? rules.model_type : rules.tokenizer_class;
  return std::find(std::begin(kEndOfTextFamilies), std::end(kEndOfTextFamilies), name) !=
         std::end(kEndOfTextFamilies);
}

/// FS-LLM's tokens for roles that nothing has (llm/dataloader/dataloader.py, get_tokenizer).
void add_missing_roles(SpecialTokenRules& rules, Tokenizer const& tokenizer) {
  bool const end_of_text = is_end_of_text_family(rules) && tokenizer.token_id("<|endoftext|>");
  if (!rules.pad && !tokenizer.pad_id()) rules.pad = "[PAD]";
  if (!rules.eos && !tokenizer.eos_id() && !end_of_text) rules.eos = "</s>";
  if (!rules.bos && !tokenizer.bos_id() && !end_of_text) rules.bos = "<s>";
  if (!rules.unk && !end_of_text) rules.unk = "<unk>";
}

void check_distinct(Config const& config, TokenAdditions const& additions) {
  for (auto const& token : additions.additional) {
    FSLLM_CHECK(!token.empty(), "{} holds '' (a token needs a text). Remove it.",
                config.where("llm.added_tokens.additional"));
    FSLLM_CHECK(std::count(additions.additional.begin(), additions.additional.end(), token) == 1,
                "{} holds '{}' twice. Remove one.", config.where("llm.added_tokens.additional"), token);
    FSLLM_CHECK(token != additions.eos && token != additions.pad,
                "{} holds '{}' (llm.added_tokens.{} adds it already). Remove it.",
                config.where("llm.added_tokens.additional"), token,
                token == additions.eos ? "eos_token" : "pad_token");
  }
}

}  // namespace

TokenAdditions load_token_additions(Config& config) {
  TokenAdditions additions;
  additions.eos = config.get("llm.added_tokens.eos_token", "",
                             "End-of-text token that the tokenizer gets; '': its own. A token that it lacks "
                             "gets a new id, and the embeddings a row, the mean of the others");
  additions.pad = config.get("llm.added_tokens.pad_token", "", "The same for the padding token");
  additions.additional = config.get<std::vector<std::string>>("llm.added_tokens.additional", {},
                                                              "Further special tokens, without a role");
  check_distinct(config, additions);
  return additions;
}

void add_tokens(SpecialTokenRules& rules, TokenAdditions const& additions, Tokenizer const& tokenizer) {
  // From here on these have ids of their own, which new tokens do not move.
  for (auto const& token : std::exchange(rules.further, {})) {
    auto const listed = [&](AddedToken const& other) { return other.content == token.content; };
    if (std::any_of(rules.added.begin(), rules.added.end(), listed)) continue;
    rules.added.push_back(token);
    rules.added.back().id = tokenizer.token_id(token.content).value();
  }
  auto next = static_cast<int32_t>(tokenizer.vocab_size());
  auto const add = [&](std::string const& content) {
    auto const found = std::find_if(rules.added.begin(), rules.added.end(),
                                    [&](AddedToken const& token) { return token.content == content; });
    if (found != rules.added.end()) {
      found->special = true;
      return;
    }
    auto const id = tokenizer.token_id(content);
    rules.added.push_back({id ? *id : next++, content, true, false, false, false, false});
  };
  auto const add_if_new = [&](std::optional<std::string> const& content) {
    if (content && !tokenizer.token_id(*content)) add(*content);
  };
  for (auto const& named : {rules.bos, rules.eos, rules.unk, rules.pad}) add_if_new(named);
  if (!additions.pad.empty()) rules.pad = additions.pad;
  if (!additions.eos.empty()) rules.eos = additions.eos;
  if (additions.fs_llm) add_missing_roles(rules, tokenizer);
  if (!additions.pad.empty()) add(additions.pad);
  add_if_new(rules.pad);
  if (!additions.eos.empty()) add(additions.eos);
  for (auto const& role : {rules.eos, rules.bos, rules.unk}) add_if_new(role);
  for (auto const& content : additions.additional) add(content);
}

}  // namespace fsllm
