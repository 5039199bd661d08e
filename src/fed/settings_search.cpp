// SPDX-License-Identifier: Apache-2.0
// FedEx: which settings its clients train with is learnt by the run itself.
#include "fsllm/fed/settings_search.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm {
namespace {

constexpr char const *kProbabilities = "fedex.probabilities", *kLosses = "fedex.losses",
                     *kShares = "fedex.shares";

struct FedExConfig {
  double eta0 = -1;
  std::string schedule;
  double cutoff = 0, discount = 0;
};

int64_t values_of_all(std::vector<SearchedKey> const& keys) {
  int64_t all = 0;
  for (auto const& key : keys) all += std::ssize(key.values);
  return all;
}

/// Σ over a round's clients of p_k (and of p_k times what the client's validation rows say of its turn) for
/// each value that they trained with.
TensorMap sums_of(std::vector<SearchedKey> const& keys) {
  auto const none = at::zeros({values_of_all(keys)}, at::kDouble);
  return {{kLosses, none}, {kShares, none.clone()}};
}

void add_turn(std::vector<SearchedKey> const& keys, ClientTurn const& turn, Message& message) {
  auto sums = sums_of(keys);
  auto const chosen = values_of(keys, turn.task.choice);
  int64_t first = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    auto const at = first + static_cast<int64_t>(chosen[i]);
    sums.at(kLosses)[at].fill_(turn.task.validation_share * turn.validation);
    sums.at(kShares)[at].fill_(turn.task.validation_share);
    first += std::ssize(keys[i].values);
  }
  message.sum.merge(sums);
}

/// Algorithm 2 of Khodak et al. 2021, the server's side: exponentiated gradient on the distribution of each
/// key, θ_j ∝ θ_j exp(-η ∇_j) with ∇_j = Σ_k p_k (L_k - λ) 1[k trained with j] / θ_j, where λ is a discounted
/// mean of the losses of earlier rounds.
class LearnsSettings : public SurroundingStep {
 public:
  LearnsSettings(std::unique_ptr<ServerStep> moves, std::vector<SearchedKey> keys, FedExConfig config)
      : SurroundingStep(std::move(moves)),
        keys_(std::move(keys)),
        config_(std::move(config)),
        squares_(at::zeros({std::ssize(keys_)}, at::kDouble)),
        trace_(at::zeros({2}, at::kDouble)) {}

  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    auto rest = arrived;
    auto const losses = rest.sum.extract(kLosses).mapped().to(at::kDouble),
               shares = rest.sum.extract(kShares).mapped().to(at::kDouble);
    auto const all = server.extra.extract(kProbabilities).mapped().clone();
    inner->step(server, rest, plan);  // which sees what is its own
    double const baseline = baseline_of_earlier();
    int64_t first = 0, number = 0;
    for (auto const& key : keys_) {
      auto const count = std::ssize(key.values);
      auto part = all.narrow(0, first, count);
      if (entropy(part) >= config_.cutoff && count > 1) {
        auto const apart = losses.narrow(0, first, count).sub(shares.narrow(0, first, count), baseline);
        auto const gradient = apart.div(part);
        auto const moved = part.log().sub(gradient, step_size(gradient, count, number));
        part.copy_(at::log_softmax(moved, 0).exp().clamp_min(kLeast));
        part.div_(part.sum());
      }
      note(server, key, part);
      first += count;
      ++number;
    }
    server.extra.emplace(kProbabilities, all);
    auto const clients = shares.narrow(0, 0, std::ssize(keys_.front().values)).sum().item<double>();
    if (clients == 0) return;
    auto const mean = losses.narrow(0, 0, std::ssize(keys_.front().values)).sum().item<double>() / clients;
    trace_[0].mul_(config_.discount).add_(mean);
    trace_[1].mul_(config_.discount).add_(1);
  }
  TensorMap state() const override {
    auto state = inner->state();
    state.emplace("fedex.squares", squares_);
    state.emplace("fedex.trace", trace_);
    return state;
  }
  void load_state(TensorMap const& state) override {
    auto rest = state;
    squares_.copy_(rest.extract("fedex.squares").mapped());
    trace_.copy_(rest.extract("fedex.trace").mapped());
    inner->load_state(rest);
  }

 private:
  /// A value that is never drawn could never come back.
  static constexpr double kLeast = 1e-12;

  static double entropy(at::Tensor const& part) { return -part.mul(part.log()).sum().item<double>(); }

  double baseline_of_earlier() const {
    auto const rounds = trace_[1].item<double>();
    return rounds > 0 ? trace_[0].item<double>() / rounds : 0;
  }

  /// The paper's choices of η_t: constant √(2 log k); aggressive and auto divide it by ‖∇_t‖∞, and by
  /// √(Σ_{s ≤ t} ‖∇_s‖²∞).
  double step_size(at::Tensor const& gradient, int64_t count, int64_t number) {
    double const eta = config_.eta0 > 0 ? config_.eta0 : std::sqrt(2 * std::log(static_cast<double>(count)));
    double const largest = gradient.abs().max().item<double>();
    if (config_.schedule == "constant" || largest == 0) return eta;
    if (config_.schedule == "aggressive") return eta / largest;
    squares_[number].add_(largest * largest);
    return eta / std::sqrt(squares_[number].item<double>());
  }

  static void note(ServerState& server, SearchedKey const& key, at::Tensor const& part) {
    for (size_t i = 0; i < key.values.size(); ++i)
      server.facts[fmt::format("fedex.{}={}", key.key, key.values[i])] =
          part[static_cast<int64_t>(i)].item<double>();
  }

  std::vector<SearchedKey> keys_;
  FedExConfig config_;
  at::Tensor squares_;  ///< [keys]: Σ ‖∇‖²∞
  at::Tensor trace_;    ///< discounted sums of the rounds' losses and of 1
};

