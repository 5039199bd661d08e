// SPDX-License-Identifier: Apache-2.0
// The keys are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
#include "gguf_config.hpp"

#include <charconv>
#include <cmath>
#include <numbers>

#include "../config_json.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm::detail {
namespace {

using nlohmann::json;

/// The metadata of one file; keys of the architecture are given without its name.
class Metadata {
 public:
  explicit Metadata(GgufReader const& file)
      : file_(file),
        json_(file.metadata(), file.path().string()),
        architecture_(json_.text("general.architecture", "")) {}
  std::string const& architecture() const { return architecture_; }
  std::string key(std::string const& name) const { return architecture_ + "." + name; }
  bool has(std::string const& name) const { return json_.has(key(name)); }
  int64_t size(std::string const& name) const { return json_.size(key(name)); }
  int64_t size_or(std::string const& name, int64_t fallback) const {
    return json_.size_or(key(name), fallback);
  }
  int64_t integer(std::string const& name, int64_t fallback) const {
    return json_.integer(key(name), fallback);
  }
  std::string text(std::string const& name, std::string const& fallback) const {
    return json_.text(key(name), fallback);
  }
  /// The shortest decimal number that is this one in single precision: 1e-05, not 9.999999747378752e-06.
  double number(std::string const& name, double fallback) const {
    auto const value = static_cast<float>(json_.number(key(name), fallback));
    char digits[32];
    auto const end = std::to_chars(std::begin(digits), std::end(digits), value).ptr;
    double shortest = fallback;
    std::from_chars(digits, end, shortest);
    return shortest;
  }
  GgufReader const& file() const { return file_; }
  ConfigJson const& all() const { return json_; }

