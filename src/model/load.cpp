// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "decoder.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/model/dtype.hpp"
#include "quantized_checkpoint.hpp"
#include "weights.hpp"

namespace fsllm {
namespace {

using detail::Decoder;
using detail::Family;
using detail::WeightSource;

/// The first few of many, for a message of one line.
std::string listed(std::vector<std::string> const& names) {
  constexpr size_t kShown = 5;
  std::vector<std::string> const shown(names.begin(), names.begin() + std::min(kShown, names.size()));
  auto const rest = names.size() - shown.size();
  return fmt::format("{}{}", fmt::join(shown, ", "), rest > 0 ? fmt::format(" and {} more", rest) : "");
}

/// "model.decoder.", "decoder." or "": files saved from the model without its head have a shorter prefix.
std::string prefix_in(WeightSource const& reader, Family const& family) {
  auto const embedding = family.embedding + ".weight";
  for (auto prefix = family.prefix;; prefix.erase(0, prefix.find('.') + 1)) {
    if (reader.contains(prefix + embedding)) return prefix;
    if (prefix.empty()) return family.prefix;
  }
}

void check_names(WeightSource const& reader, Decoder const& decoder, Family const& family,
                 std::filesystem::path const& model) {
  bool const gguf = is_gguf(model);
  std::vector<std::string> missing, unexpected;
  std::set<std::string> known;
  for (auto const& parameter : decoder.layout()) {
    known.insert(parameter.name);
    if (!reader.contains(parameter.name)) missing.push_back(parameter.name);
  }
  auto const ignored = [&](std::string const& name) {
    if (decoder.config().tied_embeddings && name == family.head + ".weight") return true;
    return std::any_of(family.ignored_suffixes.begin(), family.ignored_suffixes.end(),
                       [&](auto const& suffix) { return name.ends_with(suffix); });
  };
  for (auto const& name : reader.names())
    if (known.count(name) == 0 && !ignored(name)) unexpected.push_back(name);
  FSLLM_CHECK(missing.empty() && unexpected.empty(), "the tensors of {} do not fit its {} ({}{}{}). {}.",
              model.string(), gguf ? "metadata" : "config.json",
              missing.empty() ? "" : "missing: " + listed(missing),
              missing.empty() || unexpected.empty() ? "" : "; ",
              unexpected.empty() ? "" : "unexpected: " + listed(unexpected),
              gguf ? "Use another file" : "Use the config.json that belongs to them");
}

void check_shapes(WeightSource const& reader, Decoder const& decoder) {
  for (auto const& parameter : decoder.layout()) {
    auto const shape = reader.shape(parameter.name);
    FSLLM_CHECK(shape == parameter.shape,
                "{}: {} has shape [{}] (config.json asks for [{}]). Use the config.json that belongs to it.",
                reader.file_of(parameter.name), parameter.name, fmt::join(shape, ", "),
                fmt::join(parameter.shape, ", "));
    auto const dtype = reader.dtype(parameter.name);
    FSLLM_CHECK(dtype == "F32" || dtype == "BF16" || dtype == "F16",
                "{}: {} has type {} (weights must be F32, BF16 or F16). Convert the model.",
                reader.file_of(parameter.name), parameter.name, dtype);
  }
}

detail::Storage parse_storage(std::string const& name) {
  static std::vector<std::string> const known = {"auto", "fp32", "bf16", "fp16", "int8", "nf4"};
  FSLLM_CHECK(std::find(known.begin(), known.end(), name) != known.end(),
              "storage_dtype = '{}' (weights cannot be kept in that type).{}", name,
              did_you_mean(name, known));
  detail::Storage storage;
  storage.quantization = quantization_of(name);
  if (name != "auto" && storage.quantization == Quantization::none)
    storage.type = parse_dtype(name, "storage_dtype");
  return storage;
}

/// A model whose names and shapes are checked, with nothing in it yet.
struct Opened {
  std::unique_ptr<WeightSource> source;
  std::unique_ptr<Decoder> decoder;
  detail::Storage storage;
};

Opened open_model(std::filesystem::path const& model, LoadOptions const& options) {
  auto config = load_model_config(model);
  config.block_numbers = options.block_numbers;
  auto const compute = parse_dtype(options.compute_dtype, "train.compute_dtype");
  Opened opened;
  opened.storage = parse_storage(options.storage_dtype);
  bool const is_quantized = opened.storage.quantization != Quantization::none;
  auto const path = model.string();
  auto const& family = detail::find_family(config.family, path);
  opened.source = is_gguf(model) ? detail::open_gguf(model, config, family) : detail::open_safetensors(model);
  opened.decoder = std::make_unique<Decoder>(config, family, prefix_in(*opened.source, family), compute,
                                             c10::Device(options.device));
  detail::refuse_quantized(*opened.source, model);
  check_names(*opened.source, *opened.decoder, family, model);
  check_shapes(*opened.source, *opened.decoder);
  for (auto const& parameter : opened.decoder->layout())
    FSLLM_CHECK(!config.conv1d || opened.source->packed(parameter.name) == nullptr,
                "{}: a quantised checkpoint (bitsandbytes: {} is stored transposed and packed, which is not "
                "read). Use the model that it was made from, or save it dequantised (transformers: "
                "model.dequantize()).",
                path, parameter.name);
  for (auto const& parameter : opened.decoder->layout())
    if (is_quantized && parameter.linear != nullptr) opened.storage.quantized.insert(parameter.name);
  return opened;
}

/// Can every tensor be used as it lies in the file?
bool fits_as_is(Opened const& opened) {
  auto const& layout = opened.decoder->layout();
  return opened.source->mapped() && std::all_of(layout.begin(), layout.end(), [&](auto const& parameter) {
           return stored_type(*opened.source, parameter.name, opened.storage) ==
                  stored_type(*opened.source, parameter.name, {});
         });
}

/// Do the weights lie on another file system than `folder`? Packed ones stay where they are: a copy would
/// hold them unpacked.
bool is_far(Opened const& opened, std::filesystem::path folder) {
  for (auto const& parameter : opened.decoder->layout())
    if (opened.source->packed(parameter.name) != nullptr) return false;
  while (!folder.empty() && !std::filesystem::exists(folder)) folder = folder.parent_path();
  struct stat here {
  }, there{};
  auto const files = opened.source->files();
  return !files.empty() && ::stat(folder.empty() ? "." : folder.c_str(), &here) == 0 &&
         ::stat(files.front().c_str(), &there) == 0 && here.st_dev != there.st_dev;
}

/// `bytes` are those of a cached copy; undefined: there is none.
void set_quantized(detail::Parameter const& parameter, Opened const& opened, at::Tensor const& bytes,
                   c10::Device device) {
  auto const kind = opened.storage.quantization;
  auto const plain = bytes.defined() ? at::Tensor() : opened.source->tensor(parameter.name);
  if (plain.defined())
    detail::check_finite_weight(parameter.name, plain, opened.source->file_of(parameter.name));
  auto const weight =
      bytes.defined() ? QuantizedWeight(bytes, parameter.shape, kind) : QuantizedWeight(plain, kind);
  parameter.linear->quantized = std::make_shared<QuantizedWeight const>(weight.to(device));
}

/// The matrix as it lies quantised in the file, where train.storage_dtype leaves it so.
std::shared_ptr<QuantizedWeight const> packed(Opened const& opened, detail::Parameter const& parameter) {
  bool const as_is = !opened.storage.type && opened.storage.quantization == Quantization::none;
  return as_is && parameter.linear != nullptr ? opened.source->packed(parameter.name) : nullptr;
}

/// Tensors of the right shapes and types that nobody has written to.
void set_empty(detail::Parameter const& parameter, Opened const& opened, c10::Device device) {
  auto const kind = opened.storage.quantization;
  if (opened.storage.quantized.contains(parameter.name))
    return set_quantized(parameter, opened,
                         at::empty({QuantizedWeight::num_bytes(parameter.shape, kind)}, at::kByte), device);
  auto const type = stored_type(*opened.source, parameter.name, opened.storage);
  *parameter.tensor = at::empty(parameter.shape, at::TensorOptions(device).dtype(type));
}

/// Is there memory for all weights at once, so that it pays to bring them in before they are used?
bool fits_in_memory(Opened const& opened) {
  int64_t bytes = 0;
  for (auto const& file : opened.source->files())
    bytes += static_cast<int64_t>(std::filesystem::file_size(file));
  int64_t const available = available_memory();
  return available == 0 || bytes < available;
}

}  // namespace

Linear& module_of(CausalLM& model, std::string const& path) {
  for (auto* linear : model.linears())
    if (linear->name == path) return *linear;
  if (model.head().name == path) return model.head();
  fail(fmt::format(
      "the model has no module {} (the adapter was made for another one). Use its own base model.", path));
}

int64_t weight_bytes(CausalLM& model) {
  int64_t bytes = 0;
  for (auto const& [name, tensor] : model.parameters()) bytes += static_cast<int64_t>(tensor.nbytes());
  for (auto const* linear : model.linears())
    if (linear->quantized)
      bytes += QuantizedWeight::num_bytes(linear->quantized->shape(), linear->quantized->kind());
  return bytes;
}

std::vector<std::filesystem::path> model_files(std::filesystem::path const& model) {
  bool const gguf = is_gguf(model);
  auto const config = load_model_config(model);
  auto const source =
      gguf ? detail::open_gguf(model, config, detail::find_family(config.family, model.string()))
           : detail::open_safetensors(model);
  std::vector<std::filesystem::path> files;
  if (!gguf) files.push_back(model / "config.json");
  for (auto const& file : source->files()) files.push_back(file);
  return files;
}

std::unique_ptr<CausalLM> model_of_shapes(ModelConfig const& config, LoadOptions const& options) {
  auto const& family = detail::find_family(config.family, "config.json");
  auto const compute = parse_dtype(options.compute_dtype, "train.compute_dtype");
  c10::Device const device(options.device);
  auto decoder = std::make_unique<Decoder>(config, family, family.prefix, compute, device);
  auto const type = parse_storage(options.storage_dtype).type.value_or(at::kFloat);
  for (auto const& parameter : decoder->layout())
    *parameter.tensor = at::empty(parameter.shape, at::TensorOptions(device).dtype(type));
  return decoder;
}

std::unique_ptr<CausalLM> load_model(std::filesystem::path const& model, LoadOptions const& options) {
  auto opened = open_model(model, options);
  c10::Device const device(options.weights_on_host ? "cpu" : options.device);
  bool const convert = options.values && !options.cache_dir.empty() &&
                       (!fits_as_is(opened) || (options.stage && is_far(opened, options.cache_dir)));
  if (convert)
    opened.source =
        detail::open_safetensors(detail::cached_weights(model, *opened.source, opened.storage, options));
  bool const brought_in = options.values && opened.source->mapped() && fits_in_memory(opened);
  for (auto const& parameter : opened.decoder->layout()) {
    if (auto const weight = convert ? nullptr : packed(opened, parameter)) {
      parameter.linear->quantized = std::make_shared<QuantizedWeight const>(weight->to(device));
      continue;
    }
    if (!options.values) {
      set_empty(parameter, opened, device);
      continue;
    }
    bool const is_quantized = opened.storage.quantized.contains(parameter.name);
    if (is_quantized && !convert) {
      set_quantized(parameter, opened, {}, device);
      continue;
    }
    auto const values = opened.source->tensor(parameter.name);
    if (brought_in) prefault({static_cast<std::byte const*>(values.const_data_ptr()), values.nbytes()});
    if (is_quantized)
      set_quantized(parameter, opened, values, device);
    else
      *parameter.tensor =
          detail::converted_weight(parameter.name, values,
                                   stored_type(*opened.source, parameter.name, opened.storage),
                                   opened.source->file_of(parameter.name))
              .to(device);
  }
  return std::move(opened.decoder);
}

}  // namespace fsllm
