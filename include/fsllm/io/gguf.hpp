// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// One tensor of a GGUF file. Sizes are in torch's order (the file has them the other way round).
struct GgufTensor {
  std::vector<int64_t> shape;
  std::string type;        ///< "F32", "F16", "BF16", "Q4_K", ...
  int64_t begin = 0;       ///< first byte in the file
  size_t part = 0;         ///< which file of a split model
  int64_t bytes = 0;       ///< size in the file
  int64_t count() const;   ///< elements
  bool quantized() const;  ///< stored in blocks: neither F32, F16 nor BF16
};

/// A GGUF file (llama.cpp's format, versions 2 and 3), memory-mapped, or the first of the files that
/// gguf-split made of one (NAME-00001-of-0000N.gguf), which must lie beside it. Every length, count, size,
/// offset and overlap is checked before it is used; an Error names the file and what is wrong with it. While
/// one lives, further ones of the same unchanged file share what it has read: a vocabulary takes 40 ms.
class GgufReader {
 public:
  explicit GgufReader(std::filesystem::path const& path);
  ~GgufReader();
  GgufReader(GgufReader&&) noexcept;

  std::filesystem::path const& path() const;
  /// All metadata as one JSON object: numbers, booleans, texts, arrays (nested ones too).
  nlohmann::json const& metadata() const;
  std::map<std::string, GgufTensor> const& tensors() const;
  bool contains(std::string const& name) const;
  /// Missing names are an Error with the nearest present name.
  GgufTensor const& info(std::string const& name) const;
  /// "F32", "F16" or "BF16": what tensor() gives. A type that cannot be read is an Error.
  std::string element_type(std::string const& name) const;
  /// F32, F16, BF16: a view into the file (not to be written to); blocks: dequantised to fp32.
  at::Tensor tensor(std::string const& name) const;
  /// The parts of the model, in their order.
  std::vector<std::filesystem::path> files() const;

 private:
  struct Impl;
  std::shared_ptr<Impl const> impl_;
};

/// A model path that names a file is a GGUF file (a folder is Hugging Face layout).
bool is_gguf(std::filesystem::path const& path);

/// Blocks of a GGUF type to fp32, as ggml does it. `blocks` holds `count` elements, a multiple of the block
/// size. Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K.
void dequantize(std::string_view type, std::byte const* blocks, int64_t count, float* values);

}  // namespace fsllm
