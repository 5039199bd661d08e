// SPDX-License-Identifier: Apache-2.0
// MAM, "mix and match" (He et al. 2022, section 4.6): a prefix and networks beside the MLPs, learned
// together.
#include <nlohmann/json.hpp>

#include "composite.hpp"
#include "methods.hpp"
#include "prompt_learning.hpp"

namespace fsllm::detail {
namespace {

struct MamOptions {
  std::any prefix, bottleneck;
};

PeftConfig with_options(PeftConfig config, std::any const& options) {
  config.options = options;
  return config;
}

}  // namespace

std::any read_mam(Arguments& arguments, PeftConfig& shared) {
  arguments.assume({{"num_virtual_tokens", 30},
                    {"prefix_projection", true},
                    {"encoder_hidden_size", 800},
                    {"architecture", "parallel"}});
  MamOptions mam;
  mam.prefix = read_prefix(arguments, shared);
  mam.bottleneck = read_bottleneck(arguments, shared);
  return mam;
}

std::unique_ptr<Peft> make_mam(PeftConfig const& config, CausalLM& model) {
  auto const mam = options_of<MamOptions>(config);
  std::vector<std::unique_ptr<Peft>> parts;
  parts.push_back(make_prefix(with_options(config, mam.prefix), model));
  parts.push_back(make_bottleneck(with_options(config, mam.bottleneck), model));
  return std::make_unique<Composite>("MAM", std::move(parts));
}

}  // namespace fsllm::detail
