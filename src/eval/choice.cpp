// SPDX-License-Identifier: Apache-2.0
#include "choice.hpp"

#include <algorithm>

#include "fsllm/core/utf8.hpp"
#include "text_rows.hpp"

namespace fsllm::detail {
namespace {

size_t largest(std::vector<double> const& values) {
  return static_cast<size_t>(std::ranges::max_element(values) - values.begin());
}

int64_t characters(std::string const& text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xc0U) != 0x80U; });
}

}  // namespace

size_t likeliest(ItemAnswer const& answer) {
  std::vector<double> values;
  for (auto const& choice : answer.choices) values.push_back(choice.loglikelihood);
  return largest(values);
}

size_t likeliest_a_character(ItemAnswer const& answer, std::vector<std::string> const& choices) {
  std::vector<double> values;
  for (size_t c = 0; c < choices.size(); ++c)
    values.push_back(answer.choices[c].loglikelihood / static_cast<double>(characters(choices[c])));
  return largest(values);
}

std::string trimmed(std::string const& text) {
  size_t begin = 0;
  while (begin < text.size()) {
    auto const [value, length] = code_point_at(text, begin);
    if (!is_white_space(value)) break;
    begin += length;
  }
  auto const rest = text.substr(begin);
  return rest.substr(0, rest.size() - trailing_space(rest));
}

}  // namespace fsllm::detail