std::vector<SearchedKey> load_space(Config& config) {
  std::vector<SearchedKey> keys;
  for (auto& [key, values] : config.lists("hpo.fedex.ss",
                                          "Keys of training, each with the values that clients try, as "
                                          "{train.optimizer.lr: [0.1, 0.01]}, or "
                                          "a YAML file of them."))
    keys.push_back({key, values});
  return keys;
}

}  // namespace

int64_t settings_of(std::vector<SearchedKey> const& keys) {
  int64_t all = 1;
  for (auto const& key : keys) all *= std::ssize(key.values);
  return all;
}

std::vector<size_t> values_of(std::vector<SearchedKey> const& keys, int64_t choice) {
  std::vector<size_t> values;
  for (auto const& key : keys) {
    values.push_back(static_cast<size_t>(choice % std::ssize(key.values)));
    choice /= std::ssize(key.values);
  }
  return values;
}

int64_t draw_setting(std::vector<SearchedKey> const& keys, ServerState const& server, uint64_t seed,
                     int64_t client, int64_t round) {
  Philox random(seed, Purpose::settings_search, static_cast<uint64_t>(client), static_cast<uint64_t>(round));
  auto const all = server.extra.at(kProbabilities).to(at::kDouble).contiguous();
  auto const* at = all.const_data_ptr<double>();
  int64_t choice = 0, unit = 1;
  for (auto const& key : keys) {
    auto const count = std::ssize(key.values);
    double left = random.uniform();
    int64_t value = 0;
    while (value + 1 < count && left >= at[value]) left -= at[value++];
    choice += unit * value;
    unit *= count;
    at += count;
  }
  return choice;
}

nlohmann::ordered_json likeliest_settings(std::vector<SearchedKey> const& keys, ServerState const& server) {
  auto const all = server.extra.at(kProbabilities);
  nlohmann::ordered_json settings;
  int64_t first = 0;
  for (auto const& key : keys) {
    auto const part = all.narrow(0, first, std::ssize(key.values));
    auto const best = part.argmax().item<int64_t>();
    settings[key.key] = {{"value", key.values[static_cast<size_t>(best)]},
                         {"probability", part[best].item<double>()}};
    first += std::ssize(key.values);
  }
  return settings;
}

