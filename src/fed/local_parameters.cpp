// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

bool FedAlgorithm::is_local(std::string const& parameter) const {
  return has_any(parameter, local_param);
}

void check_words(std::string const& key, std::vector<std::string> const& words, TensorMap const& parameters) {
  for (auto const& word : words)
    FSLLM_CHECK(std::any_of(parameters.begin(), parameters.end(),
                            [&](auto const& each) { return has_any(each.first, {word}); }),
                "{}: no parameter that is trained has '{}' in its name (one is {}). Correct the word.", key,
                word, parameters.begin()->first);
}

void check_parameters(FedAlgorithm const& algorithm, TensorMap const& parameters) {
  FSLLM_CHECK(
      !algorithm.rests || std::any_of(parameters.begin(), parameters.end(),
                                      [&](auto const& each) { return algorithm.rests(each.first, 0); }),
      "federate.lora_aggregation: no parameter that is trained is a factor of LoRA (one is {}). Set "
      "adapter_method: lora, or leave the key out.",
      parameters.begin()->first);
  check_words("personalization.local_param", algorithm.local_param, parameters);
  bool const sends = std::any_of(parameters.begin(), parameters.end(), [&](auto const& each) {
    return !algorithm.is_local(each.first) && !(algorithm.rests && algorithm.rests(each.first, 0));
  });
  FSLLM_CHECK(
      sends || algorithm.local_param.empty(),
      "personalization.local_param: every parameter that is trained is local (nothing is left to send). "
      "Leave a word out, or use federate.method: local.");
}

/// FS-LLM's personalization.local_param: parameters stay on their client (Arivazhagan et al. 2019, "Federated
/// learning with personalization layers"; with the word lora_B it is FedSA-LoRA, Guo et al. 2025).
void local_parameters(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  auto const words =
      config.get<std::vector<std::string>>("personalization.local_param", {},
                                           "Words: parameters whose name contains one are never sent; each "
                                           "client keeps its own, and is judged with "
                                           "them. ['lora_B'] is FedSA-LoRA.");
  bool const needed = std::any_of(algorithm.parts.begin(), algorithm.parts.end(),
                                  [](auto const& part) { return part.trained == Trained::local; });
  FSLLM_CHECK(
      !words.empty() || !needed,
      "{} = {} (personalization.local_param names no parameters that clients keep for themselves). Set "
      "it, for example to [lora_B].",
      config.where("federate.method"), method);
  if (words.empty()) return;
  FSLLM_CHECK(!algorithm.client_state,
              "{} with federate.method = {} (whose clients keep a state of their own). Use one of the two.",
              config.where("personalization.local_param"), method);
  FSLLM_CHECK(!algorithm.makes_factors,
              "{} with federate.lora_aggregation = {} (which needs both factors of every client). Use one of "
              "the two.",
              config.where("personalization.local_param"), algorithm.lora_rule);
  FSLLM_CHECK(
      !algorithm.trains_cores,
      "{} with federate.lora_aggregation = {} (whose cores the server begins with). Use one of the two.",
      config.where("personalization.local_param"), algorithm.lora_rule);
  algorithm.local_param = words;
  algorithm.personal = true;
  algorithm.client_state = [words](TensorMap const& parameters) {
    TensorMap own;
    for (auto const& [name, tensor] : parameters)
      if (has_any(name, words)) own.emplace(name, tensor);
    return own;
  };
  algorithm.start = [](ServerState const& server, TensorMap const& state) {
    auto all = server.weights;
    all.insert(state.begin(), state.end());
    return all;
  };
  algorithm.finish = [finish = algorithm.finish](ClientTurn& turn) {
    auto message = finish(turn);
    for (auto& [name, own] : turn.state) {
      own = turn.parameters.at(name).detach().clone();
      message.mean.erase(name);
    }
    return message;
  };
}

}  // namespace fsllm
