// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "families/family.hpp"
#include "fsllm/core/tensor_map.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/model/config.hpp"
#include "fsllm/model/quantized.hpp"

namespace fsllm::detail {

/// The weights of a model under their Hugging Face names, whatever file they come from.
struct WeightSource {
  virtual ~WeightSource() = default;
  virtual std::vector<std::string> names() const = 0;
  virtual bool contains(std::string const& name) const = 0;
  virtual std::vector<int64_t> shape(std::string const& name) const = 0;
  virtual std::string dtype(std::string const& name) const = 0;  ///< "F32", "F16", "BF16", ... of tensor()
  virtual at::Tensor tensor(std::string const& name) const = 0;
  /// A matrix that the file holds quantised, which tensor() gives in fp32; null for any other.
  virtual std::shared_ptr<QuantizedWeight const> packed(std::string const& /*name*/) const { return nullptr; }
  /// The file that holds a tensor, for messages.
  virtual std::string file_of(std::string const& name) const = 0;
  /// Every file that is read, in the order of names.
  virtual std::vector<std::filesystem::path> files() const = 0;
  /// tensor() gives views into mapped files, which the ranks of a node share.
  virtual bool mapped() const = 0;
};

/// Packed matrices of bitsandbytes are read; what other quantisers pack stays as it is.
std::unique_ptr<WeightSource> open_safetensors(std::filesystem::path const& model_dir);
/// Tensors are renamed, dequantised, and brought into Hugging Face's order of rows.
std::unique_ptr<WeightSource> open_gguf(std::filesystem::path const& file, ModelConfig const& config,
                                        Family const& family);

/// What tensors are kept as.
struct Storage {
  std::optional<at::ScalarType> type = {};  ///< unset: as in the file
  Quantization quantization = Quantization::none;
  std::set<std::string> quantized = {};  ///< names of those that are; beside them fp32 matrices become bf16
  std::string name() const;              ///< as in train.storage_dtype
};

/// What to store a tensor of `source` as; uint8 where it is quantised.
at::ScalarType stored_type(WeightSource const& source, std::string const& name, Storage const& storage);

/// A weight whose values are not finite is an Error that names it.
void check_finite_weight(std::string const& name, at::Tensor const& values, std::string const& file);
/// The values in another type; those that are not finite in it are an Error. Nothing is read where the type
/// stays.
at::Tensor converted_weight(std::string const& name, at::Tensor const& values, at::ScalarType type,
                            std::string const& file);

/// The converted copy of `source` below options.cache_dir: made now, by one process at a time, unless a good
/// one is there. A copy that is damaged or of another source is made anew. Quantised tensors are rows of
/// bytes in it.
std::filesystem::path cached_weights(std::filesystem::path const& model, WeightSource const& source,
                                     Storage const& storage, LoadOptions const& options);

}  // namespace fsllm::detail