 private:
  GgufReader const& file_;
  ConfigJson json_;
  std::string architecture_;
};

/// llama.cpp keeps llama3's scaling as one divisor a frequency. They are those of factor F, low 1, high 4,
/// 8192 original positions, as Llama 3.1 and 3.2 have them, or nothing that this version computes.
json llama3_scaling(Metadata const& metadata, int64_t head_dim, double theta) {
  constexpr double kLow = 1, kHigh = 4, kPositions = 8192, kClose = 1e-4;
  auto const divisors = metadata.file().tensor("rope_freqs.weight").to(at::kDouble).contiguous();
  auto const* values = divisors.const_data_ptr<double>();
  double const factor = divisors.numel() == 0 ? 0 : values[divisors.numel() - 1];
  bool known = divisors.numel() == head_dim / 2 && factor >= 1;
  for (int64_t i = 0; known && i < divisors.numel(); ++i) {
    double const wave =
        2 * std::numbers::pi * std::pow(theta, 2 * static_cast<double>(i) / static_cast<double>(head_dim));
    double const smooth = (kPositions / wave - kLow) / (kHigh - kLow);
    double expected = 1 / ((1 - smooth) / factor + smooth);
    if (wave < kPositions / kHigh) expected = 1;
    if (wave > kPositions / kLow) expected = factor;
    known = std::abs(values[i] - expected) <= kClose * expected;
  }
  if (!known)
    metadata.all().refuse(
        "rope_freqs.weight holds position scaling that is not llama3's (not available in this version). Use "
        "the model's Hugging Face files.");
  return {{"rope_type", "llama3"},
          {"factor", factor},
          {"low_freq_factor", kLow},
          {"high_freq_factor", kHigh},
          {"original_max_position_embeddings", static_cast<int64_t>(kPositions)}};
}

void add_rope(Metadata const& metadata, json& config) {
  auto const head_dim = config.at("head_dim").get<int64_t>();
  double const theta = metadata.number("rope.freq_base", 10000);
  config["rope_theta"] = theta;
  auto const rotated = metadata.integer("rope.dimension_count", head_dim);
  if (rotated != head_dim)
    metadata.all().refuse(fmt::format(
        "{} = {} (heads have {} dimensions; turning a part of them is not available in this version). Use "
        "another model.",
        metadata.key("rope.dimension_count"), rotated, head_dim));
  double const old_factor = metadata.number("rope.scale_linear", 1);
  auto const type = metadata.text("rope.scaling.type", old_factor == 1 ? "none" : "linear");
  if (type != "none" && type != "linear")
    metadata.all().refuse(fmt::format(
        "{} = '{}' (none and linear are read from GGUF files). Use the model's Hugging Face folder.",
        metadata.key("rope.scaling.type"), type));
  if (metadata.file().contains("rope_freqs.weight"))
    config["rope_scaling"] = llama3_scaling(metadata, head_dim, theta);
  else if (type == "linear")
    config["rope_scaling"] = {{"rope_type", type},
                              {"factor", metadata.number("rope.scaling.factor", old_factor)}};
}

void llama_like(Metadata const& metadata, json& config) {
  if (metadata.integer("expert_count", 0) > 0)
    metadata.all().refuse(
        fmt::format("{} = {} (mixtures of experts are not available in this version). Use another model.",
                    metadata.key("expert_count"), metadata.integer("expert_count", 0)));
  auto const hidden = metadata.size("embedding_length"), heads = metadata.size("attention.head_count");
  auto const& file = metadata.file();
  config["hidden_size"] = hidden;
  config["intermediate_size"] = metadata.size("feed_forward_length");
  config["num_hidden_layers"] = metadata.size("block_count");
  config["num_attention_heads"] = heads;
  config["num_key_value_heads"] = metadata.size_or("attention.head_count_kv", heads);
  config["head_dim"] = metadata.size_or("attention.key_length", hidden / heads);
  config["max_position_embeddings"] = metadata.size_or("context_length", 2048);
  config["rms_norm_eps"] = metadata.number("attention.layer_norm_rms_epsilon", 1e-6);
  config["hidden_act"] = "silu";
  add_rope(metadata, config);
  if (metadata.architecture() != "llama") return;
  config["attention_bias"] = file.contains("blk.0.attn_q.bias");
  config["mlp_bias"] = file.contains("blk.0.ffn_up.bias");
  if (auto const window = metadata.integer("attention.sliding_window", 0); window > 0) {
    config["model_type"] = "mistral";
    config["architectures"] = {"MistralForCausalLM"};
    config["sliding_window"] = window;
  }
}

void gpt2(Metadata const& metadata, json& config) {
  config["n_embd"] = metadata.size("embedding_length");
  config["n_inner"] = metadata.size("feed_forward_length");
  config["n_layer"] = metadata.size("block_count");
  config["n_head"] = metadata.size("attention.head_count");
  config["n_positions"] = metadata.size("context_length");
  config["layer_norm_epsilon"] = metadata.number("attention.layer_norm_epsilon", 1e-5);
  config["activation_function"] = "gelu_new";
}

/// A row of the table of architectures.
struct Architecture {
  std::string name;  ///< general.architecture and model_type
  std::string class_name;
  void (*fill)(Metadata const& metadata, json& config);
  bool interleaved_rows;
};

std::vector<Architecture> const& architectures() {
  static std::vector<Architecture> const rows{
      {"llama", "LlamaForCausalLM", llama_like, true},
      {"qwen2", "Qwen2ForCausalLM", llama_like, false},
      {"gpt2", "GPT2LMHeadModel", gpt2, false},
  };
  return rows;
}

Architecture const& find_architecture(GgufReader const& file) {
  ConfigJson const metadata(file.metadata(), file.path().string());
  auto const name = metadata.text("general.architecture", "");
  std::vector<std::string> known;
  for (auto const& row : architectures()) {
    if (row.name == name) return row;
    known.push_back(row.name);
  }
  metadata.refuse(fmt::format("general.architecture = '{}' (not a model family of this version).{}", name,
                              did_you_mean(name, known)));
}

void add_special_ids(Metadata const& metadata, json& config) {
  auto const id = [&](std::string const& name) {
    auto const ids = metadata.all().token_ids("tokenizer.ggml." + name + "_token_id");
    return ids.empty() ? json() : json(ids.front());
  };
  config["bos_token_id"] = id("bos");
  config["eos_token_id"] = id("eos");
  config["pad_token_id"] = id("padding");
  auto const turn = id("eot");
  if (!turn.is_null() && !config["eos_token_id"].is_null() && turn != config["eos_token_id"])
    config["eos_token_id"] = {config["eos_token_id"], turn};
}

}  // namespace

json gguf_config(GgufReader const& file) {
  auto const& architecture = find_architecture(file);
  Metadata const metadata(file);
  auto const& embedding = file.info("token_embd.weight").shape;
  if (embedding.size() != 2)
    metadata.all().refuse(fmt::format(
        "token_embd.weight has {} dimensions (two are needed). Convert it again.", embedding.size()));
  json config{{"model_type", architecture.name},
              {"architectures", {architecture.class_name}},
              {"vocab_size", embedding.front()},
              {"tie_word_embeddings", !file.contains("output.weight")}};
  architecture.fill(metadata, config);
  add_special_ids(metadata, config);
  return config;
}

bool has_interleaved_rows(GgufReader const& file) {
  return find_architecture(file).interleaved_rows;
}

}  // namespace fsllm::detail
