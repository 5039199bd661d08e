// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/special_tokens.hpp"

#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
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
  token = text.get<std::string>();
}

void take_tokens(json const& document, std::filesystem::path const& path, SpecialTokenRules& rules) {
  take_token(document, "bos_token", path, rules.bos);
  take_token(document, "eos_token", path, rules.eos);
  take_token(document, "pad_token", path, rules.pad);
  take_token(document, "unk_token", path, rules.unk);
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

}  // namespace

SpecialTokenRules read_special_token_rules(std::filesystem::path const& model_dir) {
  SpecialTokenRules rules;
  auto const tokenizer_path = model_dir / "tokenizer_config.json";
  if (auto const document = optional_json(tokenizer_path); !document.is_null()) {
    take_tokens(document, tokenizer_path, rules);
    rules.add_bos = flag_in(document, "add_bos_token");
    rules.add_eos = flag_in(document, "add_eos_token");
  }
  auto const map_path = model_dir / "special_tokens_map.json";
  if (auto const document = optional_json(map_path); !document.is_null())
    take_tokens(document, map_path, rules);
  auto const config_path = model_dir / "config.json";
  if (auto const document = optional_json(config_path); !document.is_null()) {
    rules.bos_id = id_in(document, "bos_token_id", config_path);
    rules.eos_id = id_in(document, "eos_token_id", config_path);
    rules.pad_id = id_in(document, "pad_token_id", config_path);
  }
  return rules;
}

}  // namespace fsllm
