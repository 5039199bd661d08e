// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/special_tokens.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

/// The file as a JSON object; null where there is none.
json optional_json(std::filesystem::path const& path) {
  if (!std::filesystem::exists(path)) return nullptr;
  auto document = read_json(path);
  FSLLM_CHECK(document.is_object(), "{}: not a JSON object. Copy the file again.", path.string());
  return document;
}

/// "</s>" or {"content": "</s>", ...}; null and missing leave `token` as it is.
void take_token(json const& document, char const* name, std::filesystem::path const& path,
                std::optional<std::string>& token) {
  if (token || !document.contains(name) || document.at(name).is_null()) return;
  auto const& value = document.at(name);
  auto const& text = value.is_object() && value.contains("content") ? value.at("content") : value;
  FSLLM_CHECK(text.is_string(), "{}: {} = {} (it must be a text). Correct it.", path.string(), name,
              value.dump());
  if (!text.get_ref<std::string const&>().empty()) token = text.get<std::string>();
}

/// A text, or an object with its flags; "" is no token.
void take_further(json const& entry, char const* name, std::filesystem::path const& path,
                  SpecialTokenRules& rules) {
  bool const is_object = entry.is_object() && entry.contains("content");
  auto const& content = is_object ? entry.at("content") : entry;
  FSLLM_CHECK(content.is_string(), "{}: {} holds {} (a text is needed). Correct it.", path.string(), name,
              entry.dump());
  if (content.get_ref<std::string const&>().empty()) return;
  auto token = parse_added_token(is_object ? entry : json{{"content", content}}, 0, path.string());
  token.special = true;
  auto const known = [&](AddedToken const& other) { return other.content == token.content; };
  if (std::none_of(rules.further.begin(), rules.further.end(), known)) rules.further.push_back(token);
}

/// In the order in which transformers gives new ids.
void take_further_tokens(json const& document, std::filesystem::path const& path, SpecialTokenRules& rules) {
  for (auto const* name : {"sep_token", "cls_token", "mask_token"})
    if (auto const found = document.find(name); found != document.end() && !found->is_null())
      take_further(*found, name, path, rules);
  for (auto const* name : {"additional_special_tokens", "extra_special_tokens"}) {
    auto const found = document.find(name);
    if (found == document.end() || found->is_null()) continue;
    FSLLM_CHECK(found->is_array() || found->is_object(),
                "{}: {} = {:.80} (a list of tokens is needed). Correct it.", path.string(), name,
                found->dump());
    for (auto const& entry : *found) take_further(entry, name, path, rules);
  }
}

void take_tokens(json const& document, std::filesystem::path const& path, SpecialTokenRules& rules) {
  take_token(document, "bos_token", path, rules.bos);
  take_token(document, "eos_token", path, rules.eos);
  take_token(document, "pad_token", path, rules.pad);
  take_token(document, "unk_token", path, rules.unk);
  take_further_tokens(document, path, rules);
}

std::optional<int32_t> id_in(json const& document, char const* name, std::filesystem::path const& path) {
  if (!document.contains(name) || document.at(name).is_null()) return std::nullopt;
  auto const& value = document.at(name);
  auto const& id = value.is_array() && !value.empty() ? value.at(0) : value;
  FSLLM_CHECK(id.is_number_integer(), "{}: {} = {} (it must be a token id). Correct it.", path.string(), name,
              value.dump());
  auto const number = id.get<int64_t>();
  return number < 0 || number > INT32_MAX ? std::nullopt
                                          : std::optional<int32_t>(static_cast<int32_t>(number));
}

std::optional<bool> flag_in(json const& document, char const* name) {
  if (!document.contains(name) || !document.at(name).is_boolean()) return std::nullopt;
  return document.at(name).get<bool>();
}

/// {"32000": {"content": "<pad>", ...}}
void take_added_tokens(json const& tokens, std::filesystem::path const& path, SpecialTokenRules& rules) {
  for (auto const& [key, entry] : tokens.items()) {
    bool const number = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == key.npos;
    FSLLM_CHECK(number && entry.is_object() && entry.contains("content"),
                "{}: added_tokens_decoder holds \"{}\": {} (it must be an id and a token). Correct it.",
                path.string(), key, entry.dump());
    rules.added.push_back(parse_added_token(entry, std::stoll(key), path.string()));
  }
}

