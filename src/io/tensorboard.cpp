// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/tensorboard.hpp"

#include <array>
#include <bit>

namespace fsllm {
namespace {

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82F63B78U : 0U);
    table[i] = value;
  }
  return table;
}

std::string little_endian(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xFF);
  return text;
}

std::string varint(uint64_t value) {
  std::string text;
  for (; value >= 0x80; value >>= 7) text += static_cast<char>((value & 0x7F) | 0x80);
  return text + static_cast<char>(value);
}

/// How a field of a message is stored.
enum class Wire : uint64_t { varint = 0, eight_bytes = 1, counted = 2, four_bytes = 5 };

std::string key(uint64_t field, Wire wire) {
  return varint(field << 3 | static_cast<uint64_t>(wire));
}

std::string counted(uint64_t field, std::string const& bytes) {
  return key(field, Wire::counted) + varint(bytes.size()) + bytes;
}

std::string wall_time_field(double seconds) {
  return key(1, Wire::eight_bytes) + little_endian(std::bit_cast<uint64_t>(seconds), 8);
}

/// Length, its checksum, the message, its checksum; "masked" for messages that hold checksums themselves.
std::string framed(std::string const& message) {
  auto const masked = [](std::string const& bytes) {
    auto const sum = crc32c(bytes);
    return little_endian(std::rotr(sum, 15) + 0xA282EAD8U, 4);
  };
  auto const length = little_endian(message.size(), 8);
  return length + masked(length) + message + masked(message);
}

}  // namespace

uint32_t crc32c(std::string const& bytes) {
  static constexpr auto table = crc_table();
  uint32_t sum = ~0U;
  for (char const c : bytes) sum = table[(sum ^ static_cast<unsigned char>(c)) & 0xFF] ^ (sum >> 8);
  return ~sum;
}

std::string event_file_header(double wall_time) {
  return framed(wall_time_field(wall_time) + counted(3, "brain.Event:2"));
}

std::optional<double> time_of_event_file(std::string_view file) {
  constexpr size_t kTimeAt = 8 + 4 + 1;  // behind the length, its checksum and the field's key
  if (file.size() < kTimeAt + 8) return {};
  uint64_t bits = 0;
  for (size_t i = 8; i-- > 0;) bits = bits << 8 | static_cast<unsigned char>(file[kTimeAt + i]);
  auto const time = std::bit_cast<double>(bits);
  return file.starts_with(event_file_header(time)) ? std::optional(time) : std::nullopt;
}

std::string event_record(CurvePoint const& point) {
  auto const value = counted(1, point.tag) + key(2, Wire::four_bytes) +
                     little_endian(std::bit_cast<uint32_t>(static_cast<float>(point.value)), 4);
  return framed(wall_time_field(point.wall_time) + key(2, Wire::varint) +
                varint(static_cast<uint64_t>(point.step)) + counted(5, counted(1, value)));
}

}  // namespace fsllm
