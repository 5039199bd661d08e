// SPDX-License-Identifier: Apache-2.0
#include "text_scores.hpp"

#include <algorithm>
#include <cctype>
#include <map>
#include <sstream>

#include "fsllm/core/names.hpp"

namespace fsllm::detail {
namespace {

std::vector<std::string> words_of(std::string const& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

double harmonic(double shared, size_t predicted, size_t expected) {
  if (shared == 0) return 0;
  auto const precision = shared / static_cast<double>(predicted);
  auto const recall = shared / static_cast<double>(expected);
  return 2 * precision * recall / (precision + recall);
}

std::vector<std::string> rouge_words(std::string const& text) {
  auto lower = lower_case(text);
  for (char& c : lower)
    if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9')) c = ' ';
  return words_of(lower);
}

size_t longest_common(std::vector<std::string> const& a, std::vector<std::string> const& b) {
  std::vector<size_t> before(b.size() + 1), row(b.size() + 1);
  for (auto const& word : a) {
    for (size_t j = 0; j < b.size(); ++j)
      row[j + 1] = word == b[j] ? before[j] + 1 : std::max(row[j], before[j + 1]);
    std::swap(before, row);
  }
  return before.back();
}

}  // namespace

std::string squad_normalised(std::string const& text) {
  std::string kept;
  for (char const c : lower_case(text))
    if (std::ispunct(static_cast<unsigned char>(c)) == 0) kept += c;
  std::string normalised;
  for (auto const& word : words_of(kept))
    if (word != "a" && word != "an" && word != "the") normalised += (normalised.empty() ? "" : " ") + word;
  return normalised;
}

double squad_f1(std::string const& prediction, std::string const& target) {
  auto const predicted = words_of(squad_normalised(prediction));
  auto const expected = words_of(squad_normalised(target));
  if (predicted.empty() || expected.empty()) return predicted == expected ? 1 : 0;
  std::map<std::string, int64_t> open;
  for (auto const& word : expected) ++open[word];
  double shared = 0;
  for (auto const& word : predicted)
    if (open[word]-- > 0) ++shared;
  return harmonic(shared, predicted.size(), expected.size());
}

double rouge_l(std::string const& prediction, std::string const& target) {
  auto const predicted = rouge_words(prediction), expected = rouge_words(target);
  return harmonic(static_cast<double>(longest_common(predicted, expected)), predicted.size(),
                  expected.size());
}

}  // namespace fsllm::detail
