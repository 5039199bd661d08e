// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/tensor_bytes.hpp"

#include <ATen/ops/empty.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"

namespace fsllm {

/// A JSON list of [name, type, shape], a zero byte, and the values end to end.
std::string to_bytes(TensorMap const& map) {
  auto header = nlohmann::json::array();
  for (auto const& [name, tensor] : map)
    header.push_back({name, static_cast<int>(tensor.scalar_type()), tensor.sizes().vec()});
  auto bytes = header.dump() + '\0';
  for (auto const& [name, tensor] : map) {
    auto const values = tensor.detach().cpu().contiguous();
    bytes.append(static_cast<char const*>(values.const_data_ptr()), values.nbytes());
  }
  return bytes;
}

TensorMap from_bytes(std::string_view bytes) {
  auto const end = bytes.find('\0');
  FSLLM_ASSERT(end != std::string_view::npos);
  auto const header = nlohmann::json::parse(bytes.substr(0, end));
  bytes.remove_prefix(end + 1);
  TensorMap map;
  for (auto const& entry : header) {
    auto const tensor = at::empty(entry.at(2).get<std::vector<int64_t>>(),
                                  static_cast<at::ScalarType>(entry.at(1).get<int>()));
    FSLLM_ASSERT(bytes.size() >= tensor.nbytes());
    if (tensor.nbytes() > 0) std::memcpy(tensor.mutable_data_ptr(), bytes.data(), tensor.nbytes());
    bytes.remove_prefix(tensor.nbytes());
    map.emplace(entry.at(0).get<std::string>(), tensor);
  }
  return map;
}

}  // namespace fsllm
