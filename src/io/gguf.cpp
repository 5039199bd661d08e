// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/gguf.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <numeric>
#include <system_error>

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

namespace {

/// Where a file is, and what changes when it is written or replaced.
struct FileIdentity {
  std::filesystem::path path;
  std::error_code problem;  ///< of a file that cannot be looked at; nothing is equal to it
  uintmax_t size = 0;
  std::filesystem::file_time_type written = {};
  bool operator==(FileIdentity const& other) const {
    return !problem && !other.problem && path == other.path && size == other.size && written == other.written;
  }
};

FileIdentity identity_of(std::filesystem::path const& path) {
  FileIdentity file{path, {}};
  file.size = std::filesystem::file_size(path, file.problem);
  if (!file.problem) file.written = std::filesystem::last_write_time(path, file.problem);
  return file;
}

struct Part {
  std::filesystem::path path;
  std::shared_ptr<MappedFile const> mapping;
  GgufHeader header;
};

Part open_part(std::filesystem::path const& path) {
  auto mapping = std::make_shared<MappedFile const>(path);
  auto header = parse_gguf_header(mapping->text(), path.string());
  return {path, std::move(mapping), std::move(header)};
}

/// A number that gguf-split writes; 0 where there is none.
uint64_t split_number(Part const& part, std::string const& key) {
  auto const found = part.header.metadata.find("split." + key);
  if (found == part.header.metadata.end()) return 0;
  FSLLM_CHECK(found->is_number_integer() && found->get<int64_t>() >= 0,
              "{}: split.{} = {} (a count is needed). Split the model again.", part.path.string(), key,
              found->dump());
  return found->get<uint64_t>();
}

/// The name of one of `count` parts, as gguf-split makes it.
std::filesystem::path part_path(std::filesystem::path const& first, uint64_t number, uint64_t count) {
  auto const ending = [&](uint64_t one) { return fmt::format("-{:05d}-of-{:05d}.gguf", one, count); };
  auto const name = first.filename().string();
  FSLLM_CHECK(
      name.ends_with(ending(1)),
      "{}: part 1 of {} of a split model (the parts are found by names that end in {}). Give the files "
      "their names back, or join them with gguf-split --merge.",
      first.string(), count, ending(1));
  return first.parent_path() / (name.substr(0, name.size() - ending(1).size()) + ending(number));
}

/// All parts of a split model; one part of the others.
std::vector<Part> open_parts(std::filesystem::path const& path) {
  std::vector<Part> parts;
  parts.push_back(open_part(path));
  auto const count = split_number(parts.front(), "count"), number = split_number(parts.front(), "no");
  if (count <= 1) return parts;
  FSLLM_CHECK(number == 0, "{}: part {} of {} of a split model. Give its first part.", path.string(),
              number + 1, count);
  for (uint64_t next = 2; next <= count; ++next) {
    auto const file = part_path(path, next, count);
    FSLLM_CHECK(std::filesystem::exists(file),
                "{}: part 1 of {} of a split model (there is no {}). Put all parts into one folder.",
                path.string(), count, file.string());
    parts.push_back(open_part(file));
    FSLLM_CHECK(split_number(parts.back(), "count") == count && split_number(parts.back(), "no") == next - 1,
                "{}: not part {} of {} (it says part {} of {}). Copy the parts again.", file.string(), next,
                count, split_number(parts.back(), "no") + 1, split_number(parts.back(), "count"));
  }
  return parts;
}

}  // namespace

struct GgufReader::Impl {
  explicit Impl(std::filesystem::path const& path);
  std::vector<Part> parts;
  std::map<std::string, GgufTensor> tensors;
};

GgufReader::Impl::Impl(std::filesystem::path const& path) : parts(open_parts(path)) {
  for (size_t part = 0; part < parts.size(); ++part)
    for (auto& [name, tensor] : parts[part].header.tensors) {
      tensor.part = part;
      FSLLM_CHECK(tensors.emplace(name, tensor).second,
                  "{}: the tensor '{}' stands in another part too. Copy the parts again.",
                  parts[part].path.string(), name);
    }
  auto const wanted = split_number(parts.front(), "tensors.count");
  FSLLM_CHECK(parts.size() == 1 || wanted == tensors.size(),
              "{}: {} tensors in all parts (split.tensors.count is {}). Copy the parts again.", path.string(),
              tensors.size(), wanted);
}

GgufReader::GgufReader(std::filesystem::path const& path) {
  static std::mutex opening;
  static std::weak_ptr<Impl const> newest;
  static FileIdentity newest_file;
  std::lock_guard const lock(opening);
  auto const file = identity_of(path);
  impl_ = newest.lock();
  if (impl_ && impl_->parts.size() == 1 && newest_file == file) return;
  impl_ = std::make_shared<Impl const>(path);
  newest = impl_;
  newest_file = file;
}

GgufReader::~GgufReader() = default;
GgufReader::GgufReader(GgufReader&&) noexcept = default;

std::filesystem::path const& GgufReader::path() const {
  return impl_->parts.front().path;
}

nlohmann::json const& GgufReader::metadata() const {
  return impl_->parts.front().header.metadata;
}

std::map<std::string, GgufTensor> const& GgufReader::tensors() const {
  return impl_->tensors;
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
  auto const& mapping = impl_->parts[tensor.part].mapping;
  auto* const data = const_cast<std::byte*>(mapping->bytes().data()) + tensor.begin;
  if (!tensor.quantized()) {
    auto const type = *dtype_from_name(tensor.type);
    auto const view = at::from_blob(
        data, tensor.shape, [held = mapping](void*) {}, at::TensorOptions().dtype(type));
    bool const aligned = reinterpret_cast<uintptr_t>(data) % c10::elementSize(type) == 0;
    return aligned ? view : view.clone();
  }
  element_type(name);
  auto values = at::empty(tensor.shape, at::kFloat);
  dequantize(tensor.type, data, tensor.count(), values.mutable_data_ptr<float>());
  return values;
}

std::vector<std::filesystem::path> GgufReader::files() const {
  std::vector<std::filesystem::path> files;
  for (auto const& part : impl_->parts) files.push_back(part.path);
  return files;
}

bool is_gguf(std::filesystem::path const& path) {
  return std::filesystem::is_regular_file(path);
}

}  // namespace fsllm
