// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/safetensors.hpp"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "dtype.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "safetensors_header.hpp"

namespace fsllm {

namespace fs = std::filesystem;

/// A checked entry and the mapping that keeps its bytes alive.
struct SafetensorsReader::Item {
  SafetensorsEntry entry;
  std::shared_ptr<MappedFile const> mapping;
  std::string file;
};

namespace {

/// What else a folder holds where safetensors files are wanted. Pickles run code when they are read.
std::string pickle_in(fs::path const& folder, std::string const& stem) {
  for (auto const& name : {stem + ".bin", std::string("pytorch_model.bin"),
                           std::string("pytorch_model.bin.index.json"), std::string("consolidated.00.pth")})
    if (fs::exists(folder / name)) return name;
  return "";
}

[[noreturn]] void refuse_folder(fs::path const& folder, std::string const& stem) {
  auto const pickle = pickle_in(folder, stem);
  auto const single = stem + ".safetensors";
  if (!pickle.empty())
    fail(fmt::format(
        "{} holds no {} ({} is a pickle and is not read: it could run code). Load it once with transformers "
        "or peft, and save it again: save_pretrained writes {}.",
        folder.string(), single, pickle, single));
  fail(
      fmt::format("{} holds neither {} nor {}.index.json (no weights). Place the model's safetensors files "
                  "there.",
                  folder.string(), single, single));
}

}  // namespace

SafetensorsReader::SafetensorsReader(fs::path const& path, std::string const& stem) : path_(path) {
  if (!fs::is_directory(path)) {
    items_ = open(path);
    return;
  }
  auto const single = path / (stem + ".safetensors"), index = path / (stem + ".safetensors.index.json");
  if (fs::exists(single))
    items_ = open(single);
  else if (fs::exists(index))
    open_index(index);
  else
    refuse_folder(path, stem);
}

std::map<std::string, std::shared_ptr<SafetensorsReader::Item const>> SafetensorsReader::open(
    fs::path const& file) {
  auto const mapping = std::make_shared<MappedFile const>(file);
  auto header = parse_safetensors_header(mapping->text(), file.string());
  metadata_.merge(header.metadata);
  std::map<std::string, std::shared_ptr<Item const>> items;
  for (auto& [name, entry] : header.tensors)
    items.emplace(name, std::make_shared<Item const>(Item{std::move(entry), mapping, file.string()}));
  return items;
}

void SafetensorsReader::open_index(fs::path const& index) {
  auto const json = read_json(index);
  FSLLM_CHECK(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(),
              "{} has no weight_map (not an index of safetensors files). Copy it again.", index.string());
  std::map<std::string, std::map<std::string, std::shared_ptr<Item const>>> shards;
  for (auto const& [name, value] : json["weight_map"].items()) {
    FSLLM_CHECK(value.is_string(), "{}: the file of '{}' is not a text. Copy it again.", index.string(),
                name);
    fs::path const shard = value.get<std::string>();
    FSLLM_CHECK(shard == shard.filename() && shard != "." && shard != ".." && !shard.empty(),
                "{}: '{}' lies in '{}' (outside the folder). Place all files in one folder.", index.string(),
                name, shard.string());
    auto opened = shards.find(shard);
    if (opened == shards.end()) opened = shards.emplace(shard, open(index.parent_path() / shard)).first;
    auto const found = opened->second.find(name);
    FSLLM_CHECK(found != opened->second.end(),
                "{} says that '{}' lies in {} (it does not). Copy the model again.", index.string(), name,
                shard.string());
    items_.insert(*found);
  }
}

SafetensorsReader::Item const& SafetensorsReader::item(std::string const& name) const {
  auto const found = items_.find(name);
  FSLLM_CHECK(found != items_.end(), "{} has no tensor '{}'.{}", path_.string(), name,
              did_you_mean(name, names()));
  return *found->second;
}

std::vector<std::string> SafetensorsReader::names() const {
  std::vector<std::string> all;
  for (auto const& [name, _] : items_) all.push_back(name);
  return all;
}

bool SafetensorsReader::contains(std::string const& name) const {
  return items_.contains(name);
}

std::vector<int64_t> SafetensorsReader::shape(std::string const& name) const {
  return item(name).entry.shape;
}

std::string SafetensorsReader::dtype(std::string const& name) const {
  return dtype_name(item(name).entry.type, name);
}

std::string SafetensorsReader::file_of(std::string const& name) const {
  return item(name).file;
}

at::Tensor SafetensorsReader::tensor(std::string const& name) const {
  auto const& [entry, mapping, file] = item(name);
  auto* const data = const_cast<std::byte*>(mapping->bytes().data()) + entry.begin;
  auto const view = at::from_blob(
      data, entry.shape, [held = mapping](void*) {}, at::TensorOptions().dtype(entry.type));
  bool const aligned = reinterpret_cast<uintptr_t>(data) % c10::elementSize(entry.type) == 0;
  return aligned ? view : view.clone();
}

TensorMap SafetensorsReader::tensors() const {
  TensorMap all;
  for (auto const& [name, _] : items_) all.emplace(name, tensor(name));
  return all;
}

}  // namespace fsllm
