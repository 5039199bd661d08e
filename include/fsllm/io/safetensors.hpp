// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fsllm/core/tensor_map.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {

/// One safetensors file or a folder's model.safetensors / model.safetensors.index.json with its shards,
/// memory-mapped: tensors are views into the file (no copy), valid while anyone holds them.
/// Offsets, shapes, dtypes and overlaps are checked against the file's size before any view is made.
class SafetensorsReader {
 public:
  /// `path` is a file, or a folder in Hugging Face layout; `stem` names the file in a folder
  /// ("model" → model.safetensors or model.safetensors.index.json; "adapter_model").
  explicit SafetensorsReader(std::filesystem::path const& path, std::string const& stem = "model");

  std::vector<std::string> names() const;
  bool contains(std::string const& name) const;
  std::vector<int64_t> shape(std::string const& name) const;
  /// "F32", "F16", "BF16", "I64", ... as the file has it.
  std::string dtype(std::string const& name) const;
  /// Zero-copy view; must not be written to (the mapping is read-only). Only a tensor that the file does not
  /// align to its element size is copied. Missing names are an Error with the nearest present name.
  at::Tensor tensor(std::string const& name) const;
  /// All tensors as views.
  TensorMap tensors() const;
  std::map<std::string, std::string> const& metadata() const { return metadata_; }
  /// The file that holds a tensor, for messages.
  std::string file_of(std::string const& name) const;

 private:
  struct Item;
  Item const& item(std::string const& name) const;
  std::map<std::string, std::shared_ptr<Item const>> open(std::filesystem::path const& file);
  void open_index(std::filesystem::path const& index);

  std::filesystem::path path_;
  std::map<std::string, std::shared_ptr<Item const>> items_;
  std::map<std::string, std::string> metadata_;
};

/// Writes one file atomically, contiguous, header padded to 64 bytes: larger element types first, then in
/// name order, so that every tensor is aligned (as the reference implementation does). Metadata
/// {"format":"pt"}. `scratch`, `access`: see AtomicFile.
void write_safetensors(std::filesystem::path const& path, TensorMap const& tensors,
                       std::map<std::string, std::string> const& metadata = {{"format", "pt"}},
                       std::filesystem::path const& scratch = {}, FileAccess access = FileAccess::by_umask);

}  // namespace fsllm
