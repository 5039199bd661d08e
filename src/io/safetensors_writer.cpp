// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/safetensors_writer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "dtype.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm {

SafetensorsWriter::SafetensorsWriter(std::filesystem::path const& path, std::vector<Entry> entries,
                                     std::map<std::string, std::string> const& metadata, size_t alignment,
                                     std::filesystem::path const& scratch, FileAccess access)
    : entries_(std::move(entries)), file_(path, scratch, access) {
  std::sort(entries_.begin(), entries_.end(), [](Entry const& a, Entry const& b) {
    auto const a_size = c10::elementSize(a.type), b_size = c10::elementSize(b.type);
    return a_size != b_size ? a_size > b_size : a.name < b.name;
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (auto const& [name, type, shape] : entries_) {
    auto const bytes = checked_bytes(shape, type);
    FSLLM_CHECK(bytes, "tensor {} is too large to save. Check the model's sizes.", name);
    header[name] = {
        {"dtype", dtype_name(type, name)}, {"shape", shape}, {"data_offsets", {offset, offset + *bytes}}};
    offset += *bytes;
  }
  std::string text = header.dump();
  uint64_t length = text.size() + sizeof(uint64_t);
  length = (length + alignment - 1) / alignment * alignment - sizeof(uint64_t);
  text.resize(length, ' ');
  file_.write({reinterpret_cast<char const*>(&length), sizeof length});
  file_.write(text);
}

void SafetensorsWriter::write(at::Tensor const& tensor) {
  FSLLM_ASSERT(next_ < entries_.size() && tensor.sizes() == entries_[next_].shape &&
               tensor.scalar_type() == entries_[next_].type);
  ++next_;
  auto const values = tensor.detach().cpu().contiguous();
  file_.write({static_cast<char const*>(values.const_data_ptr()), values.nbytes()});
}

void SafetensorsWriter::commit() {
  FSLLM_ASSERT(next_ == entries_.size());
  file_.commit();
}

void write_safetensors(std::filesystem::path const& path, TensorMap const& tensors,
                       std::map<std::string, std::string> const& metadata,
                       std::filesystem::path const& scratch, FileAccess access) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (auto const& [name, tensor] : tensors)
    entries.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  SafetensorsWriter writer(path, std::move(entries), metadata, 64, scratch, access);
  for (auto const& entry : writer.order()) writer.write(tensors.at(entry.name));
  writer.commit();
}

}  // namespace fsllm
