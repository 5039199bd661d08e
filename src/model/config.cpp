// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/config.hpp"

#include <algorithm>
#include <utility>

#include "config_json.hpp"
#include "families/family.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/jsonl.hpp"
#include "gguf/gguf_config.hpp"

namespace fsllm {
namespace detail {

ActivationKind parse_activation(ConfigJson const& json, std::string const& key, std::string const& fallback) {
  static std::vector<std::pair<std::string, ActivationKind>> const known = {
      {"silu", ActivationKind::silu},
      {"swish", ActivationKind::silu},
      {"gelu", ActivationKind::gelu},
      {"gelu_new", ActivationKind::gelu_tanh},
      {"gelu_fast", ActivationKind::gelu_tanh},
      {"gelu_pytorch_tanh", ActivationKind::gelu_tanh},
      {"relu", ActivationKind::relu}};
  auto const name = json.text(key, fallback);
  std::vector<std::string> names;
  for (auto const& [text, kind] : known) {
    if (name == text) return kind;
    names.push_back(text);
  }
  json.refuse(fmt::format("'{}' = '{}' (not a known activation).{}", key, name, did_you_mean(name, names)));
}

}  // namespace detail

namespace {

void check_sizes(ModelConfig const& config, detail::ConfigJson const& json) {
  if (config.num_heads % config.num_kv_heads != 0)
    json.refuse(fmt::format("{} attention heads (not a multiple of {} key/value heads). Correct one of them.",
                            config.num_heads, config.num_kv_heads));
  bool const turns = config.position == PositionKind::rope;
  if (turns && config.rotary_dim == config.head_dim && config.head_dim % 2 != 0)
    json.refuse(
        fmt::format("head size {} (rotary positions need an even one). Correct it.", config.head_dim));
  if (turns && (config.rotary_dim < 2 || config.rotary_dim > config.head_dim || config.rotary_dim % 2 != 0))
    json.refuse(fmt::format(
        "{} of the {} dimensions of a head are turned (rotary positions need an even number from 2 "
        "to all of them; rotary_pct, partial_rotary_factor or rotary_dim). Correct it.",
        config.rotary_dim, config.head_dim));
  if (config.norm_eps <= 0 || config.rope_theta <= 0)
    json.refuse("the norm's epsilon and rope_theta must be positive. Correct them.");
}

void read_special_ids(std::filesystem::path const& dir, detail::ConfigJson const& json, ModelConfig& config) {
  auto const first = [&](std::string const& key) -> std::optional<int32_t> {
    auto const ids = json.token_ids(key);
    return ids.empty() ? std::nullopt : std::optional(ids.front());
  };
  config.bos_id = first("bos_token_id");
  config.pad_id = first("pad_token_id");
  config.eos_ids = json.token_ids("eos_token_id");
  auto const generation = dir / "generation_config.json";
  if (std::filesystem::exists(generation)) {
    auto const more =
        detail::ConfigJson(read_json(generation), generation.string()).token_ids("eos_token_id");
    for (auto const id : more)
      if (std::find(config.eos_ids.begin(), config.eos_ids.end(), id) == config.eos_ids.end())
        config.eos_ids.push_back(id);
  }
  if (!config.eos_ids.empty()) config.eos_id = config.eos_ids.front();
}

detail::ConfigJson read_description(std::filesystem::path const& model) {
  if (is_gguf(model)) return {detail::gguf_config(GgufReader(model)), model.string()};
  auto const file = model / "config.json";
  FSLLM_CHECK(std::filesystem::exists(file),
              "no config.json in {} (a Hugging Face model folder holds config.json and model.safetensors). "
              "Place the model's files there.",
              model.string());
  return {read_json(file), file.string()};
}

}  // namespace

ModelConfig load_model_config(std::filesystem::path const& model) {
  auto const json = read_description(model);
  ModelConfig config;
  config.family = json.text("model_type", "");
  auto const& family = detail::find_family(config.family, json.source());
  auto const architectures = json.texts("architectures");
  config.architecture = architectures.empty() ? "" : architectures.front();
  config.lora_targets = family.lora_targets;
  config.ia3_targets = family.ia3_targets;
  config.ia3_feedforward = family.ia3_feedforward;
  config.embedding = family.prefix + family.embedding;
  config.head = family.head;
  config.attention_dropout = json.probability("attention_dropout", 0);
  family.read_config(json, config);
  config.tied_embeddings = json.boolean("tie_word_embeddings", config.tied_embeddings);
  if (config.embedding_size == 0) config.embedding_size = config.hidden_size;
  check_sizes(config, json);
  read_special_ids(model, json, config);
  return config;
}

}  // namespace fsllm
