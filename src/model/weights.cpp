// SPDX-License-Identifier: Apache-2.0
#include "weights.hpp"

#include <set>

#include "bitsandbytes.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/dtype.hpp"

namespace fsllm::detail {
namespace {

class SafetensorsWeights final : public WeightSource {
 public:
  explicit SafetensorsWeights(std::filesystem::path const& model_dir) : reader_(model_dir) {}
  std::vector<std::string> names() const override { return reader_.names(); }
  bool contains(std::string const& name) const override { return reader_.contains(name); }
  std::vector<int64_t> shape(std::string const& name) const override { return reader_.shape(name); }
  std::string dtype(std::string const& name) const override { return reader_.dtype(name); }
  at::Tensor tensor(std::string const& name) const override { return reader_.tensor(name); }
  std::string file_of(std::string const& name) const override { return reader_.file_of(name); }
  std::vector<std::filesystem::path> files() const override {
    std::set<std::filesystem::path> files;
    for (auto const& name : names()) files.insert(file_of(name));
    return {files.begin(), files.end()};
  }
  bool mapped() const override { return true; }

 private:
  SafetensorsReader reader_;
};

}  // namespace

std::unique_ptr<WeightSource> open_safetensors(std::filesystem::path const& model_dir) {
  return with_bitsandbytes(std::make_unique<SafetensorsWeights>(model_dir));
}

std::string Storage::name() const {
  if (quantization != Quantization::none) return quantization == Quantization::nf4 ? "nf4" : "int8";
  return type ? dtype_name(*type) : "auto";
}

at::ScalarType stored_type(WeightSource const& source, std::string const& name, Storage const& storage) {
  if (storage.type) return *storage.type;
  if (storage.quantized.contains(name)) return at::kByte;
  auto const type = source.dtype(name);
  if (type == "BF16") return at::kBFloat16;
  if (type == "F16") return at::kHalf;
  bool const halved = storage.quantization != Quantization::none && source.shape(name).size() == 2;
  return halved ? at::kBFloat16 : at::kFloat;
}

}  // namespace fsllm::detail
