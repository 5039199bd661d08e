// SPDX-License-Identifier: Apache-2.0
#include "state_file.hpp"

#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>

#include "dtype.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/h5.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

constexpr char const* kStateFormat = "checkpoint";
constexpr int64_t kVersion = 1;
constexpr int64_t kAlignment = 64;

json layout_of(TensorMap const& section) {
  json tensors = json::array();
  int64_t offset = 0;
  for (auto const& [name, tensor] : section) {
    auto const bytes = static_cast<int64_t>(tensor.nbytes());
    tensors.push_back({{"name", name},
                       {"dtype", dtype_name(tensor.scalar_type(), name)},
                       {"shape", tensor.sizes().vec()},
                       {"offset", offset}});
    offset += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  return {{"bytes", offset}, {"tensors", tensors}};
}

void write_section(h5::File& file, std::string const& dataset, TensorMap const& section, json const& layout) {
  file.allocate<uint8_t>(dataset, layout["bytes"].get<int64_t>());
  auto entry = layout["tensors"].begin();
  for (auto const& [_, tensor] : section) {
    auto const values = tensor.detach().cpu().contiguous();
    auto const bytes = values.nbytes(), padded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    auto const offset = (*entry++)["offset"].get<int64_t>();
    file.write_at<uint8_t>(dataset, offset, {static_cast<uint8_t const*>(values.const_data_ptr()), bytes});
    std::vector<uint8_t> const padding(padded - bytes);
    file.write_at<uint8_t>(dataset, offset + static_cast<int64_t>(bytes), padding);
  }
}

TensorMap read_section(h5::File const& file, std::string const& dataset, json const& layout) {
  TensorMap section;
  for (auto const& entry : layout.at("tensors")) {
    auto const name = entry.at("name").get<std::string>(), dtype = entry.at("dtype").get<std::string>();
    auto const shape = entry.at("shape").get<std::vector<int64_t>>();
    auto const type = dtype_from_name(dtype);
    FSLLM_CHECK(type,
                "tensor {} of {} has the unknown type {} (written by a newer program?). Use that program.",
                name, dataset, dtype);
    auto const bytes = checked_bytes(shape, *type);
    FSLLM_CHECK(bytes && *bytes <= file.length(dataset),
                "tensor {} of {} has an impossible shape (damage). Use an older checkpoint.", name, dataset);
    auto tensor = at::empty(shape, at::TensorOptions().dtype(*type));
    file.read_into<uint8_t>(dataset, entry.at("offset").get<int64_t>(),
                            {static_cast<uint8_t*>(tensor.mutable_data_ptr()), static_cast<size_t>(*bytes)});
    section.emplace(name, tensor);
  }
  return section;
}

Checkpoint read_all(h5::File const& file, json const& layout) {
  Checkpoint checkpoint;
  checkpoint.round = layout.at("round").get<int64_t>();
  size_t index = 0;
  for (auto const& section : layout.at("sections"))
    checkpoint.tensors.emplace(section.at("name").get<std::string>(),
                               read_section(file, fmt::format("/tensors/{}", index++), section));
  index = 0;
  for (auto const& name : layout.at("texts"))
    checkpoint.texts.emplace(name.get<std::string>(), file.read_text(fmt::format("/texts/{}", index++)));
  return checkpoint;
}

}  // namespace

void write_state_file(std::filesystem::path const& path, Checkpoint const& checkpoint) {
  json layout{{"round", checkpoint.round}, {"sections", json::array()}, {"texts", json::array()}};
  h5::File file(path, h5::Mode::create);
  file.set_attribute("/", "fsllm_format", std::string(kStateFormat));
  file.set_attribute("/", "version", kVersion);
  size_t index = 0;
  for (auto const& [name, section] : checkpoint.tensors) {
    json entry = layout_of(section);
    write_section(file, fmt::format("/tensors/{}", index++), section, entry);
    entry["name"] = name;
    layout["sections"].push_back(std::move(entry));
  }
  index = 0;
  for (auto const& [name, text] : checkpoint.texts) {
    file.write_text(fmt::format("/texts/{}", index++), text);
    layout["texts"].push_back(name);
  }
  file.write_text("/layout", layout.dump());
  file.close();
}

Checkpoint read_state_file(std::filesystem::path const& path) {
  h5::File const file(path, h5::Mode::read);
  FSLLM_CHECK(
      file.has_attribute("/", "fsllm_format") && file.text_attribute("/", "fsllm_format") == kStateFormat,
      "{} is not a checkpoint (its attribute fsllm_format is not '{}'). Give a folder "
      "checkpoints/round_NNNNNN.",
      path.string(), kStateFormat);
  int64_t const version = file.int_attribute("/", "version");
  FSLLM_CHECK(version == kVersion,
              "{} has checkpoint version {} (this program reads version {}). Use the program that wrote it.",
              path.string(), version, kVersion);
  try {
    return read_all(file, parse_json(file.read_text("/layout"), path.string() + "/layout"));
  } catch (json::exception const& error) {
    fail(fmt::format("{} is damaged ({}). Use an older checkpoint.", path.string(), error.what()));
  }
}

}  // namespace fsllm
