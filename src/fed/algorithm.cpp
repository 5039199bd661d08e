// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/algorithm.hpp"

#include "fsllm/core/error.hpp"
#include "fsllm/fed/mixture.hpp"

namespace fsllm {

std::vector<ClientTask> tasks(RoundPlan const& plan) {
  std::vector<ClientTask> all;
  for (auto const& cohort : plan.cohorts) all.insert(all.end(), cohort.begin(), cohort.end());
  return all;
}

TensorMap own_parameters(FedAlgorithm const& algorithm, ServerState const& server, TensorMap const& state) {
  if (algorithm.components > 1) return component_of(server, main_component(state));
  return algorithm.keeps_model ? state : algorithm.start(server, state);
}

TensorMap trained_part(FedAlgorithm const& algorithm, TensorMap map, int64_t round) {
  if (algorithm.rests)
    std::erase_if(map, [&](auto const& each) { return algorithm.rests(each.first, round); });
  return map;
}

Message message_of(FedAlgorithm const& algorithm, ClientTurn& turn) {
  auto message = algorithm.finish(turn);
  message.mean = trained_part(algorithm, std::move(message.mean), turn.plan.round);
  for (auto const& transform : algorithm.transforms) transform(message, turn);
  return message;
}

std::vector<Row<AlgorithmPart>> const& algorithm_table() {
  static std::vector<Row<AlgorithmPart>> const table{
      {"local", local_training, "every client trains alone"},
      {"global", global_training, "one client holds the rows of all"},
      {"fedavg", fedavg, "global += mean update (McMahan et al. 2017)"},
      {"fedopt", fedopt, "a server optimiser takes the mean update as its gradient (Reddi et al. 2021)"},
      {"diloco", [](Config&, std::string const&, FedAlgorithm&) {},
       "fedopt by Nesterov's momentum, lr 0.7 (Douillard et al. 2023)"},
      {"ditto", ditto, "a model of each client's own beside the global one (Li et al. 2021)"},
      {"fedrep", fedrep,
       "clients train parameters of their own first, then those that they share (Collins et al. 2021)"},
      {"pfedme", pfedme,
       "Moreau envelopes: clients' models move beside w_k, which moves the global one (T. Dinh et al. 2020)"},
      {"fedem", fedem, "a mixture of models that each client weighs for itself (Marfoq et al. 2021)"},
      {"fedprox", fedprox, "clients are held near the global model (Li et al. 2020)"},
      {"scaffold", scaffold, "control variates correct the drift of clients (Karimireddy et al. 2020)"},
  };
  return table;
}

std::vector<Row<AlgorithmPart>> const& robust_rule_table() {
  static std::vector<Row<AlgorithmPart>> const table{
      {"fedavg", [](Config&, std::string const&, FedAlgorithm&) {}, "their weighted mean"},
      {"bulyan", bulyan,
       "of those that krum chooses one by one, the mean of each coordinate's values nearest to its median "
       "(El "
       "Mhamdi et al. 2018)"},
      {"krum", krum, "the mean of those that lie closest to the others (Blanchard et al. 2017)"},
      {"median", coordinate_median, "the median of each coordinate (Yin et al. 2018)"},
      {"trimmedmean", trimmed_mean,
       "the mean of each coordinate without its largest and smallest values (Yin et al. 2018)"},
      {"normbounding", norm_bounding, "their weighted mean, each shortened to a bound (Sun et al. 2019)"},
  };
  return table;
}

FedAlgorithm load_algorithm(Config& config, std::string const& method) {
  FedAlgorithm algorithm;
  for (auto const& row : algorithm_table()) row.build(config, method, algorithm);
  lora_aggregation(config, method, algorithm);
  local_parameters(config, method, algorithm);
  auto const rule =
      config.get("aggregator.robust_rule", "fedavg",
                 "What becomes of the clients' updates. " + named_with_meaning(robust_rule_table()) + ".",
                 one_of(names_of(robust_rule_table())));
  bool const sends = algorithm.kind != Kind::none, about_factors = algorithm.makes_factors;
  for (auto const& row : robust_rule_table()) row.build(config, rule, algorithm);
  FSLLM_CHECK(rule == "fedavg" || sends,
              "{} with federate.method = {} (nothing is sent). Use one of the two.",
              config.where("aggregator.robust_rule"), method);
  FSLLM_CHECK(
      rule == "fedavg" || !about_factors,
      "{} with federate.lora_aggregation = {} (which makes the next factors of the clients', not of their "
      "updates). Use one of the two.",
      config.where("aggregator.robust_rule"), algorithm.lora_rule);
  FSLLM_CHECK(rule == "fedavg" || algorithm.components == 1,
              "{} with federate.method = {} (which sends several models). Use one of the two.",
              config.where("aggregator.robust_rule"), method);
  FSLLM_CHECK(!algorithm.combine || !algorithm.summed,
              "{} with federate.method = {} (it needs sums of all messages). Use one of the two.",
              config.where("aggregator.robust_rule"), method);
  fedswa(config, method, algorithm);
  fedex_settings(config, method, algorithm);
  return algorithm;
}

}  // namespace fsllm
