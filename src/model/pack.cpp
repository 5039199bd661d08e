// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/pack.hpp"

#include <ATen/ops/amax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/safetensors_writer.hpp"
#include "fsllm/model/blocks.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "save.hpp"
#include "weights.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;
constexpr char const* kState = ".quant_state.bitsandbytes__nf4";

std::string module_of_weight(std::string const& name) {
  return name.substr(0, name.rfind(".weight"));
}

at::Tensor bytes_of(std::string const& text) {
  return at::tensor(std::vector<int64_t>(text.begin(), text.end()), at::kLong).to(at::kByte);
}

/// The tensors of one packed matrix, by the ends that follow the module's name.
TensorMap packed_tensors(at::Tensor const& weight, Quantization kind) {
  auto const bytes = QuantizedWeight(weight, kind).bytes();
  int64_t const count = weight.numel(), blocks = (count + 63) / 64, groups = (blocks + 255) / 256;
  if (kind == Quantization::int8)
    return {{".weight", bytes.narrow(0, 0, count).view(at::kChar).view(weight.sizes())},
            {".SCB", weight.to(at::kFloat).abs().amax(1)},
            {".weight_format", at::zeros({}, at::kByte)}};
  int64_t const codes = (count + 1) / 2;
  auto const scales = bytes.narrow(0, codes + blocks, 4 * (groups + 1)).clone().view(at::kFloat);
  Json const state{{"quant_type", "nf4"},
                   {"blocksize", 64},
                   {"dtype", detail::torch_name(weight.scalar_type())},
                   {"shape", weight.sizes().vec()},
                   {"nested_blocksize", 256},
                   {"nested_dtype", "float32"},
                   {"nested_offset", scales[groups].item<float>()}};
  return {{".weight", bytes.narrow(0, 0, codes).view({-1, 1})},
          {".weight.absmax", bytes.narrow(0, codes, blocks)},
          {".weight.quant_map", nf4_values()},
          {".weight.nested_absmax", scales.narrow(0, 0, groups)},
          {".weight.nested_quant_map", dynamic_map_values()},
          {std::string(".weight") + kState, bytes_of(state.dump())}};
}

/// transformers' BitsAndBytesConfig, with the modules that stay plain.
Json quantization_config(Quantization kind, std::vector<std::string> const& plain, std::string const& type) {
  bool const nf4 = kind == Quantization::nf4;
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", nf4},
          {"load_in_8bit", !nf4},
          {"llm_int8_threshold", 6.0},
          {"llm_int8_skip_modules", plain},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", true},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_compute_dtype", type}};
}

}  // namespace

void pack_blocks(std::filesystem::path const& source_dir, std::vector<int64_t> const& blocks,
                 Quantization kind, std::filesystem::path const& out) {
  auto const model = load_model(source_dir, {.values = false});
  FSLLM_CHECK(!model->config().conv1d,
              "{}: a {} model (its matrices are stored transposed, for which bitsandbytes' files have no "
              "place). Use llm.offsite_tuning.strategy: pruning or drop_layer.",
              source_dir.string(), model->config().family);
  auto const is_packed = [&](std::string const& name) {
    return std::find(blocks.begin(), blocks.end(), block_of(name)) != blocks.end();
  };
  auto const source = detail::open_safetensors(source_dir);
  std::vector<SafetensorsWriter::Entry> entries;
  TensorMap small;  // all parts of packed matrices but their codes, which are made again when they are wanted
  for (auto const& name : source->names()) {
    auto const plain = source->tensor(name);
    if (!is_packed(name) || plain.dim() != 2) {
      entries.push_back({name, plain.scalar_type(), plain.sizes().vec()});
      continue;
    }
    for (auto const& [part, tensor] : packed_tensors(plain, kind)) {
      auto const as = module_of_weight(name) + part;
      entries.push_back({as, tensor.scalar_type(), tensor.sizes().vec()});
      if (as != name) small.emplace(as, tensor);
    }
  }
  detail::make_result_folder(out);
  detail::copy_files(out, source_dir);
  SafetensorsWriter writer(out / "model.safetensors", entries, {{"format", "pt"}}, 64);
  for (auto const& entry : writer.order()) {
    auto const part = small.find(entry.name);
    if (part != small.end()) {
      writer.write(part->second);
      continue;
    }
    auto const plain = source->tensor(entry.name);
    bool const packs = is_packed(entry.name) && plain.dim() == 2;
    writer.write(packs ? packed_tensors(plain, kind).at(".weight") : plain);
  }
  writer.commit();

  std::vector<std::string> plain{model->head().name};
  for (auto const* linear : model->linears())
    if (!is_packed(linear->name)) plain.push_back(linear->name);
  auto json = detail::description_of(source_dir);
  json["quantization_config"] = quantization_config(kind, plain, "float32");
  write_file_atomic(out / "config.json", json.dump(2) + "\n");
}

}  // namespace fsllm
