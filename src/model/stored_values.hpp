// SPDX-License-Identifier: Apache-2.0
// Values in the types that tensors are stored in, as floats and back; the including file defines `Lanes`.
#pragma once
#include <cstring>

#include "cpu_kernels.hpp"

namespace fsllm::detail {
namespace {

inline float value_of(float x) {
  return x;
}
inline float value_of(int8_t x) {
  return x;
}
inline float value_of(BFloat16Bits x) {
  uint32_t const wide = static_cast<uint32_t>(x.bits) << 16;
  float value = 0;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}
inline float value_of(HalfBits x) {
  return half_value(x.bits);
}

/// The first `count` of a vector's values; zeros behind them.
template <class T>
inline Lanes load_some(T const* from, int64_t count) {
  T values[kLanes] = {};
  std::memcpy(values, from, static_cast<size_t>(count) * sizeof(T));
  return load(values);
}
template <class T>
inline void store_some(T* to, Lanes x, int64_t count) {
  T values[kLanes];
  store(values, x);
  std::memcpy(to, values, static_cast<size_t>(count) * sizeof(T));
}

inline void put(float* to, float value) {
  *to = value;
}
template <class T>
inline void put(T* to, float value) {
  store_some(to, all(value), 1);
}

/// Calls work with a null pointer of the type that `type` names.
template <class Work>
inline void with_type(StoredType type, Work const& work) {
  switch (type) {
    case StoredType::bf16:
      return work(static_cast<BFloat16Bits*>(nullptr));
    case StoredType::fp16:
      return work(static_cast<HalfBits*>(nullptr));
    default:
      return work(static_cast<float*>(nullptr));
  }
}

}  // namespace
}  // namespace fsllm::detail
