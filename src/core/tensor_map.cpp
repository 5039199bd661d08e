// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/tensor_map.hpp"

#include <ATen/core/Formatting.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/sub.h>

#include <cmath>
#include <sstream>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

std::string describe(at::Tensor const& tensor) {
  std::ostringstream text;
  text << tensor.sizes() << " " << tensor.scalar_type();
  return text.str();
}

/// FNV-1a, 64 bit.
void hash_bytes(uint64_t& hash, std::string_view bytes) {
  for (unsigned char const byte : bytes) hash = (hash ^ byte) * 0x100000001b3ULL;
}

}  // namespace

TensorMap clone(TensorMap const& map) {
  TensorMap copy;
  for (auto const& [name, tensor] : map) copy.emplace(name, tensor.detach().clone());
  return copy;
}

TensorMap part_of(TensorMap const& map, std::string const& prefix) {
  TensorMap part;
  for (auto const& [name, tensor] : map)
    if (name.starts_with(prefix)) part.emplace(name.substr(prefix.size()), tensor);
  return part;
}

TensorMap moved(TensorMap const& map, at::Device device) {
  TensorMap there;
  for (auto const& [name, tensor] : map) there.emplace(name, tensor.detach().to(device));
  return there;
}

TensorMap subtract(TensorMap const& a, TensorMap const& b) {
  check_same_layout(a, b, "difference of two states");
  TensorMap difference;
  for (auto const& [name, tensor] : a)
    difference.emplace(name, at::sub(tensor.detach(), b.at(name).detach()));
  return difference;
}

void copy_values(TensorMap& to, TensorMap const& from) {
  check_same_layout(to, from, "copied state");
  for (auto& [name, tensor] : to) tensor.detach().copy_(from.at(name).detach());
}

double l2_norm(TensorMap const& map) {
  double squares = 0;
  for (auto const& [name, tensor] : map) {
    double const norm = at::linalg_vector_norm(tensor.detach(), 2, {}, false, at::kDouble).item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

int64_t num_parameters(TensorMap const& map) {
  int64_t count = 0;
  for (auto const& [name, tensor] : map) count += tensor.numel();
  return count;
}

int64_t num_bytes(TensorMap const& map) {
  int64_t count = 0;
  for (auto const& [name, tensor] : map) count += static_cast<int64_t>(tensor.nbytes());
  return count;
}

uint64_t layout_fingerprint(TensorMap const& map, uint64_t salt) {
  uint64_t hash = 0xcbf29ce484222325ULL ^ salt;
  for (auto const& [name, tensor] : map) {
    hash_bytes(hash, name);
    hash_bytes(hash, describe(tensor));
  }
  return hash;
}

void check_same_layout(TensorMap const& a, TensorMap const& b, std::string const& what) {
  for (auto const& [name, tensor] : a) {
    auto const found = b.find(name);
    FSLLM_CHECK(found != b.end(),
                "{}: tensor {} is missing ({} tensors against {}). Use the state of the same model.", what,
                name, b.size(), a.size());
    bool const same =
        tensor.sizes() == found->second.sizes() && tensor.scalar_type() == found->second.scalar_type();
    FSLLM_CHECK(same, "{}: tensor {} is {} ({} expected). Use the state of the same model.", what, name,
                describe(found->second), describe(tensor));
  }
  for (auto const& [name, tensor] : b)
    FSLLM_CHECK(a.count(name) != 0,
                "{}: tensor {} is not expected ({} tensors against {}). Use the state of the same model.",
                what, name, b.size(), a.size());
}

}  // namespace fsllm
