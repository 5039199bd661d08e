// SPDX-License-Identifier: Apache-2.0
#include "adapter_vocabulary.hpp"

#include <ATen/ops/equal.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm {
namespace detail {
namespace {

/// PEFT wraps a model once for virtual tokens, and once more for what it puts into modules.
constexpr char const* kPrefixes[] = {"base_model.model.", "base_model."};

/// The names that a tensor of the model may have: transformers 5 calls GPT-NeoX's head embed_out lm_head.
std::vector<std::string> names_of(std::string const& tensor) {
  std::string const old_head = "embed_out.";
  if (!tensor.starts_with(old_head)) return {tensor};
  return {tensor, "lm_head." + tensor.substr(old_head.size())};
}

/// PEFT's name of a tensor of a module that LoRA adapts: "lm_head.base_layer.weight".
std::string in_adapted_module(std::string const& tensor) {
  auto const dot = tensor.rfind('.');
  return tensor.substr(0, dot) + ".base_layer" + tensor.substr(dot);
}

/// Those of them that a file has.
std::vector<std::string> names_in(SafetensorsReader const& reader, std::string const& tensor) {
  std::vector<std::string> names;
  for (auto const* prefix : kPrefixes)
    for (auto const& name : names_of(tensor))
      for (auto const& candidate : {prefix + name, prefix + in_adapted_module(name)})
        if (reader.contains(candidate)) names.push_back(candidate);
  return names;
}

/// A tied head is the embedding a second time, which PEFT writes too, or the head alone where that is
/// adapted.
std::vector<std::string> names_in(SafetensorsReader const& reader, std::string const& tensor,
                                  ModelConfig const& model) {
  auto names = names_in(reader, tensor);
  if (!model.tied_embeddings || tensor != model.embedding + ".weight") return names;
  for (auto const& name : names_in(reader, model.head + ".weight")) {
    FSLLM_CHECK(names.empty() || at::equal(reader.tensor(name), reader.tensor(names.front())),
                "{}: {} is not the embedding (this model has one matrix for both). Export the adapter again.",
                reader.file_of(name), name);
    names.push_back(name);
  }
  return names;
}

/// The tensor of a file as the model has its own, which is given back where both are the same.
at::Tensor vocabulary_tensor(SafetensorsReader const& reader, std::string const& found, at::Tensor const& own,
                             int64_t rows) {
  auto shape = own.sizes().vec();
  shape[0] = rows;
  auto const given = reader.shape(found);
  FSLLM_CHECK(given == shape,
              "{}: {} has shape [{}] (this model needs [{}]). Use the adapter's own base model.",
              reader.file_of(found), found, fmt::join(given, ", "), fmt::join(shape, ", "));
  auto const values = reader.tensor(found).to(own.device(), own.scalar_type());
  return values.sizes() == own.sizes() && at::equal(values, own) ? own : values;
}

}  // namespace

void add_vocabulary(TensorMap& file_tensors, TensorMap const& vocabulary) {
  bool const inside = std::any_of(file_tensors.begin(), file_tensors.end(),
                                  [](auto const& tensor) { return tensor.first.starts_with(kPrefixes[0]); });
  auto const adapted = [&](std::string const& name) {
    auto const first = name.substr(0, name.rfind('.')) + ".lora_";
    auto const at = file_tensors.lower_bound(first);
    return at != file_tensors.end() && at->first.starts_with(first);
  };
  for (auto const& [tensor_name, tensor] : vocabulary)
    for (auto const& own : names_of(tensor_name)) {
      auto const name = kPrefixes[inside ? 0 : 1] + own;
      file_tensors.emplace(adapted(name) ? in_adapted_module(name) : name, tensor);
    }
}

std::set<std::string> load_vocabulary(std::filesystem::path const& dir, CausalLM& model) {
  auto const rows = adapter_vocab_size(dir, model.config());
  if (rows == 0) return {};
  SafetensorsReader const reader(dir, "adapter_model");
  std::set<std::string> names;
  TensorMap tensors;
  for (auto const& [name, own] : model.vocabulary()) {
    auto const all = names_in(reader, name, model.config());
    FSLLM_CHECK(!all.empty() || own.size(0) == rows,
                "{} holds an embedding but no {}. Export the adapter again.", dir.string(), name);
    names.insert(all.begin(), all.end());
    tensors.emplace(name, all.empty() ? own : vocabulary_tensor(reader, all.front(), own, rows));
  }
  model.set_vocabulary(tensors);
  return names;
}

}  // namespace detail

int64_t adapter_vocab_size(std::filesystem::path const& dir, ModelConfig const& model) {
  SafetensorsReader const reader(dir, "adapter_model");
  auto names = detail::names_in(reader, model.embedding + ".weight");
  if (names.empty()) names = detail::names_in(reader, model.head + ".base_layer.weight");
  return names.empty() || reader.shape(names.front()).empty() ? 0 : reader.shape(names.front()).front();
}

}  // namespace fsllm
