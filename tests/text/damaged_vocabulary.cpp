// SPDX-License-Identifier: Apache-2.0
#include "damaged_vocabulary.hpp"

#include <cstring>
#include <stdexcept>
#include <string_view>

#include "fsllm/io/files.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

constexpr std::string_view kLost = "\xEF\xBF\xBD";
constexpr std::string_view kZeros("\0\0\0\0\0\0", 6);

template <class T>
T number_at(std::string_view bytes, size_t at) {
  T value{};
  if (at + sizeof value <= bytes.size()) std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

/// One text behind its length of eight bytes, of which only the first may be lost; false: none is here.
bool take_text(std::string_view bytes, size_t& at, std::string& text) {
  constexpr uint64_t kLongest = 1000;
  size_t begin = at + 8;
  uint64_t length = number_at<uint64_t>(bytes, at);
  if (bytes.substr(at, 3) == kLost && bytes.substr(at + 4, 6) == kZeros) {
    begin = at + 10;
    size_t const zero = bytes.find('\0', begin);  // in the next length
    if (zero == std::string_view::npos) return false;
    size_t next = zero - 1;
    if (bytes[next] == 1) --next;  // 256 and more
    if (bytes.substr(next - 2, 3) == kLost) next -= 2;
    length = next - begin;
  }
  if (length > kLongest || begin + length > bytes.size()) return false;
  text = bytes.substr(begin, length);
  at = begin + length;
  return text.find('\0') == std::string::npos;
}

/// SentencePiece BPE, as LLaMA has it: the order of the tokens behind the bytes is that of the merges, and
/// runs of spaces come last.
double score_of(size_t id, std::string text) {
  constexpr std::string_view kSpace = "\xE2\x96\x81";
  if (id < 259) return 0;
  while (text.starts_with(kSpace)) text.erase(0, kSpace.size());
  return text.empty() ? -1e9 : -static_cast<double>(id - 259);
}

/// Reads texts up to the next key; the count before them is lost, so their start is searched for.
json texts_at(std::string_view bytes, size_t from) {
  for (size_t start = from + 8; start < from + 24; ++start) {
    json texts = json::array();
    std::string text;
    for (size_t at = start; take_text(bytes, at, text) && !text.starts_with("tokenizer.");)
      texts.push_back(text);
    if (texts.size() > 100) return texts;
  }
  throw std::runtime_error("no list of texts in a damaged vocabulary");
}

/// The whole numbers below 128 that end where the next key begins.
json numbers_before_key(std::string_view bytes, size_t from, size_t count) {
  size_t const key = bytes.find("tokenizer.", from);
  json numbers = json::array();
  for (size_t i = 0; i < count; ++i) numbers.push_back(number_at<int32_t>(bytes, key - 8 - 4 * (count - i)));
  return numbers;
}

}  // namespace

json read_damaged_vocabulary(std::filesystem::path const& file) {
  auto const content = read_file(file);
  std::string_view const bytes = content;
  json metadata = json::object();
  auto const behind = [&](std::string const& key) {
    auto const at = bytes.find(key);
    return at == std::string_view::npos ? at : at + key.size();
  };
  for (std::string const key : {"general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre"}) {
    std::string text;
    if (size_t at = behind(key) + 4; take_text(bytes, at, text)) metadata[key] = text;
  }
  for (std::string const key : {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"})
    if (auto const at = behind(key); at != std::string_view::npos) metadata[key] = texts_at(bytes, at + 8);
  auto const count = metadata.at("tokenizer.ggml.tokens").size();
  metadata["tokenizer.ggml.token_type"] =
      numbers_before_key(bytes, behind("tokenizer.ggml.token_type"), count);
  if (metadata.at("tokenizer.ggml.model") == "llama") {
    for (size_t i = 0; i < count; ++i)
      metadata["tokenizer.ggml.scores"].push_back(
          score_of(i, metadata.at("tokenizer.ggml.tokens")[i].get<std::string>()));
    metadata["tokenizer.ggml.unknown_token_id"] = 0;
    metadata["tokenizer.ggml.bos_token_id"] = 1;
    metadata["tokenizer.ggml.eos_token_id"] = 2;
  }
  return metadata;
}

}  // namespace fsllm::test