/// FedEx (Khodak et al. 2021, "Federated hyperparameter tuning: challenges, baselines, and connections to
/// weight-sharing", algorithm 2), around any method that sums.
void fedex_settings(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  bool const use = config.get(
      "hpo.fedex.use", false,
      "Learn the settings of the clients' training while they train (FedEx): each turn draws values of the "
      "keys of hpo.fedex.ss, and those whose model does well on the client's validation rows become "
      "likelier.");
  auto const keys = load_space(config);
  FedExConfig c;
  c.eta0 = config.get("hpo.fedex.eta0", -1.0,
                      "Step of the distribution; -1: sqrt(2 log n) for a key of n values.");
  c.schedule = config.get(
      "hpo.fedex.sched", "auto",
      "By what the step is divided: constant: nothing; aggressive: the largest entry of the round's "
      "gradient; auto: the root of the sum of its squares so far.",
      one_of({"auto", "aggressive", "constant"}));
  c.cutoff =
      config.get("hpo.fedex.cutoff", 0.0,
                 "A key's distribution stays as it is once its entropy (nats) is below this.", at_least(0));
  c.discount =
      config.get("hpo.fedex.gamma", 0.0,
                 "Losses are compared with the mean of earlier rounds', each counting gamma times as "
                 "much as the next; 0: with the last round's.",
                 within(0, 1));
  bool const difference =
      config.get("hpo.fedex.diff", false,
                 "Judge a turn by how much it changed the loss, instead of by the loss after it.");
  if (!use) return;
  auto const refuse = [&](bool refused, std::string const& with, char const* why) {
    FSLLM_CHECK(!refused, "{} with {} ({}). Use one of the two.", config.where("hpo.fedex.use"), with, why);
  };
  FSLLM_CHECK(!keys.empty(),
              "{} (hpo.fedex.ss names no keys). Write hpo.fedex.ss: {{train.optimizer.lr: [0.1, 0.01]}}.",
              config.where("hpo.fedex.use"));
  refuse(algorithm.kind == Kind::none, "federate.method = " + method, "there is no server that would learn");
  refuse(algorithm.components > 1, "federate.method = " + method, "whose clients train several models");
  refuse(bool(algorithm.second) || algorithm.makes_factors,
         "federate.lora_aggregation = " + algorithm.lora_rule, "which makes the next factors in its own way");
  refuse(algorithm.kind == Kind::gather || bool(algorithm.combine), "aggregator.robust_rule",
         "which looks at messages one by one, while this needs sums");
  refuse(config.text("train.optimizer.type") == "MeZO", "train.optimizer.type = MeZO",
         "whose steps the server replays with one setting");
  algorithm.searched = keys;
  algorithm.judges_turns =
      difference ? FedAlgorithm::JudgesTurns::by_change : FedAlgorithm::JudgesTurns::after;
  algorithm.summed = [keys, inner = algorithm.summed](TensorMap const& weights) {
    auto sums = inner ? inner(weights) : TensorMap{};
    sums.merge(sums_of(keys));
    return sums;
  };
  algorithm.server_extra = [keys, inner = algorithm.server_extra](TensorMap const& weights) {
    auto extra = inner ? inner(weights) : TensorMap{};
    auto const all = at::ones({values_of_all(keys)}, at::kDouble);
    int64_t first = 0;
    for (auto const& key : keys) {
      all.narrow(0, first, std::ssize(key.values)).div_(static_cast<double>(key.values.size()));
      first += std::ssize(key.values);
    }
    extra.emplace(kProbabilities, all);
    return extra;
  };
  algorithm.finish = [keys, inner = algorithm.finish](ClientTurn& turn) {
    auto message = inner(turn);
    add_turn(keys, turn, message);
    return message;
  };
  algorithm.server_step = [keys, c, inner = algorithm.server_step](TensorMap const& weights) {
    return std::make_unique<LearnsSettings>(inner(weights), keys, c);
  };
}

}  // namespace fsllm
