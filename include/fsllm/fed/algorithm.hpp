// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/core/config.hpp"
#include "fsllm/core/table.hpp"
#include "fsllm/core/tensor_map.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/train/local_training.hpp"

namespace fsllm {

/// One client's work in a round: who trains, from which version of the global state (rounds that it has
/// seen), and with which weight p_k it counts.
struct ClientTask {
  int64_t client = 0, version = 0;
  double weight = 0;
  int64_t steps = 0;            ///< of its training
  int64_t choice = 0;           ///< which setting of FedAlgorithm::searched it trains with
  double validation_share = 0;  ///< of the validation rows of the round's clients, where those are judged
};

/// What an asynchronous round tells beside its tasks.
struct Arrivals {
  std::optional<double> virtual_seconds;  ///< since the run began, when the server aggregates
  double staleness_mean = 0;
  int64_t staleness_max = 0;  ///< versions that the global state has moved since a turn began
  int64_t dropped = 0;        ///< turns that came too late to count
};

/// What happens in a round, the same value on every rank: it follows from ids, configuration and round, never
/// from ranks.
struct RoundPlan {
  int64_t round = 0;                             ///< from 0
  int64_t all_clients = 0;                       ///< that may train in this run
  std::vector<std::vector<ClientTask>> cohorts;  ///< clients of one cohort share a pass
  std::optional<Arrivals> arrivals;              ///< of asynchronous runs
};
std::vector<ClientTask> tasks(RoundPlan const& plan);

/// The global state, the same on every rank between two rounds.
struct ServerState {
  TensorMap weights;  ///< what clients start from, but for FedAlgorithm::local_param
  TensorMap extra;    ///< what an algorithm sends them beside
  /// What the last step adds to the frozen matrices themselves, module by module: "MODULE.left" [out, n]
  /// times "MODULE.right" [n, in]. Gone when every node has added it.
  TensorMap base_change;
  std::map<std::string, double> facts;  ///< of the last step, for metrics.jsonl; rank 0 only
};

/// What a client sends: values that are averaged with the clients' weights, and values that are added up as
/// they are.
struct Message {
  TensorMap mean, sum;
  TensorMap kept;  ///< stays on the client's rank, for FedAlgorithm::second
};

/// How messages meet: not at all; as sums to which a client is added when it has ended (constant memory); or
/// all of them, tensor by tensor, each tensor on one rank.
enum class Kind { none, sum, gather };

/// Kind gather: Message::mean of a round's clients, in the order of their ids, as far as this rank owns its
/// tensors.
struct GatheredMessages {
  std::vector<ClientTask> tasks;
  std::vector<TensorMap> messages;
  std::vector<int64_t> numbers;  ///< of this rank's tensors among all, in the order of names
};

/// A client's turn, as its algorithm sees it.
struct ClientTurn {
  RoundPlan const& plan;
  ClientTask task;
  ServerState const& server;
  TensorMap const& start;                   ///< the parameters before the first step
  TensorMap const& parameters;              ///< live
  TensorMap& state;                         ///< the client's own, kept for its next turn
  TensorMap update;                         ///< parameters - start, after the last step
  TrainResult result;                       ///< after the last step
  double lr = 0;                            ///< train.optimizer.lr, as this client has it
  std::vector<ZerothOrderMove> moves = {};  ///< LocalTraining::moves, after the last step
  double validation = 0;                    ///< FedAlgorithm::judges_turns
};

/// A key of the clients' training, with the values (YAML) that a run tries.
struct SearchedKey {
  std::string key;
  std::vector<std::string> values;
};

/// Changes what a client sends, as clipping, noise and compression do.
using UpdateTransform = std::function<void(Message& message, ClientTurn const& turn)>;

/// A mean of the global weights of several rounds.
struct WeightAverage {
  int64_t models = 0;  ///< that went into it
  TensorMap weights;
};

/// The server's side of a round.
struct ServerStep {
  virtual ~ServerStep() = default;
  /// Moves `server` by what arrived (Message::mean is Σ p_k m_k / Σ p_k); rank 0 only.
  virtual void step(ServerState& server, Message const& arrived, RoundPlan const& plan) = 0;
  /// What outlives a round beside ServerState, for checkpoints; rank 0 only.
  virtual TensorMap state() const { return {}; }
  virtual void load_state(TensorMap const& state) {}
  /// By which a run is judged too when it ends; rank 0 only.
  virtual WeightAverage average() const { return {}; }
};

/// A server's step around another, whose state it passes on.
struct SurroundingStep : ServerStep {
  explicit SurroundingStep(std::unique_ptr<ServerStep> surrounded) : inner(std::move(surrounded)) {}
  TensorMap state() const override { return inner->state(); }
  void load_state(TensorMap const& state) override { inner->load_state(state); }
  WeightAverage average() const override { return inner->average(); }
  std::unique_ptr<ServerStep> inner;
};

/// What each turn does to its gradients.
using GradientHooks = std::vector<std::function<GradientHook(ClientTurn const& turn)>>;

/// Which parameters a training moves: all, or those that are FedAlgorithm::local_param, or the others.
enum class Trained { all, local, shared };

/// One of the trainings of a turn: each goes on where the one before it ended, takes the round's batches from
/// the first, and has an optimiser of its own.
struct TurnPart {
  Trained trained = Trained::all;
  std::function<void(TrainConfig& config)> adjust;  ///< of the client's train.*; empty: as it is
};

/// A second training in each turn, of a model that its client keeps as its state.
struct PersonalTraining {
  GradientHooks gradients;
  TurnPart part;
};

/// A client whose LoRA is not quite the run's: its rank r_k, and s_k / s.
struct ClientRank {
  int64_t rank = 0;
  double scale = 1;
};

/// The LoRA of a run, for rules about its factors.
struct LoraFactors {
  std::vector<LowRankTarget> targets;
  std::map<int64_t, ClientRank> clients;  ///< those that differ
  uint64_t seed = 0;
  /// Fresh values of all parameters, as a run that begins has them.
  std::function<TensorMap(uint64_t seed)> fresh;
  /// The frozen matrix of a module [out, in].
  std::function<at::Tensor(std::string const& module)> matrix;
  /// What the first step of full fine-tuning would add to a matrix, given its gradient.
  std::function<at::Tensor(at::Tensor const& gradient)> first_update = {};
};

/// A second reduction in a round of kind sum, of what the first one makes possible.
struct SecondSum {
  /// From the first one's means, on rank 0: what every rank gets.
  std::function<TensorMap(TensorMap const& means)> basis;
  /// What a client adds, with its weight: given Message::kept.
  std::function<TensorMap(TensorMap const& basis, TensorMap const& kept)> project;
  std::function<TensorMap(TensorMap const& basis, TensorMap const& weights)> layout;
};

/// A federated algorithm as a value. As it begins it is FedAvg (McMahan et al. 2017, algorithm 1); each
/// method of the table replaces what is its own.
struct FedAlgorithm {
  using Layout = std::function<TensorMap(TensorMap const& weights)>;
  FedAlgorithm();

