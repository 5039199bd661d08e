// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/added_tokens.hpp"

#include <algorithm>

#include "fsllm/core/utf8.hpp"

namespace fsllm {
namespace {

/// Bytes of white space at the end (or start) of a text.
size_t space_before(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    auto const c = code_point_before(text, end);
    if (!is_white_space(c.value)) break;
    end -= c.length;
  }
  return text.size() - end;
}

size_t space_after(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    auto const c = code_point_at(text, at);
    if (!is_white_space(c.value)) break;
    at += c.length;
  }
  return at;
}

bool touches_word(std::string_view before, std::string_view after) {
  return (!before.empty() && is_word_character(code_point_before(before, before.size()).value)) ||
         (!after.empty() && is_word_character(code_point_at(after, 0).value));
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens, std::vector<std::string> const& contents)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i)
    if (!contents[i].empty()) insert(contents[i], static_cast<int32_t>(i));
}

void AddedTokenMatcher::insert(std::string const& content, int32_t token) {
  auto const make_node = [this](char byte, int32_t sibling) {
    nodes_.push_back({-1, -1, sibling, byte});
    return static_cast<int32_t>(nodes_.size()) - 1;
  };
  auto& first = root_[static_cast<unsigned char>(content[0])];
  if (first < 0) first = make_node(content[0], -1);
  int32_t node = first;
  for (size_t i = 1; i < content.size(); ++i) {
    int32_t next = child_of(node, content[i]);
    if (next < 0) {
      next = make_node(content[i], nodes_[static_cast<size_t>(node)].child);
      nodes_[static_cast<size_t>(node)].child = next;
    }
    node = next;
  }
  auto& end = nodes_[static_cast<size_t>(node)].token;
  if (end < 0) end = token;
}

int32_t AddedTokenMatcher::child_of(int32_t node, char byte) const {
  int32_t child = nodes_[static_cast<size_t>(node)].child;
  while (child >= 0 && nodes_[static_cast<size_t>(child)].byte != byte)
    child = nodes_[static_cast<size_t>(child)].sibling;
  return child;
}

int32_t AddedTokenMatcher::longest_at(std::string_view text, size_t at, size_t& length) const {
  int32_t found = -1;
  int32_t node = root_[static_cast<unsigned char>(text[at])];
  for (size_t i = at + 1; node >= 0; ++i) {
    if (nodes_[static_cast<size_t>(node)].token >= 0) {
      found = nodes_[static_cast<size_t>(node)].token;
      length = i - at;
    }
    if (i >= text.size()) break;
    node = child_of(node, text[i]);
  }
  return found;
}

void AddedTokenMatcher::split(std::string_view text, size_t begin, size_t end,
                              std::vector<TextPart>& parts) const {
  auto const range = text.substr(begin, end - begin);
  size_t done = 0;  // everything before it is in `parts`
  for (size_t at = 0; !nodes_.empty() && at < range.size();) {
    size_t length = 0;
    int32_t const index =
        root_[static_cast<unsigned char>(range[at])] < 0 ? -1 : longest_at(range, at, length);
    if (index < 0) {
      ++at;
      continue;
    }
    auto const& token = tokens_[static_cast<size_t>(index)];
    auto const before = range.substr(0, at), after = range.substr(at + length);
    size_t const match_end = at + length;
    if (!token.single_word || !touches_word(before, after)) {
      size_t const from = token.lstrip ? std::max(at - space_before(before), done) : at;
      size_t const to = token.rstrip ? match_end + space_after(after) : match_end;
      if (done < from) parts.push_back({begin + done, begin + from, -1});
      parts.push_back({begin + from, begin + to, token.id});
      done = to;
    }
    at = match_end;
  }
  if (done < range.size()) parts.push_back({begin + done, end, -1});
}

}  // namespace fsllm
