// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/pretokenizer.hpp"

#include <nlohmann/json.hpp>

#include "fsllm/core/table.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/text/normalizer.hpp"

namespace fsllm {
namespace {

using nlohmann::json;
using PieceStep = std::function<void(PieceBuffer&)>;

constexpr char const* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// What happens to a match and to the text around it (Hugging Face's SplitDelimiterBehavior).
enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior parse_behavior(std::string const& name, std::string const& where) {
  static std::vector<Row<Behavior>> const rows{{"Removed", Behavior::removed, ""},
                                               {"Isolated", Behavior::isolated, ""},
                                               {"MergedWithPrevious", Behavior::merged_with_previous, ""},
                                               {"MergedWithNext", Behavior::merged_with_next, ""},
                                               {"Contiguous", Behavior::contiguous, ""}};
  return find_row(rows, name, where + " behavior").build;
}

/// Adds [begin, end), a match or the text between matches, to the pieces of one text.
class Cutter {
 public:
  Cutter(Behavior behavior, std::vector<Piece>& out) : behavior_(behavior), out_(out) {}
  void add(size_t begin, size_t end, bool is_match) {
    if (begin == end) return;
    bool const join = (behavior_ == Behavior::contiguous && started_ && is_match == last_match_) ||
                      (behavior_ == Behavior::merged_with_previous && is_match && started_ && !last_match_) ||
                      (behavior_ == Behavior::merged_with_next && !is_match && started_ && last_match_);
    if (join) {
      out_.back().end = end;
    } else if (behavior_ != Behavior::removed || !is_match) {
      out_.push_back({begin, end});
    }
    started_ = true;
    last_match_ = is_match;
  }

