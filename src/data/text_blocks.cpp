// SPDX-License-Identifier: Apache-2.0
#include "text_blocks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "fsllm/core/utf8.hpp"

namespace fsllm {

TextBlocks::TextBlocks(std::string source, std::function<void(std::string&&, RecordPlace const&)> block,
                       JsonRecords::Bad bad, JsonRecords::Wanted wanted, RecordLimits limits)
    : place_{std::move(source), 1},
      block_(std::move(block)),
      bad_(std::move(bad)),
      wanted_(std::move(wanted)),
      limits_(limits) {}

/// The rest of the stream is not read.
void TextBlocks::stop(std::string const& why) {
  stopped_ = true;
  line_.clear();
  text_.clear();
  place_.line = line_number_;
  if (wanted_()) bad_(why, place_);
}

void TextBlocks::feed(std::string_view piece) {
  read_ += static_cast<int64_t>(piece.size());
  if (!stopped_ && read_ > limits_.file_bytes)
    stop(fmt::format("the file has more than {} bytes unpacked (data.max_file_bytes)", limits_.file_bytes));
  for (size_t at = 0; at < piece.size() && !stopped_;) {
    size_t const end = piece.find('\n', at);
    if (std::cmp_greater(text_.size() + line_.size() + std::min(end, piece.size()) - at,
                         limits_.record_bytes))
      return stop(fmt::format("a block of more than {} bytes (data.max_line_bytes)", limits_.record_bytes));
    line_ += piece.substr(at, end - at);
    if (end == std::string_view::npos) return;
    end_line();
    at = end + 1;
  }
}

void TextBlocks::finish(std::string const& problem) {
  if (stopped_) return;
  if (!line_.empty()) end_line();
  end_block();
  place_.line = line_number_;
  if (!problem.empty() && wanted_()) bad_(problem, place_);
}

void TextBlocks::end_line() {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (line_number_ == 1 && line_.starts_with(kByteOrderMark)) line_.erase(0, kByteOrderMark.size());
  if (line_.ends_with('\r')) line_.pop_back();
  if (line_.find_first_not_of(" \t\r") == std::string::npos) {
    end_block();
  } else {
    if (text_.empty()) place_.line = line_number_;
    text_ += (text_.empty() ? "" : "\n") + line_;
  }
  line_.clear();
  ++line_number_;
}

void TextBlocks::end_block() {
  if (text_.empty()) return;
  auto const text = std::move(text_);
  text_.clear();
  if (!wanted_()) return;
  std::string buffer;
  if (text.find('\0') != std::string::npos) return bad_("a NUL byte (this is no text)", place_);
  if (valid_utf8(text, buffer).data() != text.data()) return bad_("broken UTF-8", place_);
  block_(std::string(text), place_);
}

}  // namespace fsllm
