// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/checksum.hpp"

#include <bit>
#include <cstring>

namespace fsllm {
namespace {

constexpr uint64_t kP1 = 0x9E3779B185EBCA87, kP2 = 0xC2B2AE3D27D4EB4F, kP3 = 0x165667B19E3779F9,
                   kP4 = 0x85EBCA77C2B2AE63, kP5 = 0x27D4EB2F165667C5;

template <class T>
T word(std::byte const* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

uint64_t mix(uint64_t lane, uint64_t input) {
  return std::rotl(lane + input * kP2, 31) * kP1;
}

uint64_t merge(uint64_t hash, uint64_t lane) {
  return (hash ^ mix(0, lane)) * kP1 + kP4;
}

}  // namespace

uint64_t checksum64(std::span<std::byte const> bytes) {
  auto const* at = bytes.data();
  auto const* const end = at + bytes.size();
  uint64_t hash = kP5;
  if (bytes.size() >= 32) {
    uint64_t a = kP1 + kP2, b = kP2, c = 0, d = uint64_t{0} - kP1;
    for (; end - at >= 32; at += 32) {
      a = mix(a, word<uint64_t>(at));
      b = mix(b, word<uint64_t>(at + 8));
      c = mix(c, word<uint64_t>(at + 16));
      d = mix(d, word<uint64_t>(at + 24));
    }
    hash = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
    for (uint64_t const lane : {a, b, c, d}) hash = merge(hash, lane);
  }
  hash += bytes.size();
  for (; end - at >= 8; at += 8) hash = std::rotl(hash ^ mix(0, word<uint64_t>(at)), 27) * kP1 + kP4;
  if (end - at >= 4) {
    hash = std::rotl(hash ^ word<uint32_t>(at) * kP1, 23) * kP2 + kP3;
    at += 4;
  }
  for (; at < end; ++at) hash = std::rotl(hash ^ static_cast<uint64_t>(*at) * kP5, 11) * kP1;
  hash = (hash ^ (hash >> 33)) * kP2;
  hash = (hash ^ (hash >> 29)) * kP3;
  return hash ^ (hash >> 32);
}

}  // namespace fsllm
