// SPDX-License-Identifier: Apache-2.0
// YAML of a run: any bytes either give a configuration or one fsllm::Error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fsllm/core/config.hpp"
#include "fsllm/core/error.hpp"

namespace {

void read_keys(fsllm::Config config) {
  config.get("train.optimizer.lr", 0.1, "", fsllm::more_than(0));
  config.get<int64_t>("seed", 0, "");
  config.get("use_gpu", false, "");
  config.get("outdir", "exp", "");
  config.get("data.splits", std::vector<double>{}, "");
  config.get("names", std::vector<std::string>{}, "");
  for (int64_t i = 0; i < config.list_size("args") && i < 4; ++i)
    config.get<int64_t>("args[" + std::to_string(i) + "].r", 8, "");
  auto const again = fsllm::Config::parse(config.dump(), "dump");
  config.finish();
  config.overridden_by(again).children("train");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  std::string_view const text(reinterpret_cast<char const*>(data), size);
  try {
    read_keys(fsllm::Config::parse(text, "run.yaml"));
  } catch (fsllm::Error const&) {
  }
  try {
    auto config = fsllm::Config::parse("seed: 1\nargs: [{r: 1}]\n", "run.yaml");
    config.set("args", text);
    read_keys(config);
  } catch (fsllm::Error const&) {
  }
  return 0;
}
