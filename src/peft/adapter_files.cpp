// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <set>

#include "adapter_vocabulary.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/finite.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "methods.hpp"

namespace fsllm {

namespace fs = std::filesystem;

detail::SavedConfig detail::read_saved_config(fs::path const& dir) {
  auto const file = dir / "adapter_config.json";
  FSLLM_CHECK(fs::exists(file),
              "no adapter_config.json in {} (a PEFT adapter folder holds it and adapter_model.safetensors). "
              "Correct the path.",
              dir.string());
  FSLLM_CHECK(read_json(file).is_object(), "{} is not a JSON object. Export the adapter again.",
              file.string());
  SavedConfig saved{nlohmann::ordered_json::parse(read_file(file)), file.string(), dir.string()};
  auto const found = saved.json.find("peft_type");
  auto const type = found != saved.json.end() && found->is_string() ? found->get<std::string>() : "";
  std::set<std::string> known;
  for (auto const& row : peft_table()) known.insert(row.build.peft_type);
  FSLLM_CHECK(find_peft_type(type) != nullptr,
              "{}: peft_type = '{}' (not available in this version). Use an adapter of type {}.",
              file.string(), type, fmt::join(known, ", "));
  return saved;
}

TensorMap read_adapter_tensors(fs::path const& dir, TensorMap const& expected,
                               std::set<std::string> const& others) {
  SafetensorsReader const reader(dir, "adapter_model");
  TensorMap tensors;
  for (auto const& name : reader.names())
    FSLLM_CHECK(
        expected.count(name) != 0 || others.count(name) != 0,
        "{}: unexpected tensor {} (the adapter belongs to other modules or another model). Use its own "
        "base model.",
        reader.file_of(name), name);
  for (auto const& [name, tensor] : expected) {
    FSLLM_CHECK(reader.contains(name),
                "{} lacks the tensor {} (its adapter_config.json asks for it). Export the adapter again.",
                dir.string(), name);
    auto const shape = reader.shape(name);
    FSLLM_CHECK(tensor.sizes() == at::IntArrayRef(shape),
                "{}: {} has shape [{}] (this model and rank need [{}]). Use the adapter's own base model.",
                reader.file_of(name), name, fmt::join(shape, ", "), fmt::join(tensor.sizes(), ", "));
    auto const values = reader.tensor(name);
    FSLLM_CHECK(is_finite(values),
                "{}: {} holds values that are not finite (a training that diverged, or a broken copy). Use "
                "another adapter.",
                reader.file_of(name), name);
    tensors.emplace(name, values.to(tensor.device(), at::kFloat));
  }
  return tensors;
}

void save_adapter(fs::path const& dir, Peft const& peft, TensorMap const& values,
                  std::string const& base_model, TensorMap const& vocabulary) {
  check_same_layout(peft.state(), values, "exported adapter");
  auto const bad = first_not_finite(values);
  FSLLM_CHECK(bad.empty(),
              "{}: {} holds values that are not finite (training diverged; nothing is written). Lower "
              "train.optimizer.lr.",
              dir.string(), bad);
  std::error_code error;
  fs::create_directories(dir, error);
  FSLLM_CHECK(!error, "cannot make the folder {} ({}). Choose another place.", dir.string(), error.message());
  auto config = peft.adapter_config(base_model);
  config["base_model_name_or_path"] = base_model;
  auto tensors = peft.file_tensors(values);
  detail::add_vocabulary(tensors, vocabulary);
  write_safetensors(dir / "adapter_model.safetensors", tensors);
  write_file_atomic(dir / "adapter_config.json", config.dump(2) + "\n");
}

}  // namespace fsllm
