// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/text/json_tokenizer.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

json const& member(json const& document, char const* name) {
  static json const none;
  auto const found = document.find(name);
  return found == document.end() ? none : *found;
}

/// How words reach the model decides how it reads its tokens: as bytes or as characters.
WordModel read_model(json const& document, std::string const& where) {
  auto const& model = document.at("model");
  // Old files leave the type out.
  auto const type = model.value("type", model.contains("merges") ? "BPE" : "Unigram");
  FSLLM_CHECK(
      type == "BPE" || type == "Unigram",
      "{}: model type '{}' is not supported (BPE and Unigram are). Use a model with such a tokenizer.", where,
      type);
  if (type == "Unigram") return Unigram(model, where + ": model");
  bool const byte_level = PreTokenizer(member(document, "pre_tokenizer"), where).byte_level();
  return Bpe(model, byte_level, where + ": model");
}

/// The usual names, for a tokenizer.json that stands alone.
constexpr char const* kBosNames[] = {"<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>"};
constexpr char const* kEosNames[] = {"</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>"};

}  // namespace

JsonTokenizer::JsonTokenizer(json const& document, SpecialTokenRules const& rules, std::string const& sha256,
                             std::string const& where)
    : JsonTokenizer(document, read_model(document, where), rules, sha256, where) {}

JsonTokenizer::JsonTokenizer(json const& document, WordModel model, SpecialTokenRules const& rules,
                             std::string const& sha256, std::string const& where)
    : normalizer_(member(document, "normalizer"), where),
      pretokenizer_(member(document, "pre_tokenizer"), where),
      model_(std::move(model)),
      decoder_(member(document, "decoder"), where),
      sha256_(sha256),
      // transformers 5 leaves the texts of BPE alone unless it is forced.
      clean_up_(rules.clean_up && (rules.clean_up_bpe || !std::holds_alternative<Bpe>(model_))) {
  read_added_tokens(document, rules, where);
  read_post_processor(member(document, "post_processor"), where);
  apply_rules(rules);
  vocab_size_ = std::visit([](auto const& words) { return words.size(); }, model_);
  for (auto const* ids : {&prefix_, &suffix_})
    for (int32_t const id : *ids)
      FSLLM_CHECK(id >= 0, "{}: post_processor adds the id {}. Copy the file again.", where, id);
  if (!added_.empty()) vocab_size_ = std::max<int64_t>(vocab_size_, added_.rbegin()->first + 1);
}

void JsonTokenizer::read_added_tokens(json const& document, SpecialTokenRules const& rules,
                                      std::string const& where) {
  for (auto const& entry : member(document, "added_tokens")) {
    auto const token = parse_added_token(entry, entry.at("id").get<int64_t>(), where);
    added_[token.id] = token;
    added_ids_.emplace(token.content, token.id);
  }
  for (auto token : rules.added) {
    token.id = model_id(token.content).value_or(token.id);
    if (auto const known = added_ids_.find(token.content); known != added_ids_.end()) {
      auto& own = added_.at(known->second);
      token.id = own.id;
      token.special |= own.special;
      if (token.only_id)
        own.special = token.special;
      else
        own = token;
    } else if (!added_.contains(token.id)) {
      added_[token.id] = token;
      added_ids_.emplace(token.content, token.id);
    }
  }
  // What has a role is special, whatever tokenizer.json says of it (as in transformers 5; Phi-3's </s>).
  for (auto const& named : {rules.bos, rules.eos, rules.pad, rules.unk}) {
    if (!named) continue;
    auto const known = added_ids_.find(*named);
    auto const id = known != added_ids_.end() ? std::optional<int32_t>(known->second) : model_id(*named);
    if (!id) continue;
    auto const place = added_.try_emplace(*id, AddedToken{*id, *named}).first;
    place->second.special = true;
    added_ids_.emplace(*named, *id);
  }
  read_further_tokens(rules);
  std::vector<AddedToken> original, normalized;
  std::vector<std::string> original_texts, normalized_texts;
  Regex::Memory memory;
  for (auto const& [id, token] : added_) {
    (token.normalized ? normalized : original).push_back(token);
    auto content = token.content;
    if (token.normalized) normalizer_.apply(content, memory);
    (token.normalized ? normalized_texts : original_texts).push_back(content);
  }
  in_original_ = AddedTokenMatcher(std::move(original), original_texts);
  in_normalized_ = AddedTokenMatcher(std::move(normalized), normalized_texts);
}

