// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace fsllm {

/// The `decoder` of a tokenizer.json: ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace, Sequence.
class Decoder {
 public:
  Decoder() = default;
  /// `where` names the file; a construct that is not known is an Error that names it.
  Decoder(nlohmann::json const& description, std::string const& where);
  /// Token texts to text; bytes that are not UTF-8 become U+FFFD. Without a decoder tokens are joined by
  /// spaces.
  std::string decode(std::vector<std::string> tokens) const;

 private:
  void add(nlohmann::json const& description, std::string const& where);
  std::vector<std::function<void(std::vector<std::string>&)>> steps_;
};

}  // namespace fsllm
