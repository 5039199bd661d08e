// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

namespace fsllm {

/// Named tensors in name order: adapters, parameters, updates, optimiser state. Copies share storage.
using TensorMap = std::map<std::string, at::Tensor>;

/// A deep copy, detached from autograd.
TensorMap clone(TensorMap const& map);
/// The map on another device; tensors that lie there already share their storage.
TensorMap moved(TensorMap const& map, at::Device device);
/// The tensors whose names begin with `prefix`, without it; storage is shared.
TensorMap part_of(TensorMap const& map, std::string const& prefix);
/// a - b, name by name; the layouts must agree.
TensorMap subtract(TensorMap const& a, TensorMap const& b);
/// Copies the values of `from` into the tensors of `to`, in place; the layouts must agree.
void copy_values(TensorMap& to, TensorMap const& from);
double l2_norm(TensorMap const& map);
int64_t num_parameters(TensorMap const& map);
int64_t num_bytes(TensorMap const& map);
/// A 64-bit hash of names, shapes and dtypes (not of values): equal on ranks that may reduce together.
uint64_t layout_fingerprint(TensorMap const& map, uint64_t salt = 0);
/// Fails with the first name, shape or dtype that differs; `what` says whose maps these are.
void check_same_layout(TensorMap const& a, TensorMap const& b, std::string const& what);

}  // namespace fsllm
