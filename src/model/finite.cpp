// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/finite.hpp"

#include "fsllm/core/error.hpp"
#include "fsllm/core/finite.hpp"
#include "fsllm/model/dtype.hpp"
#include "weights.hpp"

namespace fsllm {

void detail::check_finite_weight(std::string const& name, at::Tensor const& values, std::string const& file) {
  FSLLM_CHECK(
      is_finite(values),
      "{}: {} holds values that are not finite (a broken download or conversion). Copy or convert the "
      "model again.",
      file, name);
}

at::Tensor detail::converted_weight(std::string const& name, at::Tensor const& values, at::ScalarType type,
                                    std::string const& file) {
  if (values.scalar_type() == type) return values;
  auto const converted = values.to(type);
  if (is_finite(converted)) return converted;
  check_finite_weight(name, values, file);
  fail(fmt::format("{}: {} holds values up to {:g} ({} holds less). Use another storage type: bf16 or fp32.",
                   file, name, values.abs().max().item<double>(), dtype_name(type)));
}

void check_finite_weights(CausalLM& model) {
  for (auto const& [name, tensor] : model.parameters())
    if (tensor.numel() == 0 || tensor.storage().nbytes() > 0)
      detail::check_finite_weight(name, tensor, "the model");
}

}  // namespace fsllm
