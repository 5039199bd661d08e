// SPDX-License-Identifier: Apache-2.0
// Lines of a requests file: an Error that names the line, or one JSON answer a request.
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "fsllm/core/error.hpp"
#include "fsllm/eval/requests.hpp"

namespace {

fsllm::CausalLM& model() {
  static auto const loaded = [] {
    char const* root = std::getenv("FSLLM_SOURCE_DIR");
    return fsllm::load_model(std::filesystem::path(root == nullptr ? "." : root) / "tests/reference/llama");
  }();
  return *loaded;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  std::istringstream lines(std::string(reinterpret_cast<char const*>(data), size));
  int64_t number = 0;
  for (std::string line; std::getline(lines, line) && number < 8;) {
    auto const place = "in.jsonl:" + std::to_string(++number);
    try {
      auto const answers = fsllm::answer_requests(model(), nullptr, {{place, line}});
      if (answers.size() != 1 || !nlohmann::json::parse(answers.front()).contains("id")) std::abort();
    } catch (fsllm::Error const& error) {
      if (std::string(error.what()).find(place) == std::string::npos) std::abort();
    }
  }
  return 0;
}
