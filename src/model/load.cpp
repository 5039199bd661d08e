// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "decoder.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/dtype.hpp"

namespace fsllm {
namespace {

using detail::Decoder;
using detail::Family;

/// The first few of many, for a message of one line.
std::string listed(std::vector<std::string> const& names) {
  constexpr size_t kShown = 5;
  std::vector<std::string> const shown(names.begin(), names.begin() + std::min(kShown, names.size()));
  auto const rest = names.size() - shown.size();
  return fmt::format("{}{}", fmt::join(shown, ", "), rest > 0 ? fmt::format(" and {} more", rest) : "");
}

/// "transformer." or "" – files saved from the model without its head have no prefix.
std::string prefix_in(SafetensorsReader const& reader, Family const& family) {
  auto const embedding = family.embedding + ".weight";
  return !reader.contains(family.prefix + embedding) && reader.contains(embedding) ? "" : family.prefix;
}

void check_names(SafetensorsReader const& reader, Decoder const& decoder, Family const& family,
                 std::string const& folder) {
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
  FSLLM_CHECK(
      missing.empty() && unexpected.empty(),
      "the tensors of {} do not fit its config.json ({}{}{}). Use the config.json that belongs to them.",
      folder, missing.empty() ? "" : "missing: " + listed(missing),
      missing.empty() || unexpected.empty() ? "" : "; ",
      unexpected.empty() ? "" : "unexpected: " + listed(unexpected));
}

void check_shapes(SafetensorsReader const& reader, Decoder const& decoder) {
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

}  // namespace

std::unique_ptr<CausalLM> load_model(std::filesystem::path const& model_dir, LoadOptions const& options) {
  auto const config = load_model_config(model_dir);
  auto const compute = parse_dtype(options.compute_dtype, "train.compute_dtype");
  std::optional<at::ScalarType> storage;
  if (options.storage_dtype != "auto") storage = parse_dtype(options.storage_dtype, "train.storage_dtype");
  auto const& family = detail::find_family(config.family, (model_dir / "config.json").string());
  c10::Device const device(options.device);

  SafetensorsReader const reader(model_dir);
  auto decoder = std::make_unique<Decoder>(config, family, prefix_in(reader, family), compute, device);
  check_names(reader, *decoder, family, model_dir.string());
  check_shapes(reader, *decoder);
  for (auto const& parameter : decoder->layout()) {
    auto const view = reader.tensor(parameter.name);
    *parameter.tensor = view.to(device, storage.value_or(view.scalar_type()));
  }
  return decoder;
}

}  // namespace fsllm
