// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "fixture.hpp"
#include "fsllm/peft/peft.hpp"

namespace fsllm::test {

/// `llm.adapter` with these arguments ("adapter_method: lora, r: 4") and more lines.
inline std::string adapter_yaml(std::string const& args, std::string const& more = "") {
  return "llm:\n  adapter:\n    use: True\n    args: [ { " + args + " } ]\n" + more;
}

/// What a run with this YAML would train.
inline PeftConfig load_peft(std::string const& yaml) {
  auto config = Config::parse(yaml, "run.yaml");
  auto const peft = load_peft_config(config);
  config.finish();
  return peft;
}

inline PeftConfig peft_of(std::string const& args, std::string const& more = "") {
  return load_peft(adapter_yaml(args, more));
}

}  // namespace fsllm::test