/// New ids follow all others, those of roles first, as in transformers.
void JsonTokenizer::read_further_tokens(SpecialTokenRules const& rules) {
  auto const is_new = [this](std::string const& content) { return !token_id(content); };
  auto tokens = rules.further;
  if (std::any_of(tokens.begin(), tokens.end(), [&](auto const& token) { return is_new(token.content); })) {
    std::vector<AddedToken> roles;
    for (auto const& named : {rules.bos, rules.eos, rules.unk, rules.pad})
      if (named && is_new(*named)) roles.push_back({0, *named, true});
    tokens.insert(tokens.begin(), roles.begin(), roles.end());
  }
  auto next = static_cast<int32_t>(std::visit([](auto const& words) { return words.size(); }, model_));
  if (!added_.empty()) next = std::max(next, added_.rbegin()->first + 1);
  for (auto& token : tokens) {
    if (auto const known = added_ids_.find(token.content); known != added_ids_.end()) {
      added_.at(known->second).special = true;
      continue;
    }
    auto const id = model_id(token.content);
    token.id = id ? *id : next++;
    added_[token.id] = token;
    added_ids_.emplace(token.content, token.id);
  }
}

void JsonTokenizer::read_post_processor(json const& description, std::string const& where) {
  if (description.is_null()) return;
  auto const type = description.at("type").get<std::string>();
  if (type == "Sequence") {
    for (auto const& step : description.at("processors")) read_post_processor(step, where);
  } else if (type == "TemplateProcessing") {
    read_template(description, where);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    prefix_ = {description.at("cls").at(1).get<int32_t>()};
    suffix_ = {description.at("sep").at(1).get<int32_t>()};
  } else {
    // ByteLevel only moves offsets, which nobody asks for here.
    FSLLM_CHECK(type == "ByteLevel", "{}: post_processor type '{}' is not supported.{}", where, type,
                did_you_mean(type, {"ByteLevel", "TemplateProcessing", "RobertaProcessing", "BertProcessing",
                                    "Sequence"}));
  }
}

void JsonTokenizer::read_template(json const& description, std::string const& where) {
  prefix_.clear();
  suffix_.clear();
  bool behind_text = false;
  for (auto const& item : description.at("single")) {
    if (item.contains("Sequence")) {
      FSLLM_CHECK(!behind_text,
                  "{}: post_processor template repeats the text. Use a tokenizer that does not.", where);
      behind_text = true;
      continue;
    }
    auto const name = item.at("SpecialToken").at("id").get<std::string>();
    for (auto const& id : description.at("special_tokens").at(name).at("ids"))
      (behind_text ? suffix_ : prefix_).push_back(id.get<int32_t>());
  }
}

void JsonTokenizer::apply_rules(SpecialTokenRules const& rules) {
  auto const find = [this](std::optional<std::string> const& name, std::optional<int32_t> id,
                           auto const& usual) {
    if (name) return token_id(*name);
    for (auto const* text : usual)
      if (!id && added_ids_.contains(text)) id = added_ids_.find(text)->second;
    return id;
  };
  bos_ = find(rules.bos, rules.bos_id, kBosNames);
  eos_ = find(rules.eos, rules.eos_id, kEosNames);
  pad_ = find(rules.pad, rules.pad_id, std::array<char const*, 0>{});
  // Either key, given explicitly, replaces the file's post-processor (as transformers 5 does it).
  if (!rules.add_bos && !rules.add_eos) return;
  prefix_.clear();
  suffix_.clear();
  if (rules.add_bos.value_or(false) && bos_) prefix_ = {*bos_};
  if (rules.add_eos.value_or(false) && eos_) suffix_ = {*eos_};
}

}  // namespace fsllm
