// SPDX-License-Identifier: Apache-2.0
// One thread encodes every text once, from a cold start of the tokenizer's memory (see tokenizer_bench.py).
//   tokenizer_bench MODEL_DIR TEXTS.jsonl   → {"tokens": n, "mb_per_second": x}; a row is {"text": S}
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/tokenizer.hpp"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: tokenizer_bench MODEL_DIR TEXTS.jsonl\n";
    return 2;
  }
  auto const tokenizer = fsllm::load_tokenizer(argv[1]);
  std::vector<std::string> texts;
  double bytes = 0;
  fsllm::for_each_json_record(argv[2], [&](nlohmann::json const& row, fsllm::RecordPlace const&) {
    texts.push_back(row.at("text").get<std::string>());
    bytes += static_cast<double>(texts.back().size());
  });
  size_t tokens = 0;
  auto const start = std::chrono::steady_clock::now();
  for (auto const& text : texts) tokens += tokenizer->encode(text, false).size();
  double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::cout << nlohmann::json{{"tokens", tokens}, {"mb_per_second", bytes / seconds / 1e6}} << "\n";
  return 0;
}
