// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/decoder.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "fsllm/core/table.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/text/bpe.hpp"
#include "fsllm/text/normalizer.hpp"
#include "fsllm/text/pretokenizer.hpp"

namespace fsllm {
namespace {

using nlohmann::json;
using Tokens = std::vector<std::string>;
using DecodeStep = std::function<void(Tokens&)>;

constexpr char const* kReplacement = "\xEF\xBF\xBD";

std::string join(Tokens const& tokens) {
  return std::accumulate(
      tokens.begin(), tokens.end(), std::string(),
      [](std::string text, std::string const& token) { return std::move(text.append(token)); });
}

/// Tokens outside of the byte alphabet (added ones with spaces) stand for themselves.
void decode_byte_level(Tokens& tokens) {
  std::string text, bytes, buffer;
  for (auto const& token : tokens) text.append(bytes_of_alphabet(token, bytes) ? bytes : token);
  tokens.assign(1, std::string(valid_utf8(text, buffer)));
}

/// Runs of byte tokens become their text; in a run that is not UTF-8 each byte becomes U+FFFD.
void byte_fallback(Tokens& tokens) {
  Tokens out;
  std::string run, buffer;
  auto const flush = [&] {
    if (valid_utf8(run, buffer).data() == run.data()) {
      if (!run.empty()) out.push_back(run);
    } else {
      out.insert(out.end(), run.size(), kReplacement);
    }
    run.clear();
  };
  for (auto& token : tokens) {
    int const byte = byte_of_token(token);
    if (byte >= 0) {
      run.push_back(static_cast<char>(byte));
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(out);
}

DecodeStep fuse(json const&, std::string const&) {
  return [](Tokens& tokens) { tokens.assign(1, join(tokens)); };
}

DecodeStep replace(json const& description, std::string const& where) {
  Normalizer const replacement(
      {{"type", "Replace"}, {"pattern", description.at("pattern")}, {"content", description.at("content")}},
      where);
  return [replacement](Tokens& tokens) {
    Regex::Memory memory;
    for (auto& token : tokens) replacement.apply(token, memory);
  };
}

DecodeStep strip(json const& description, std::string const&) {
  auto const content = description.at("content").get<std::string>();
  auto const start = description.at("start").get<size_t>(), stop = description.at("stop").get<size_t>();
  return [=](Tokens& tokens) {
    for (auto& token : tokens) {
      for (size_t i = 0; i < start && token.starts_with(content); ++i) token.erase(0, content.size());
      for (size_t i = 0; i < stop && token.ends_with(content); ++i)
        token.resize(token.size() - content.size());
    }
  };
}

/// Marks become spaces; the first token loses its marks where a prefix is added by the pre-tokenizer.
DecodeStep decode_metaspace(json const& description, std::string const&) {
  auto const mark = description.value("replacement", std::string("\xE2\x96\x81"));
  bool const drop_first = description.contains("prepend_scheme")
                              ? description.at("prepend_scheme") != "never"
                              : description.value("add_prefix_space", true);
  return [=](Tokens& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      auto& token = tokens[i];
      char const* const space = i == 0 && drop_first ? "" : " ";
      token = replace_all(token, mark, space);
    }
  };
}

using DecoderBuilder = DecodeStep (*)(json const&, std::string const&);
std::vector<Row<DecoderBuilder>> const& decoders() {
  static std::vector<Row<DecoderBuilder>> const rows{
      {"ByteLevel", [](json const&, std::string const&) { return DecodeStep(decode_byte_level); },
       "GPT-2's characters to bytes"},
      {"ByteFallback", [](json const&, std::string const&) { return DecodeStep(byte_fallback); },
       "<0x0A> to bytes"},
      {"Fuse", fuse, "all tokens to one text"},
      {"Replace", replace, "matches of a pattern in each token"},
      {"Strip", strip, "a text at the ends of each token"},
      {"Metaspace", decode_metaspace, "the visible space to a space"},
  };
  return rows;
}

}  // namespace

Decoder::Decoder(json const& description, std::string const& where) {
  if (!description.is_null()) add(description, where);
}

void Decoder::add(json const& description, std::string const& where) {
  auto const type = description.at("type").get<std::string>();
  if (type == "Sequence") {
    for (auto const& step : description.at("decoders")) add(step, where);
    return;
  }
  steps_.push_back(
      find_row(decoders(), type, where + ": decoder type").build(description, where + ": decoder " + type));
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  for (auto const& step : steps_) step(tokens);
  if (!steps_.empty() || tokens.empty()) return join(tokens);
  return std::accumulate(
      tokens.begin() + 1, tokens.end(), tokens[0],
      [](std::string text, std::string const& token) { return std::move(text.append(" ").append(token)); });
}

}  // namespace fsllm
