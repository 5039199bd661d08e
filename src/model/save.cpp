// SPDX-License-Identifier: Apache-2.0
#include "save.hpp"

#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/finite.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/io/safetensors_writer.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/model/dtype.hpp"
#include "gguf/gguf_config.hpp"

namespace fsllm {
namespace {

constexpr char const* kCopied[] = {
    "generation_config.json", "tokenizer.json",      "tokenizer.model",
    "tokenizer_config.json",  "vocab.json",          "merges.txt",
    "added_tokens.json",      "chat_template.jinja", "special_tokens_map.json"};

}  // namespace

namespace detail {

std::string torch_name(at::ScalarType type) {
  if (type == at::ScalarType::BFloat16) return "bfloat16";
  return type == at::ScalarType::Half ? "float16" : "float32";
}

nlohmann::ordered_json description_of(std::filesystem::path const& model) {
  return is_gguf(model) ? nlohmann::ordered_json(gguf_config(GgufReader(model)))
                        : nlohmann::ordered_json::parse(read_file(model / "config.json"));
}

void make_result_folder(std::filesystem::path const& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  FSLLM_CHECK(!error, "cannot make the folder {} ({}). Choose another place.", dir.string(), error.message());
}

void copy_files(std::filesystem::path const& out_dir, std::filesystem::path const& source_dir) {
  for (auto const* name : kCopied)
    if (std::filesystem::exists(source_dir / name))
      write_file_atomic(out_dir / name, read_file(source_dir / name));
}

}  // namespace detail

namespace {

void write_config(std::filesystem::path const& out_dir, std::filesystem::path const& source_dir,
                  at::ScalarType type, ModelConfig const& model) {
  auto config = detail::description_of(source_dir);
  config.erase("torch_dtype");
  for (auto const* key : {"quantization_config", "compression_config"}) config.erase(key);  // plain weights
  config["dtype"] = detail::torch_name(type);
  config["vocab_size"] = model.vocab_size;
  if (model.tied_embeddings != load_model_config(source_dir).tied_embeddings)
    config["tie_word_embeddings"] = model.tied_embeddings;
  write_file_atomic(out_dir / "config.json", config.dump(2) + "\n");
}

at::Tensor saved_values(std::string const& name, at::Tensor const& values, at::ScalarType type) {
  auto const saved = values.to(type);
  if (is_finite(saved)) return saved;
  FSLLM_CHECK(
      is_finite(values),
      "{} holds values that are not finite (nothing is written). Merge another adapter, or train with a "
      "lower train.optimizer.lr.",
      name);
  fail(fmt::format(
      "{} holds values up to {:g} ({} holds less: they would become infinite). Write another type: "
      "bf16 or fp32.",
      name, values.abs().max().item<double>(), dtype_name(type)));
}

}  // namespace

void save_model(std::filesystem::path const& out_dir, CausalLM& model,
                std::filesystem::path const& source_dir,
                std::function<at::Tensor(std::string const& name)> const& value_of) {
  detail::make_result_folder(out_dir);
  std::vector<SafetensorsWriter::Entry> entries;
  for (auto const& [name, tensor] : model.parameters())
    entries.push_back({name, at::kFloat, tensor.sizes().vec()});
  SafetensorsWriter writer(out_dir / "model.safetensors", entries, {{"format", "pt"}}, 8);
  for (auto const& entry : writer.order())
    writer.write(saved_values(entry.name, value_of(entry.name), at::kFloat));
  writer.commit();
  write_config(out_dir, source_dir, at::kFloat, model.config());
  detail::copy_files(out_dir, source_dir);
}

void save_model(std::filesystem::path const& out_dir, CausalLM& model,
                std::filesystem::path const& source_dir, std::string const& dtype) {
  detail::make_result_folder(out_dir);
  auto parameters = model.parameters();
  parameters.merge(model.dequantized());
  TensorMap tensors;
  auto type = at::kFloat;
  for (auto const& [name, tensor] : parameters) {
    type = dtype == "auto" ? tensor.scalar_type() : parse_dtype(dtype, "dtype");
    tensors.emplace(name, saved_values(name, tensor.detach().to(at::kCPU), type));
  }
  write_safetensors(out_dir / "model.safetensors", tensors);
  write_config(out_dir, source_dir, type, model.config());
  detail::copy_files(out_dir, source_dir);
}

}  // namespace fsllm