 private:
  Behavior behavior_;
  std::vector<Piece>& out_;
  bool started_ = false, last_match_ = false;
};

/// Cuts every piece at the matches of `pattern`; `invert` swaps matches and the text between them.
PieceStep split_step(Regex const& pattern, Behavior behavior, bool invert) {
  return [=](PieceBuffer& buffer) {
    buffer.next.clear();
    for (auto const& piece : buffer.pieces) {
      auto const text = buffer.text.substr(piece.begin, piece.end - piece.begin);
      Cutter cutter(behavior, buffer.next);
      size_t done = 0;
      Regex::Match match;
      for (size_t from = 0; from < text.size() && pattern.find(text, from, match, buffer.regex);
           from = match.end > match.begin ? match.end : match.end + 1) {
        cutter.add(piece.begin + done, piece.begin + match.begin, invert);
        cutter.add(piece.begin + match.begin, piece.begin + match.end, !invert);
        done = match.end;
      }
      cutter.add(piece.begin + done, piece.end, invert);
    }
    buffer.pieces.swap(buffer.next);
  };
}

/// Rewrites every piece: `change(piece's text, is the very first, out)` appends the new text to out.
template <class Change>
PieceStep rewrite_step(Change change) {
  return [change](PieceBuffer& buffer) {
    buffer.spare.clear();
    for (auto& piece : buffer.pieces) {
      size_t const begin = buffer.spare.size();
      change(buffer.text.substr(piece.begin, piece.end - piece.begin), buffer.at_start && piece.begin == 0,
             buffer.spare);
      piece = {begin, buffer.spare.size()};
    }
    buffer.storage.swap(buffer.spare);
    buffer.text = buffer.storage;
  };
}

PieceStep prefix_space_step() {
  return rewrite_step([](std::string_view text, bool, std::string& out) {
    if (!text.starts_with(' ')) out.push_back(' ');
    out.append(text);
  });
}

enum class Prepend { always, first, never };

PieceStep metaspace_step(std::string const& replacement, Prepend prepend) {
  return rewrite_step([=](std::string_view text, bool is_first, std::string& out) {
    bool const wanted = prepend == Prepend::always || (prepend == Prepend::first && is_first);
    if (wanted && !text.starts_with(' ') && !text.starts_with(replacement)) out.append(replacement);
    for (char const c : text) {
      if (c == ' ') {
        out.append(replacement);
      } else {
        out.push_back(c);
      }
    }
  });
}

PieceStep to_alphabet_step() {
  return rewrite_step([](std::string_view text, bool, std::string& out) {
    for (char const c : text) out.append(byte_alphabet()[static_cast<unsigned char>(c)]);
  });
}

PieceStep from_alphabet_step() {
  return rewrite_step([](std::string_view text, bool, std::string& out) {
    std::string bytes;
    bytes_of_alphabet(text, bytes);
    out.append(bytes);
  });
}

using PieceSteps = std::vector<PieceStep>;

PieceSteps metaspace(json const& description, std::string const& where) {
  auto const replacement = description.value("replacement", std::string("\xE2\x96\x81"));
  static std::vector<Row<Prepend>> const schemes{
      {"always", Prepend::always, ""}, {"first", Prepend::first, ""}, {"never", Prepend::never, ""}};
  bool const old_form = description.contains("add_prefix_space") && !description.contains("prepend_scheme");
  auto const scheme = old_form ? (description.at("add_prefix_space").get<bool>() ? "always" : "never")
                               : description.value("prepend_scheme", std::string("always"));
  PieceSteps steps{metaspace_step(replacement, find_row(schemes, scheme, where + " prepend_scheme").build)};
  if (description.value("split", true))
    steps.push_back(
        split_step(parse_pattern({{"String", replacement}}, where), Behavior::merged_with_next, false));
  return steps;
}

PieceSteps split(json const& description, std::string const& where) {
  return {split_step(parse_pattern(description.at("pattern"), where),
                     parse_behavior(description.at("behavior").get<std::string>(), where),
                     description.value("invert", false))};
}

PieceSteps digits(json const& description, std::string const& where) {
  return {split_step(Regex(description.value("individual_digits", false) ? "\\p{N}" : "\\p{N}+", where),
                     Behavior::isolated, false)};
}

PieceSteps punctuation(json const& description, std::string const& where) {
  return {split_step(Regex(R"([\p{P}!-/:-@\[-`{-~])", where),
                     parse_behavior(description.value("behavior", std::string("Isolated")), where), false)};
}

PieceSteps whitespace(json const&, std::string const& where) {
  return {split_step(Regex(R"(\w+|[^\w\s]+)", where), Behavior::removed, true)};
}

PieceSteps whitespace_split(json const&, std::string const& where) {
  return {split_step(Regex(R"(\s)", where), Behavior::removed, false)};
}

PieceSteps byte_level(json const& description, std::string const& where) {
  PieceSteps steps;
  if (description.value("add_prefix_space", true)) steps.push_back(prefix_space_step());
  if (description.value("use_regex", true))
    steps.push_back(split_step(Regex(kGpt2Pattern, where), Behavior::isolated, false));
  return steps;
}

using PreTokenizerBuilder = PieceSteps (*)(json const&, std::string const&);
std::vector<Row<PreTokenizerBuilder>> const& pretokenizers() {
  static std::vector<Row<PreTokenizerBuilder>> const rows{
      {"ByteLevel", byte_level, "GPT-2's words, then bytes as characters"},
      {"Split", split, "cut at the matches of a pattern"},
      {"Digits", digits, "numbers apart from text"},
      {"Punctuation", punctuation, "punctuation apart from text"},
      {"Whitespace", whitespace, "runs of word characters and of others"},
      {"WhitespaceSplit", whitespace_split, "cut at white space"},
      {"Metaspace", metaspace, "spaces become a visible character"},
  };
  return rows;
}

}  // namespace

PreTokenizer::PreTokenizer(json const& description, std::string const& where) {
  if (!description.is_null()) add(description, where);
  if (bytes_mapped_) steps_.push_back(from_alphabet_step());
}

void PreTokenizer::add(json const& description, std::string const& where) {
  auto const type = description.at("type").get<std::string>();
  if (type == "Sequence") {
    for (auto const& step : description.at("pretokenizers")) add(step, where);
    return;
  }
  if (byte_level_ && !bytes_mapped_) {
    // Steps after ByteLevel see its alphabet; the last step turns the words back into bytes.
    steps_.push_back(to_alphabet_step());
    bytes_mapped_ = true;
  }
  auto const here = where + ": pre_tokenizer " + type;
  for (auto& step : find_row(pretokenizers(), type, where + ": pre_tokenizer type").build(description, here))
    steps_.push_back(std::move(step));
  FSLLM_CHECK(type != "ByteLevel" || !byte_level_,
              "{} stands twice (bytes can be mapped once only). Remove one.", here);
  byte_level_ = byte_level_ || type == "ByteLevel";
}

void PreTokenizer::split(std::string_view text, bool at_start, PieceBuffer& buffer) const {
  buffer.text = text;
  buffer.at_start = at_start;
  buffer.pieces.assign(1, {0, text.size()});
  for (auto const& step : steps_) step(buffer);
}

}  // namespace fsllm
