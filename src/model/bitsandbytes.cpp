// SPDX-License-Identifier: Apache-2.0
#include "bitsandbytes.hpp"

#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/finite.hpp"

namespace fsllm::detail {
namespace {

constexpr char const *kState = ".quant_state.bitsandbytes__nf4", *kWeight = ".weight";

std::string module_of_weight(std::string const& name) {
  return name.substr(0, name.size() - std::string(kWeight).size());
}

at::Tensor bytes_of(at::Tensor const& floats) {
  return floats.contiguous().view(at::kByte);
}

/// How a matrix of this name is packed; `none` for any other tensor.
Quantization kind_of(WeightSource const& source, std::string const& name) {
  if (!name.ends_with(kWeight)) return Quantization::none;
  auto const type = source.dtype(name);
  if (type == "I8" && source.contains(module_of_weight(name) + ".SCB")) return Quantization::int8;
  return type == "U8" && source.contains(name + kState) ? Quantization::nf4 : Quantization::none;
}

class Bitsandbytes final : public WeightSource {
 public:
  Bitsandbytes(std::unique_ptr<WeightSource> source, std::map<std::string, Quantization> kinds)
      : source_(std::move(source)), kinds_(std::move(kinds)) {
    for (auto const& [name, kind] : kinds_) {
      auto const module = module_of_weight(name);
      for (auto const* part : {".SCB", ".weight_format"}) parts_.insert(module + part);
      for (auto const* part : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", kState})
        parts_.insert(name + part);
    }
  }

  std::vector<std::string> names() const override {
    auto names = source_->names();
    std::erase_if(names, [&](auto const& name) { return parts_.contains(name); });
    return names;
  }
  bool contains(std::string const& name) const override {
    return source_->contains(name) && !parts_.contains(name);
  }
  std::vector<int64_t> shape(std::string const& name) const override {
    auto const found = kinds_.find(name);
    if (found == kinds_.end() || found->second == Quantization::int8) return source_->shape(name);
    return state(name).at("shape").get<std::vector<int64_t>>();
  }
  std::string dtype(std::string const& name) const override {
    return kinds_.contains(name) ? "F32" : source_->dtype(name);
  }
  at::Tensor tensor(std::string const& name) const override {
    auto const weight = packed(name);
    return weight ? weight->dequantized() : source_->tensor(name);
  }
  std::shared_ptr<QuantizedWeight const> packed(std::string const& name) const override {
    auto const found = kinds_.find(name);
    if (found == kinds_.end()) return nullptr;
    return std::make_shared<QuantizedWeight const>(found->second == Quantization::int8 ? int8(name)
                                                                                       : nf4(name));
  }
  std::string file_of(std::string const& name) const override { return source_->file_of(name); }
  std::vector<std::filesystem::path> files() const override { return source_->files(); }
  bool mapped() const override { return source_->mapped(); }

 private:
  void check(bool good, std::string const& name, std::string const& why) const {
    FSLLM_CHECK(good,
                "{}: {} is not what bitsandbytes packs ({}). Use a good copy of the model, or save it "
                "dequantised (transformers: model.dequantize()).",
                source_->file_of(name), name, why);
  }

  /// A part of a packed matrix; its type and number of values are checked.
  at::Tensor part(std::string const& name, std::string const& part, char const* type, int64_t count) const {
    check(source_->contains(part), name, part + " is missing");
    int64_t values = 1;
    for (int64_t const size : source_->shape(part)) values *= size;
    check(source_->dtype(part) == type && values == count, name,
          fmt::format("{} has not {} values of type {}", part, count, type));
    auto const tensor = source_->tensor(part).view({-1});
    check(std::string(type) != "F32" || is_finite(tensor), name, part + " holds values that are not finite");
    return tensor;
  }

  /// What bitsandbytes' QuantState says beside the tensors; only the kind that QuantizedWeight has.
  nlohmann::json state(std::string const& name) const {
    auto const bytes = source_->tensor(name + kState);
    check(bytes.scalar_type() == at::kByte, name, "its quant_state is no text");
    auto const text = bytes.contiguous();
    auto const* begin = text.const_data_ptr<uint8_t>();
    auto const json = nlohmann::json::parse(begin, begin + text.numel(), nullptr, /*allow_exceptions=*/false);
    auto const integer = [&](char const* key) {
      return json.contains(key) && json[key].is_number_integer() ? json[key].get<int64_t>() : int64_t{-1};
    };
    check(json.is_object() && json.contains("shape") && json["shape"].is_array() &&
              json["shape"].size() == 2 && json.contains("nested_offset") &&
              json["nested_offset"].is_number(),
          name, "its quant_state has no shape of two numbers, or no nested_offset");
    check(integer("blocksize") == 64 && integer("nested_blocksize") == 256, name,
          "blocks of 64 and 256 are read");
    for (auto const& size : json["shape"])
      check(size.is_number_integer() && size.get<int64_t>() > 0 && size.get<int64_t>() < int64_t{1} << 31,
            name, "its quant_state has no shape of two numbers");
    return json;
  }

  QuantizedWeight int8(std::string const& name) const {
    auto const shape = source_->shape(name);
    check(shape.size() == 2, name, "it is no matrix");
    auto const most = part(name, module_of_weight(name) + ".SCB", "F32", shape[0]);
    auto const codes = source_->tensor(name).contiguous().view({-1}).view(at::kByte);
    return {at::cat({codes, bytes_of(most.div(127))}), shape, Quantization::int8};
  }

  QuantizedWeight nf4(std::string const& name) const {
    auto const json = state(name);
    auto const shape = json.at("shape").get<std::vector<int64_t>>();
    int64_t const count = shape[0] * shape[1], blocks = (count + 63) / 64;
    auto const table = part(name, name + ".quant_map", "F32", 16),
               nested = part(name, name + ".nested_quant_map", "F32", 256);
    check(at::allclose(table, nf4_values()) && at::allclose(nested, dynamic_map_values()), name,
          "its code book is another one");
    auto const offset = at::tensor({json.at("nested_offset").get<float>()});
    check(is_finite(offset), name, "its nested_offset is not finite");
    return {at::cat({part(name, name, "U8", (count + 1) / 2), part(name, name + ".absmax", "U8", blocks),
                     bytes_of(part(name, name + ".nested_absmax", "F32", (blocks + 255) / 256)),
                     bytes_of(offset)}),
            shape, Quantization::nf4};
  }

  std::unique_ptr<WeightSource> source_;
  std::map<std::string, Quantization> kinds_;
  std::set<std::string> parts_;  ///< names of tensors that belong to packed ones
};

}  // namespace

std::unique_ptr<WeightSource> with_bitsandbytes(std::unique_ptr<WeightSource> source) {
  std::map<std::string, Quantization> kinds;
  for (auto const& name : source->names())
    if (auto const kind = kind_of(*source, name); kind != Quantization::none) kinds.emplace(name, kind);
  if (kinds.empty()) return source;
  return std::make_unique<Bitsandbytes>(std::move(source), std::move(kinds));
}

}  // namespace fsllm::detail
