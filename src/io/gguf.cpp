// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/gguf.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "dtype.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/io/files.hpp"
#include "gguf_header.hpp"

namespace fsllm {

int64_t GgufTensor::count() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

bool GgufTensor::quantized() const {
  return type != "F32" && type != "F16" && type != "BF16";
}

struct GgufReader::Impl {
  std::filesystem::path path;
  std::shared_ptr<MappedFile const> mapping;
  GgufHeader header;
};

GgufReader::GgufReader(std::filesystem::path const& path) {
  auto mapping = std::make_shared<MappedFile const>(path);
  auto header = parse_gguf_header(mapping->text(), path.string());
  impl_ = std::make_unique<Impl>(Impl{path, std::move(mapping), std::move(header)});
}

GgufReader::~GgufReader() = default;
GgufReader::GgufReader(GgufReader&&) noexcept = default;

std::filesystem::path const& GgufReader::path() const {
  return impl_->path;
}

nlohmann::json const& GgufReader::metadata() const {
  return impl_->header.metadata;
}

std::map<std::string, GgufTensor> const& GgufReader::tensors() const {
  return impl_->header.tensors;
}

bool GgufReader::contains(std::string const& name) const {
  return tensors().contains(name);
}

GgufTensor const& GgufReader::info(std::string const& name) const {
  auto const found = tensors().find(name);
  if (found != tensors().end()) return found->second;
  std::vector<std::string> names;
  for (auto const& [known, _] : tensors()) names.push_back(known);
  fail(fmt::format("{} has no tensor '{}'.{}", path().string(), name, did_you_mean(name, names)));
}

std::string GgufReader::element_type(std::string const& name) const {
  auto const& tensor = info(name);
  if (!tensor.quantized()) return tensor.type;
  FSLLM_CHECK(find_gguf_block(tensor.type)->dequantize != nullptr,
              "{}: tensor '{}' has type {} (not a type that this version reads: F32, F16, BF16, Q4_0, Q4_1, "
              "Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K). Convert the model to one of them.",
              path().string(), name, tensor.type);
  return "F32";
}

at::Tensor GgufReader::tensor(std::string const& name) const {
  auto const& tensor = info(name);
  auto* const data = const_cast<std::byte*>(impl_->mapping->bytes().data()) + tensor.begin;
  if (!tensor.quantized()) {
    auto const type = *dtype_from_name(tensor.type);
    auto const view = at::from_blob(
        data, tensor.shape, [held = impl_->mapping](void*) {}, at::TensorOptions().dtype(type));
    bool const aligned = reinterpret_cast<uintptr_t>(data) % c10::elementSize(type) == 0;
    return aligned ? view : view.clone();
  }
  element_type(name);
  auto values = at::empty(tensor.shape, at::kFloat);
  dequantize(tensor.type, data, tensor.count(), values.mutable_data_ptr<float>());
  return values;
}

std::string_view GgufReader::header() const {
  return impl_->mapping->text().substr(0, static_cast<size_t>(impl_->header.data_begin));
}

bool is_gguf(std::filesystem::path const& path) {
  return std::filesystem::is_regular_file(path);
}

}  // namespace fsllm
