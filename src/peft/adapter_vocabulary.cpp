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

/// Those of them that a file has.
std::vector<std::string> names_in(SafetensorsReader const& reader, std::string const& tensor) {
  std::vector<std::string> names;
  for (auto const* prefix : kPrefixes)
    for (auto const& name : names_of(tensor))
      if (reader.contains(prefix + name)) names.push_back(prefix + name);
  return names;
}

/// A tied head is the embedding a second time, which PEFT writes too. Its names.
std::vector<std::string> tied_head(SafetensorsReader const& reader, ModelConfig const& model) {
  if (!model.tied_embeddings) return {};
  auto const names = names_in(reader, model.head + ".weight");
  auto const embedding = reader.tensor(names_in(reader, model.embedding + ".weight").front());
  for (auto const& name : names)
    FSLLM_CHECK(at::equal(reader.tensor(name), embedding),
                "{}: {} is not the embedding (this model has one matrix for both). Export the adapter again.",
                reader.file_of(name), name);
  return names;
}

}  // namespace

void add_vocabulary(TensorMap& file_tensors, TensorMap const& vocabulary) {
  bool const inside = std::any_of(file_tensors.begin(), file_tensors.end(),
                                  [](auto const& tensor) { return tensor.first.starts_with(kPrefixes[0]); });
  for (auto const& [tensor_name, tensor] : vocabulary)
    for (auto const& name : names_of(tensor_name))
      file_tensors.emplace(kPrefixes[inside ? 0 : 1] + name, tensor);
}

std::set<std::string> load_vocabulary(std::filesystem::path const& dir, CausalLM& model) {
  auto const rows = adapter_vocab_size(dir, model.config());
  if (rows == 0) return {};
  SafetensorsReader const reader(dir, "adapter_model");
  auto const head = tied_head(reader, model.config());
  std::set<std::string> names(head.begin(), head.end());
  TensorMap tensors;
  for (auto const& [name, own] : model.vocabulary()) {
    auto const all = names_in(reader, name);
    FSLLM_CHECK(!all.empty(), "{} holds an embedding but no {}. Export the adapter again.", dir.string(),
                name);
    auto const& found = all.front();
    auto shape = own.sizes().vec();
    shape[0] = rows;
    auto const given = reader.shape(found);
    FSLLM_CHECK(given == shape,
                "{}: {} has shape [{}] (this model needs [{}]). Use the adapter's own base model.",
                reader.file_of(found), found, fmt::join(given, ", "), fmt::join(shape, ", "));
    names.insert(all.begin(), all.end());
    tensors.emplace(name, reader.tensor(found).to(own.device(), own.scalar_type()));
  }
  model.set_vocabulary(tensors);
  return names;
}

}  // namespace detail

int64_t adapter_vocab_size(std::filesystem::path const& dir, ModelConfig const& model) {
  SafetensorsReader const reader(dir, "adapter_model");
  auto const names = detail::names_in(reader, model.embedding + ".weight");
  return names.empty() || reader.shape(names.front()).empty() ? 0 : reader.shape(names.front()).front();
}

}  // namespace fsllm
