// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/config.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/fed/algorithm.hpp"

namespace fsllm {
namespace {

std::string load_method(Config& config) {
  auto const given = config.get("federate.method", "fedavg",
                                "Federated algorithm. " + named_with_meaning(algorithm_table()) + ".");
  auto const known = names_of(algorithm_table());
  auto const name = lower_case(given);
  FSLLM_CHECK(std::find(known.begin(), known.end(), name) != known.end(), "{} = '{}' (not a known method).{}",
              config.where("federate.method"), given, did_you_mean(name, known));
  return name;
}

SelectionConfig load_selection_config(Config& config) {
  SelectionConfig c;
  c.eval_every =
      config.get<int64_t>("eval.freq", 1, "Rounds between evaluations of all clients.", at_least(1));
  c.splits = config.get<std::vector<std::string>>("eval.split", {"test", "val"}, "Splits to evaluate.",
                                                  one_of({"val", "test"}));
  c.best_key = config.get("eval.best_res_update_round_wise_key", "val_loss",
                          "Loss that picks the best model and stops early.",
                          one_of({"val_loss", "test_loss", "val_avg_loss", "test_avg_loss"}));
  c.patience =
      config.get<int64_t>("early_stop.patience", 5,
                          "Evaluations without improvement before the run stops; 0: never.", at_least(0));
  c.delta = config.get("early_stop.delta", 0.0, "Smallest drop of the loss that counts as an improvement.",
                       at_least(0));
  c.improve_on_mean = config.get("early_stop.improve_indicator_mode", "best",
                                 "Compare with the best loss, or with the mean of the last `patience` ones.",
                                 one_of({"best", "mean"})) == "mean";
  return c;
}

}  // namespace

FedConfig load_fed_config(Config& config) {
  FedConfig c;
  c.method = load_method(config);
  c.client_num =
      config.get<int64_t>("federate.client_num", 0, "Number of clients; 0: one a ready shard.", at_least(0));
  c.sample_client_num = config.get<int64_t>("federate.sample_client_num", -1,
                                            "Clients that train in a round; -1: all.", at_least(-1));
  c.unseen_clients_rate =
      config.get("federate.unseen_clients_rate", 0.0,
                 "Share of the clients that never train and are evaluated apart (val_unseen, "
                 "test_unseen), drawn by seed; any share above 0 is at least one client.",
                 within(0, 1));
  c.sample_client_rate =
      config.get("federate.sample_client_rate", -1.0,
                 "Share of the clients that trains in a round; above 0 it goes before sample_client_num.",
                 within(-1, 1));
  c.sampler = load_sampler_config(config);
  c.rounds = config.get<int64_t>("federate.total_round_num", 50, "Communication rounds.", at_least(1));
  c.ignore_weight =
      config.get("federate.ignore_weight", false, "Weigh clients equally instead of by training rows.");
  c.keep_optimizer = config.get("federate.keep_optimizer", false,
                                "A client's optimiser goes on where its last turn ended (moments are part of "
                                "the client's state), instead of beginning anew each round.");
  c.only_client =
      config.get<int64_t>("federate.client_idx_for_local_train", 0,
                          "Train with this client's data alone (local baseline); 0: off.", at_least(0));
  int64_t const data_idx = config.get<int64_t>(
      "distribute.data_idx", -1, "Use this client's shard alone, as client_idx_for_local_train; -1: off.",
      at_least(-1));
  if (c.only_client == 0 && data_idx > 0) c.only_client = data_idx;
  c.asyn = load_asyn_config(config);
  c.algorithm = load_algorithm(config, c.method);
  asynchronous(c.asyn, config, c.method, c.algorithm);
  FSLLM_CHECK(
      !c.asyn.use || !c.keep_optimizer,
      "{} with federate.keep_optimizer (a turn that is dropped would leave its optimiser behind). Use "
      "one of the two.",
      config.where("asyn.use"));
  FSLLM_CHECK(c.algorithm.averages_from <= c.rounds,
              "{} = {} (the run has {} rounds, so that no model would go into the mean). Lower it.",
              config.where("fedswa.start_rnd"), c.algorithm.averages_from, c.rounds);
  c.finetune = load_fine_tuning(config);
  FSLLM_CHECK(
      c.algorithm.components == 1 || (!c.finetune && !c.keep_optimizer),
      "{} with federate.method = fedem (clients have no one model that would be trained further). Use "
      "one of the two.",
      config.where(c.finetune ? "finetune.before_eval" : "federate.keep_optimizer"));
  c.reduce =
      config.get("hpc.reduce", "auto",
                 "Sum of updates: exact (64-bit fixed point), native (fp32), auto (exact for adapters).",
                 one_of({"auto", "exact", "native"}));
  c.fixed_point_bits =
      config.get<int64_t>("hpc.fixed_point_bits", 48, "Unit 2^-bits of the exact sum.", within(2, 60));
  c.clients_per_pass = config.get<int64_t>(
      "hpc.clients_per_pass", 1,
      "Clients whose batches share a forward pass, each with its own adapter (LoRA in the blocks): faster "
      "where a client's batches are small, and the same adapters up to rounding. 1: one after another.",
      at_least(1));
  FSLLM_CHECK(
      c.clients_per_pass == 1 || !c.has_client_states(),
      "{} = {} (with clients that keep a state of their own between rounds, every client trains where its "
      "state is). Leave it out, or use another method.",
      config.where("hpc.clients_per_pass"), c.clients_per_pass);
  FSLLM_CHECK(c.clients_per_pass == 1 || !c.asyn.use,
              "{} = {} with asyn.use (clients begin and end at different times). Use one of the two.",
              config.where("hpc.clients_per_pass"), c.clients_per_pass);
  FSLLM_CHECK(c.algorithm.searched.empty() || (c.clients_per_pass == 1 && !c.asyn.use && !c.keep_optimizer),
              "{} with {} ({}). Use one of the two.", config.where("hpo.fedex.use"),
              c.asyn.use         ? "asyn.use"
              : c.keep_optimizer ? "federate.keep_optimizer"
                                 : "hpc.clients_per_pass",
              c.asyn.use ? "turns are planned before the server knows what became of earlier ones"
                         : "each turn has a setting of its own");
  c.server_trains = config.get("hpc.server_trains", true, "Rank 0 trains clients too.");
  if (c.asyn.use && c.asyn.real) {
    FSLLM_CHECK(c.sample_client_num <= 0 && c.sample_client_rate <= 0,
                "{} = real with a sample of clients (as many are at work as ranks train). Leave "
                "federate.sample_client_num and federate.sample_client_rate out.",
                config.where("asyn.clock"));
    c.server_trains = false;
  }
  c.checkpoint_every =
      config.get<int64_t>("checkpoint.every_rounds", 1, "Rounds between checkpoints; 0: none.", at_least(0));
  c.keep_last = config.get<int64_t>("checkpoint.keep_last", 2, "Checkpoints kept.", at_least(1));
  c.selection = load_selection_config(config);
  c.seed = static_cast<uint64_t>(
      config.get<int64_t>("seed", 0, "Seed of everything random except privacy.", at_least(0)));
  if (config.text("train.optimizer.type") == "MeZO") zeroth_order(config, c);
  return c;
}

}  // namespace fsllm
