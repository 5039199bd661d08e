// SPDX-License-Identifier: Apache-2.0
#include "tiktoken.hpp"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "fsllm/core/error.hpp"
#include "fsllm/io/base64.hpp"
#include "fsllm/text/json_tokenizer.hpp"
#include "known_words.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

struct Entry {
  std::string token;
  int64_t rank = -1;
};

/// "IQ== 0"; rank -1 for anything else.
Entry parse_line(std::string_view line) {
  size_t const space = line.find(' ');
  if (space == std::string_view::npos) return {};
  auto const token = decode_base64(line.substr(0, space));
  auto const number = line.substr(space + 1);
  int64_t rank = -1;
  auto const [end, error] = std::from_chars(number.data(), number.data() + number.size(), rank);
  bool const good = token && error == std::errc() && end == number.data() + number.size();
  return good ? Entry{*token, rank} : Entry{};
}

/// Calls `use(line, number)` for every line that is not empty.
template <class Use>
void for_each_line(std::string_view text, Use use) {
  for (size_t number = 1; !text.empty(); ++number) {
    auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) use(line, number);
  }
}

/// Tokens by rank; ranks run from 0 on without a gap.
std::vector<std::string> read_ranks(std::string const& content, std::string const& where) {
  auto const lines = static_cast<size_t>(tiktoken_ranks(content));
  std::vector<std::string> tokens(lines);
  std::set<char> bytes;
  for_each_line(content, [&](std::string_view line, size_t number) {
    auto const [token, rank] = parse_line(line);
    FSLLM_CHECK(rank >= 0 && !token.empty(),
                "{}:{}: not a line of a tiktoken vocabulary (a token in base64 and its rank). Copy the file "
                "again.",
                where, number);
    bool const is_free = rank < static_cast<int64_t>(lines) && tokens[static_cast<size_t>(rank)].empty();
    FSLLM_CHECK(is_free, "{}:{}: rank {} stands twice or beyond the {} tokens. Copy the file again.", where,
                number, rank, lines);
    if (token.size() == 1) bytes.insert(token[0]);
    tokens[static_cast<size_t>(rank)] = token;
  });
  FSLLM_CHECK(bytes.size() == 256,
              "{}: {} of the 256 single bytes are tokens (so some texts have no ids). Copy the file again.",
              where, bytes.size());
  return tokens;
}

/// Names of LLaMA 3.1, whose ids of BOS, EOS, header and turn are those of LLaMA 3.
std::vector<std::string> special_names() {
  constexpr int kCount = 256;
  std::vector<std::string> names{"<|begin_of_text|>",
                                 "<|end_of_text|>",
                                 "<|reserved_special_token_0|>",
                                 "<|reserved_special_token_1|>",
                                 "<|finetune_right_pad_id|>",
                                 "<|reserved_special_token_2|>",
                                 "<|start_header_id|>",
                                 "<|end_header_id|>",
                                 "<|eom_id|>",
                                 "<|eot_id|>",
                                 "<|python_tag|>"};
  for (int i = 3; names.size() < kCount; ++i)
    names.push_back(fmt::format("<|reserved_special_token_{}|>", i));
  return names;
}

}  // namespace

bool is_tiktoken(std::string const& content) {
  auto const line = std::string_view(content).substr(0, std::min<size_t>(content.find('\n'), 4096));
  return parse_line(line.ends_with('\r') ? line.substr(0, line.size() - 1) : line).rank >= 0;
}

std::vector<AddedToken> tiktoken_specials(int64_t ranks, std::vector<AddedToken> const& renamed) {
  std::vector<AddedToken> specials;
  for (auto const& name : special_names()) {
    auto const id = static_cast<int32_t>(ranks + static_cast<int64_t>(specials.size()));
    auto const other =
        std::find_if(renamed.begin(), renamed.end(), [&](auto const& token) { return token.id == id; });
    specials.push_back({id, other == renamed.end() ? name : other->content, true});
  }
  return specials;
}

int64_t tiktoken_ranks(std::string const& content) {
  int64_t lines = 0;
  for_each_line(content, [&](std::string_view, size_t) { ++lines; });
  return lines;
}

std::unique_ptr<Tokenizer> read_tiktoken(std::string const& content, SpecialTokenRules rules,
                                         std::string const& sha256, std::string const& where) {
  auto const tokens = read_ranks(content, where);
  if (!rules.bos) rules.bos = "<|begin_of_text|>";
  if (!rules.eos && !rules.eos_id) rules.eos = "<|end_of_text|>";
  if (!rules.add_bos) rules.add_bos = true;
  auto const words = known_words("llama3", where);
  json added = json::array();
  for (auto const& token : tiktoken_specials(static_cast<int64_t>(tokens.size()), rules.added))
    added.push_back({{"id", token.id}, {"content", token.content}, {"special", true}});
  json const document{{"added_tokens", std::move(added)},
                      {"pre_tokenizer", words.pre_tokenizer},
                      {"decoder", {{"type", "ByteLevel"}}}};
  return std::make_unique<JsonTokenizer>(document, Bpe(tokens), rules, sha256, where);
}

}  // namespace fsllm
