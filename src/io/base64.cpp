// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/base64.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <climits>

namespace fsllm {

std::optional<std::string> decode_base64(std::string_view text) {
  size_t const end = text.find_last_not_of('=') + 1;
  size_t const padding = text.size() - end;
  // OpenSSL would skip white space at the ends, and takes '=' for zero bits anywhere.
  bool const clean = text.find_first_of("= \t\r\n") >= end || end == 0;
  if (text.size() % 4 != 0 || padding > 2 || !clean || text.size() > INT_MAX) return std::nullopt;
  std::string bytes(text.size() / 4 * 3, '\0');
  int const size =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                      reinterpret_cast<unsigned char const*>(text.data()), static_cast<int>(text.size()));
  if (size != static_cast<int>(bytes.size())) return std::nullopt;
  bytes.resize(bytes.size() - padding);
  return bytes;
}

}  // namespace fsllm
