// SPDX-License-Identifier: Apache-2.0
// Chat templates: an Error or a text, in bounded time, never anything else.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/jinja/jinja.hpp"

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  std::string buffer;
  auto const source = fsllm::valid_utf8({reinterpret_cast<char const*>(data), size}, buffer);
  static nlohmann::ordered_json const variables = nlohmann::ordered_json::parse(R"({
    "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": " é? "},
                 {"role": "assistant", "content": "<think>\nx</think>a"}],
    "tools": null, "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>"})");
  try {
    auto const out = fsllm::JinjaTemplate(source, "fuzz").render(variables);
    for (auto const& [begin, end] : out.generated)
      if (begin > end || end > out.text.size()) std::abort();
  } catch (fsllm::Error const&) {
  }
  return 0;
}
