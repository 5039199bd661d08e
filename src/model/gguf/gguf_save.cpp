// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/gguf_save.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "../weights.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/gguf_writer.hpp"
#include "gguf_names.hpp"

namespace fsllm {
namespace {

using namespace detail;
using nlohmann::ordered_json;

/// llama.cpp has no architecture of its own for Mistral.
std::string architecture_of(ModelConfig const& config) {
  return config.family == "mistral" ? "llama" : config.family;
}

bool has_pairs(ModelConfig const& config) {
  return architecture_of(config) == "llama";
}

std::vector<GgufPart> parts_of(ModelConfig const& config) {
  return gguf_parts(config, find_family(config.family, "the model"), has_pairs(config));
}

uint32_t count(int64_t value) {
  return static_cast<uint32_t>(value);
}

/// LLAMA_FTYPE of llama.h.
uint32_t file_type(std::string const& dtype) {
  if (dtype == "fp32") return 0;
  return dtype == "fp16" ? 1 : 7;
}

ordered_json sizes_of(ModelConfig const& config) {
  auto const prefix = architecture_of(config) + ".";
  ordered_json keys;
  auto const add = [&](std::string const& name, ordered_json const& value) { keys[prefix + name] = value; };
  add("vocab_size", count(config.vocab_size));
  add("context_length", count(config.max_positions));
  add("embedding_length", count(config.hidden_size));
  add("block_count", count(config.num_layers));
  add("feed_forward_length", count(config.intermediate_size));
  add("attention.head_count", count(config.num_heads));
  add("attention.head_count_kv", count(config.num_kv_heads));
  add("attention.key_length", count(config.head_dim));
  add("attention.value_length", count(config.head_dim));
  add("attention.layer_norm_rms_epsilon", static_cast<float>(config.norm_eps));
  add("rope.dimension_count", count(config.head_dim));
  add("rope.freq_base", static_cast<float>(config.rope_theta));
  if (config.rope_scaling == RopeScaling::linear) {
    add("rope.scaling.type", "linear");
    add("rope.scaling.factor", static_cast<float>(config.rope_factor));
  }
  return keys;
}

/// Llama 3.1's scaling as one divisor a frequency.
at::Tensor rope_divisors(ModelConfig const& config) {
  auto divisors = at::empty({config.head_dim / 2});
  auto* values = divisors.mutable_data_ptr<float>();
  auto const positions = static_cast<double>(config.rope_original_positions);
  double const low = config.rope_low_freq_factor, high = config.rope_high_freq_factor;
  for (int64_t i = 0; i < divisors.numel(); ++i) {
    double const wave =
        2 * std::numbers::pi *
        std::pow(config.rope_theta, 2 * static_cast<double>(i) / static_cast<double>(config.head_dim));
    double const smooth = (positions / wave - low) / (high - low);
    double divisor = 1 / ((1 - smooth) / config.rope_factor + smooth);
    if (wave < positions / high) divisor = 1;
    if (wave > positions / low) divisor = config.rope_factor;
    values[i] = static_cast<float>(divisor);
  }
  return divisors;
}

std::string type_for(std::string const& dtype, std::vector<int64_t> const& shape) {
  if (shape.size() < 2 || dtype == "fp32") return "F32";
  return dtype == "q8_0" && shape.back() % 32 == 0 ? "Q8_0" : "F16";
}

void append(ordered_json& keys, ordered_json const& more) {
  for (auto const& [key, value] : more.items()) keys[key] = value;
}

/// A tensor to write: its name in the file, and what gives its values.
struct Item {
  std::string name;
  at::Tensor values;
  int64_t pair_heads = 0;  ///< rows go into pairs
  at::Tensor written() const { return pair_heads > 0 ? in_pairs(values, pair_heads) : values; }
};

void write(std::filesystem::path const& file, ordered_json const& metadata, std::vector<Item> const& items,
           std::string const& dtype) {
  std::vector<GgufWriter::Entry> entries;
  for (auto const& item : items) {
    auto const shape = item.values.sizes().vec();
    entries.push_back({item.name, type_for(dtype, shape), shape});
  }
  GgufWriter writer(file, metadata, entries);
  for (auto const& item : items) writer.write(item.written());
  writer.commit();
}

}  // namespace

void check_for_gguf(ModelConfig const& config) {
  auto const refuse = [](bool refused, std::string const& what) {
    FSLLM_CHECK(!refused,
                "{} (a GGUF file of this version cannot say it). Export it with --to merged or peft.", what);
  };
  bool const known = config.family == "llama" || config.family == "mistral" || config.family == "qwen2";
  refuse(!known, fmt::format("a model of the family {}, not llama, mistral or qwen2", config.family));
  refuse(std::ranges::any_of(config.layer_windows, [](int64_t window) { return window > 0; }),
         "a model whose layers attend to a sliding window");
  refuse(config.rope_scaling == RopeScaling::longrope || config.rope_scaling == RopeScaling::yarn,
         "a model with position scaling of the kind longrope or yarn");
  bool const llama3 = config.rope_scaling == RopeScaling::llama3;
  refuse(llama3 && (config.rope_low_freq_factor != 1 || config.rope_high_freq_factor != 4 ||
                    config.rope_original_positions != 8192),
         "a model with position scaling llama3 of other numbers than Llama 3.1 has");
  refuse(config.rotary_dim != config.head_dim, "a model that turns a part of each head");
  refuse(config.activation != ActivationKind::silu, "a model with another activation than SiLU");
}

void save_gguf(std::filesystem::path const& file, CausalLM& model, std::string const& dtype,
               ordered_json const& metadata) {
  auto const& config = model.config();
  check_for_gguf(config);
  ordered_json keys{{"general.architecture", architecture_of(config)}, {"general.type", "model"}};
  append(keys, sizes_of(config));
  keys["general.file_type"] = file_type(dtype);
  if (dtype == "q8_0") keys["general.quantization_version"] = uint32_t{2};
  append(keys, metadata);
  auto parameters = model.parameters();
  parameters.merge(model.dequantized());
  std::vector<Item> items;
  auto const& prefix = find_family(config.family, "the model").prefix;
  for (auto const& part : parts_of(config))
    for (auto const* kind : {".weight", ".bias"}) {
      auto found = parameters.find(part.hugging_face + kind);
      if (found == parameters.end() && part.hugging_face.starts_with(prefix))
        found = parameters.find(part.hugging_face.substr(prefix.size()) + kind);
      if (found == parameters.end()) continue;
      items.push_back(
          {part.gguf + kind, found->second, part.order == RowOrder::interleaved ? part.heads : 0});
    }
  FSLLM_ASSERT(items.size() == parameters.size());
  if (config.rope_scaling == RopeScaling::llama3)
    items.push_back({"rope_freqs.weight", rope_divisors(config)});
  write(file, keys, items, dtype);
}

void save_gguf_lora(std::filesystem::path const& file, ModelConfig const& config,
                    std::vector<LoraFactorsOf> const& factors, double alpha, std::string const& dtype,
                    ordered_json const& metadata) {
  check_for_gguf(config);
  ordered_json keys{{"general.architecture", architecture_of(config)},
                    {"general.type", "adapter"},
                    {"adapter.type", "lora"},
                    {"adapter.lora.alpha", static_cast<float>(alpha)}};
  append(keys, metadata);
  auto const parts = parts_of(config);
  std::vector<Item> items;
  for (auto const& [module, a, b] : factors) {
    auto const part = std::ranges::find(parts, module, &GgufPart::hugging_face);
    bool const placed = part != parts.end() && module != config.embedding &&
                        (module != config.head || !config.tied_embeddings);
    FSLLM_CHECK(
        placed,
        "the adapter changes {} (llama.cpp's adapter files have no place for it). Merge it: --to gguf.",
        module);
    items.push_back({part->gguf + ".weight.lora_a", a});
    items.push_back(
        {part->gguf + ".weight.lora_b", b, part->order == RowOrder::interleaved ? part->heads : 0});
  }
  write(file, keys, items, dtype);
}

std::vector<LoraFactorsOf> read_gguf_lora(std::filesystem::path const& file, ModelConfig const& config) {
  GgufReader const reader(file);
  auto const alpha = reader.metadata().at("adapter.lora.alpha").get<double>();
  std::vector<LoraFactorsOf> factors;
  for (auto const& part : parts_of(config)) {
    auto const a = part.gguf + ".weight.lora_a", b = part.gguf + ".weight.lora_b";
    if (!reader.contains(a)) continue;
    auto const left = reader.tensor(b).to(at::kFloat), right = reader.tensor(a).to(at::kFloat);
    auto const rows = part.order == RowOrder::interleaved ? in_halves(left, part.heads) : left;
    factors.push_back(
        {part.hugging_face, right.clone(), rows.mul(alpha / static_cast<double>(rows.size(1)))});
  }
  FSLLM_ASSERT(factors.size() * 2 == reader.tensors().size());
  return factors;
}

}  // namespace fsllm