/// {"<pad>": 32000}
void take_added_ids(json const& ids, std::filesystem::path const& path, SpecialTokenRules& rules) {
  for (auto const& [content, id] : ids.items()) {
    FSLLM_CHECK(id.is_number_integer(), "{}: the id of '{}' is {} (it must be a whole number). Correct it.",
                path.string(), content, id.dump());
    auto token = parse_added_token({{"content", content}}, id.get<int64_t>(), path.string());
    for (auto const& named : {rules.bos, rules.eos, rules.pad, rules.unk})
      token.special = token.special || named == content;
    token.normalized = !token.special;
    token.only_id = true;
    rules.added.push_back(std::move(token));
  }
}

/// Options of transformers that change ids and are not known here.
void refuse_options(json const& document, std::filesystem::path const& path) {
  FSLLM_CHECK(!flag_in(document, "split_special_tokens").value_or(false),
              "{}: split_special_tokens = true (no text would hold a special token, such as the end of an "
              "answer). Set it to false.",
              path.string());
  auto const options = document.find("sp_model_kwargs");
  FSLLM_CHECK(options == document.end() || options->empty(),
              "{}: sp_model_kwargs = {:.80} (options of SentencePiece are not known here). Remove them.",
              path.string(), options->dump());
}

void take_tokenizer_config(json const& document, std::filesystem::path const& path,
                           SpecialTokenRules& rules) {
  take_tokens(document, path, rules);
  rules.add_bos = flag_in(document, "add_bos_token");
  rules.add_eos = flag_in(document, "add_eos_token");
  rules.clean_up = flag_in(document, "clean_up_tokenization_spaces").value_or(false);
  rules.clean_up_bpe =
      flag_in(document, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")
          .value_or(false);
  rules.add_prefix_space = flag_in(document, "add_prefix_space");
  rules.legacy = flag_in(document, "legacy").value_or(false);
  refuse_options(document, path);
  auto const kind = document.find("tokenizer_class");
  if (kind != document.end() && kind->is_string()) rules.tokenizer_class = kind->get<std::string>();
  if (rules.tokenizer_class.ends_with("Fast")) rules.tokenizer_class.resize(rules.tokenizer_class.size() - 4);
  auto const added = document.find("added_tokens_decoder");
  if (added != document.end() && added->is_object()) take_added_tokens(*added, path, rules);
}

}  // namespace

AddedToken parse_added_token(json const& entry, int64_t id, std::string const& where) {
  FSLLM_CHECK(!entry.contains("content") || entry.at("content").is_string(),
              "{}: added token {} is {:.80} (its content must be a text). Copy the file again.", where, id,
              entry.dump());
  for (auto const* flag : {"special", "lstrip", "rstrip", "single_word", "normalized"})
    FSLLM_CHECK(!entry.contains(flag) || entry.at(flag).is_boolean(),
                "{}: added token {}: {} = {:.80} (true or false is needed). Copy the file again.", where, id,
                flag, entry.at(flag).dump());
  auto const content = entry.at("content").get<std::string>();
  FSLLM_CHECK(id >= 0 && id < kTokenIdLimit, "{}: added token '{}' has the id {}. Copy the file again.",
              where, content, id);
  return {static_cast<int32_t>(id),        content,
          entry.value("special", false),   entry.value("lstrip", false),
          entry.value("rstrip", false),    entry.value("single_word", false),
          entry.value("normalized", false)};
}

std::string clean_up_spaces(std::string text) {
  constexpr std::pair<char const*, char const*> kRules[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (auto const& [from, to] : kRules) text = replace_all(text, from, to);
  return text;
}

SpecialTokenRules read_special_token_rules(std::filesystem::path const& model_dir) {
  SpecialTokenRules rules;
  auto const tokenizer_path = model_dir / "tokenizer_config.json";
  if (auto const document = optional_json(tokenizer_path); !document.is_null())
    take_tokenizer_config(document, tokenizer_path, rules);
  auto const map_path = model_dir / "special_tokens_map.json";
  if (auto const document = optional_json(map_path); !document.is_null())
    take_tokens(document, map_path, rules);
  auto const added_path = model_dir / "added_tokens.json";
  if (auto const document = optional_json(added_path); !document.is_null())
    take_added_ids(document, added_path, rules);
  auto const config_path = model_dir / "config.json";
  if (auto const document = optional_json(config_path); !document.is_null()) {
    rules.bos_id = id_in(document, "bos_token_id", config_path);
    rules.eos_id = id_in(document, "eos_token_id", config_path);
    rules.pad_id = id_in(document, "pad_token_id", config_path);
    if (auto const type = document.find("model_type"); type != document.end() && type->is_string())
      rules.model_type = type->get<std::string>();
  }
  return rules;
}

}  // namespace fsllm
