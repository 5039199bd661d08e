// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>

namespace fsllm::test {

/// One to four of: a flipped bit, another byte, a removed run, a doubled run, an end cut off.
inline std::string mutated(std::string bytes, std::mt19937_64& random) {
  for (uint64_t steps = 1 + random() % 4; steps > 0 && !bytes.empty(); --steps) {
    size_t const at = random() % bytes.size(),
                 length = 1 + random() % std::min<size_t>(bytes.size() - at, 16);
    switch (random() % 5) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
        break;
      case 1:
        bytes[at] = static_cast<char>(random());
        break;
      case 2:
        bytes.erase(at, length);
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, length));
        break;
      default:
        bytes.resize(at);
        break;
    }
  }
  return bytes;
}

}  // namespace fsllm::test