  Kind kind = Kind::sum;
  bool samples = true;    ///< a round trains a sample of the clients; else all of them
  bool merges = false;    ///< one client holds the rows of all
  bool personal = false;  ///< clients are judged by parameters of their own, which are the result of the run
  /// A client's state is a model of its own beside the global one, and is what it is judged by.
  bool keeps_model = false;
  /// Settings of training that turns draw from (settings_search.hpp); empty: there is one.
  std::vector<SearchedKey> searched;
  /// What the client's validation rows say of the parameters after its turn: nothing, their loss, or how much
  /// the turn has changed it.
  enum class JudgesTurns { not_at_all, after, by_change } judges_turns = JudgesTurns::not_at_all;
  /// Models in the mixture that clients weigh for themselves (mixture.hpp).
  int64_t components = 1;
  /// The trainings of a turn, in this order, from `start`.
  std::vector<TurnPart> parts{{}};
  /// Then the state is trained too, from where the client's last turn left it.
  std::optional<PersonalTraining> personal_training;
  /// Words in the names of parameters that are never sent: each client keeps its own.
  std::vector<std::string> local_param;
  bool is_local(std::string const& parameter) const;
  int64_t averages_from = 0;  ///< the first round after which ServerStep::average() has a model; 0: none
  /// Parameters that a round (from 0) leaves as they are: neither trained nor sent. Empty: none.
  std::function<bool(std::string const& parameter, int64_t round)> rests;
  /// Given the layout of the weights: those of Message::mean (as it begins the same) and Message::sum, a
  /// client's own state before its first turn, ServerState::extra before the first round. Where one is empty
  /// there is none.
  Layout averaged, summed, client_state, server_extra;
  /// More of Message::sum, where its layout follows from who trains.
  std::function<TensorMap(RoundPlan const& plan)> planned_sums;
  /// The parameters that a client begins with.
  std::function<TensorMap(ServerState const& server, TensorMap const& state)> start;
  GradientHooks gradients;
  /// What a client sends after its last step.
  std::function<Message(ClientTurn& turn)> finish;
  /// What becomes of it before it leaves the client, in this order.
  std::vector<UpdateTransform> transforms;
  /// Kind gather only. Collective: what the messages become, for the tensors that this rank owns.
  std::function<Message(GatheredMessages const& all, Communicator const& comm)> combine;
  /// Kind gather only: tensors of one unit meet on one rank; empty: each is its own.
  std::function<std::string(std::string const& parameter)> unit;
  std::optional<SecondSum> second;
  std::string lora_rule;  ///< row of the table of rules for LoRA's factors
  /// Makes the algorithm for the adapter of the run, before its first round.
  std::function<void(FedAlgorithm& algorithm, LoraFactors const& factors)> bind;
  bool whole_updates = false;  ///< looks at whole updates (their norms, distances), not element by element
  bool makes_factors = false;  ///< the next factors of LoRA, of the clients', not of their updates
  bool unequal_ranks = false;  ///< clients may have LoRA of other ranks and scales
  bool changes_base = false;   ///< ServerState::base_change
  bool trains_cores = false;   ///< Peft::train_cores()
  /// Start values that a client of another rank can use; empty: all can use the same.
  std::function<TensorMap(TensorMap start, int64_t client)> fit;
  /// What happens to the global state before the first round, on rank 0; may be empty.
  std::function<void(ServerState& server)> begin;
  /// Before that, on rank 0: chooses Peft::fixed_factors() for the run and where the cores begin, given the
  /// mean gradient of each frozen matrix (module → [out, in]) at the first step of a first round.
  std::function<void(ServerState& server, TensorMap& fixed, TensorMap const& gradients)> fix_factors;
  std::function<std::unique_ptr<ServerStep>(TensorMap const& weights)> server_step;
};

/// The parameters that a client is judged by.
TensorMap own_parameters(FedAlgorithm const& algorithm, ServerState const& server, TensorMap const& state);
/// The part of a map by parameters that a round trains.
TensorMap trained_part(FedAlgorithm const& algorithm, TensorMap map, int64_t round);
/// What a client sends at the end of its turn.
Message message_of(FedAlgorithm const& algorithm, ClientTurn& turn);

/// Declares a method's keys, and makes `algorithm` that method where `name` (the value of federate.method or
/// of aggregator.robust_rule) or a key says so.
using AlgorithmPart = void (*)(Config& config, std::string const& name, FedAlgorithm& algorithm);

void local_parameters(Config& config, std::string const& method, FedAlgorithm& algorithm);
void local_training(Config& config, std::string const& method, FedAlgorithm& algorithm);
void global_training(Config& config, std::string const& method, FedAlgorithm& algorithm);
void ditto(Config& config, std::string const& method, FedAlgorithm& algorithm);
void pfedme(Config& config, std::string const& method, FedAlgorithm& algorithm);
void fedex_settings(Config& config, std::string const& method, FedAlgorithm& algorithm);
void fedswa(Config& config, std::string const& method, FedAlgorithm& algorithm);
void fedrep(Config& config, std::string const& method, FedAlgorithm& algorithm);
void fedavg(Config& config, std::string const& method, FedAlgorithm& algorithm);
void fedem(Config& config, std::string const& method, FedAlgorithm& algorithm);
void fedopt(Config& config, std::string const& method, FedAlgorithm& algorithm);
void fedprox(Config& config, std::string const& method, FedAlgorithm& algorithm);
void scaffold(Config& config, std::string const& method, FedAlgorithm& algorithm);
void bulyan(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void coordinate_median(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void lora_aggregation(Config& config, std::string const& method, FedAlgorithm& algorithm);
/// A client whose LoRA has another rank or scale than the run's is an Error unless the rule takes them.
void check_unequal_rank(FedAlgorithm const& algorithm, int64_t client);
/// Makes `algorithm` one for the LoRA of this run. Methods other than LoRA are Errors where the rule is about
/// factors.
void bind_factors(FedAlgorithm& algorithm, LoraFactors const& factors);
void krum(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void norm_bounding(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void trimmed_mean(Config& config, std::string const& rule, FedAlgorithm& algorithm);

/// One row per value of federate.method.
std::vector<Row<AlgorithmPart>> const& algorithm_table();
/// One row per value of federate.lora_aggregation.
std::vector<Row<AlgorithmPart>> const& lora_aggregation_table();
/// One row per value of aggregator.robust_rule.
std::vector<Row<AlgorithmPart>> const& robust_rule_table();
/// Words of `key` that are part of no name among `parameters` are an Error.
void check_words(std::string const& key, std::vector<std::string> const& words, TensorMap const& parameters);
/// Local parameters that are none of `parameters`, or all, are an Error, and so is a rule for factors of LoRA
/// where there are none.
void check_parameters(FedAlgorithm const& algorithm, TensorMap const& parameters);
/// The algorithm that `config` asks for; the keys of all methods are declared.
FedAlgorithm load_algorithm(Config& config, std::string const& method);

}  // namespace fsllm
