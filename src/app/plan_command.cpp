// SPDX-License-Identifier: Apache-2.0
#include "plan_command.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "fsllm/app/program.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/model/activation_bytes.hpp"
#include "fsllm/model/dtype.hpp"
#include "fsllm/train/loss.hpp"
#include "memory_plan.hpp"
#include "ready_shards.hpp"
#include "trainable.hpp"

namespace fsllm {
namespace {

constexpr double kMiB = 1 << 20;
/// Resident set of a run that trains next to nothing: LibTorch, MPI and their buffers.
constexpr double kProcess = 180 * kMiB;
/// Frozen weights of another type are converted into these (frozen_matmul).
constexpr double kPanel = 4 * (4 << 20);
/// Rows of logits that are there at once (train/loss.cpp).
constexpr double kLossRows = 128;

/// The largest forward pass: rows, tokens a row, and how many of these are scored.
struct PassShape {
  double rows = 1, length = 0, targets = 0;
  double tokens() const { return rows * length; }
};

/// The longest rows of ready shards (of 64 clients at most); rows that are not made yet are taken to be as
/// long as allowed, and scored as a whole.
PassShape largest_pass(Setup const& s, std::vector<ClientSource> const& sources) {
  auto const& train = s.run.train;
  auto const batch = train.batch.batch_size;
  PassShape shape;
  shape.rows =
      static_cast<double>(train.micro_batch_size > 0 ? std::min(train.micro_batch_size, batch) : batch);
  shape.rows *= static_cast<double>(s.run.fed.clients_per_pass * (s.run.data.pairs ? 2 : 1));
  double longest = 0, tokens = 0, targets = 0;
  constexpr size_t kMost = 64;
  for (size_t i = 0; i < std::min(kMost, sources.size()); ++i) {
    if (sources[i].path.empty()) continue;
    auto const lengths = row_lengths(read_shard(sources[i].path).train);
    for (auto const length : lengths) longest = std::max(longest, static_cast<double>(length));
    tokens += static_cast<double>(sources[i].summary.train.tokens);
    targets += static_cast<double>(sources[i].summary.train.targets);
  }
  bool const known = longest > 0;
  shape.length = known ? longest : static_cast<double>(s.run.data.tok_len);
  shape.targets = shape.tokens() * (known ? targets / tokens : 1);
  return shape;
}

int64_t clients_a_round(Setup const& s, std::vector<ClientSource> const& sources) {
  auto const& fed = s.run.fed;
  if (fed.algorithm.merges) return 1;
  if (fed.sample_client_num > 0) return fed.sample_client_num;
  return std::max<int64_t>(fed.client_num, std::ssize(sources));
}

/// Numbers that the optimiser keeps of each parameter.
double moments_of(OptimizerConfig const& c) {
  if (c.type == "Adam" || c.type == "AdamW") return c.amsgrad ? 3 : 2;
  if (c.type == "RMSprop") return 1 + (c.momentum > 0 ? 1 : 0) + (c.centered ? 1 : 0);
  if (c.type == "SGD") return c.momentum > 0 ? 1 : 0;
  return 1;  // Adagrad; MeZO's copy of the parameters
}

double numbers_in(FedAlgorithm::Layout const& layout, TensorMap const& weights) {
  return layout ? static_cast<double>(num_parameters(layout(weights))) : 0;
}

/// Is a frozen weight stored in another type than that of activations?
bool converts(CausalLM& model, Setup const& s) {
  auto const compute = parse_dtype(s.load.compute_dtype, "train.compute_dtype");
  auto const linears = model.linears();
  return std::any_of(linears.begin(), linears.end(), [&](Linear const* linear) {
    return linear->quantized || (!linear->weight.requires_grad() && linear->weight.scalar_type() != compute);
  });
}

/// What learns, without values: as load_trainable() makes it.
TensorMap empty_trainable(Setup const& s, Trainable& t) {
  if (!s.run.peft.method.empty()) {
    t.peft = make_peft(s.run.peft, *t.model, s.run.fed.seed);
    if (s.run.fed.algorithm.trains_cores) t.peft->train_cores();
    return t.peft->state();
  }
  for (auto const& [name, tensor] : t.model->parameters())
    t.model->set_parameter(name, at::empty(tensor.sizes(), at::kFloat).set_requires_grad(true));
  return t.model->parameters();
}

void add_federation(PlanInput& in, Setup const& s, TensorMap const& weights) {
  auto const& algorithm = s.run.fed.algorithm;
  in.exact = s.run.fed.reduce == "exact" || (s.run.fed.reduce == "auto" && !in.full_model);
  in.messages = numbers_in(algorithm.averaged, weights) + numbers_in(algorithm.summed, weights);
  in.server_numbers = in.parameters + numbers_in(algorithm.server_extra, weights);
  in.client_state = 4 * numbers_in(algorithm.client_state, weights);
  if (s.run.fed.keep_optimizer) in.client_state += in.each.optimizer * in.parameters;
}

/// What the passes of a step hold beside what training keeps, for tokens N of width D.
void add_passes(PlanInput& in, Setup const& s, CausalLM& model, PassShape const& shape) {
  auto const& config = model.config();
  double const number = parse_dtype(s.load.compute_dtype, "train.compute_dtype") == at::kFloat ? 4 : 2;
  auto const width = static_cast<double>(config.hidden_size), vocab = static_cast<double>(config.vocab_size);
  auto const inner = static_cast<double>(config.intermediate_size);
  in.working = number * shape.tokens() * (3 * inner + 4 * width);
  in.loss = model.head_requires_grad()
                ? 3 * 4 * shape.targets * vocab
                : 2 * 4 * std::min(kLossRows, shape.targets) * vocab + 2 * number * shape.targets * width;
}

/// What a user can choose to make a run smaller.
struct Choice {
  PassShape shape;
  Checkpointing checkpointing = Checkpointing::none;
  std::string storage_dtype;
  int64_t ranks_on_node = 1;
  bool one_client = false;  ///< of a rank in a round
};

PlanInput input_of(Setup const& s, Choice const& choice) {
  auto const& shape = choice.shape;
  Trainable t;
  auto options = s.load;
  options.values = false;
  options.storage_dtype = choice.storage_dtype;
  t.model = load_grown(s, options);
  PlanInput in;
  in.ranks_on_node = choice.ranks_on_node;
  in.one_client = choice.one_client;
  in.process = kProcess;
  in.mapped = static_cast<double>(weight_bytes(*t.model));
  in.full_model = s.run.peft.method.empty();
  auto const weights = empty_trainable(s, t);
  in.parameters = static_cast<double>(num_parameters(weights) * s.run.fed.clients_per_pass);
  in.each.optimizer = 4 * moments_of(s.run.train.optimizer);
  if (converts(*t.model, s)) in.buffers = kPanel;
  if (s.run.fed.algorithm.changes_base)
    for (auto const& target : t.peft->low_rank_targets()) {
      auto const& linear = module_of(*t.model, target.module);
      in.overlays += 4 * static_cast<double>(linear.in_features() * linear.out_features());
    }
  add_federation(in, s, weights);
  add_passes(in, s, *t.model, shape);
  if (s.run.train.zeroth_order()) {
    in.each.gradients = 0;
    return in;
  }
  in.activations = count_activations(*t.model, weights, choice.checkpointing).of(shape.rows, shape.length);
  if (choice.checkpointing == Checkpointing::block)
    in.one_block = count_activations(*t.model, weights, Checkpointing::none).of(shape.rows, shape.length) /
                   static_cast<double>(s.model.num_layers);
  return in;
}

struct Change {
  std::string what;
  double node = 0;
};

/// What takes less, from the largest saving.
std::vector<Change> changes(Setup const& s, Choice const& chosen, double node) {
  std::vector<Change> found;
  auto const try_out = [&](std::string const& what, Choice const& other) {
    double const now = plan_memory(input_of(s, other)).node;
    if (now < node) found.push_back({what, now});
  };
  if (chosen.checkpointing != Checkpointing::block && !s.run.train.zeroth_order()) {
    auto other = chosen;
    other.checkpointing = Checkpointing::block;
    try_out("train.activation_checkpointing: block", other);
  }
  auto const fewest = static_cast<double>(s.run.fed.clients_per_pass * (s.run.data.pairs ? 2 : 1));
  if (chosen.shape.rows > fewest) {
    auto other = chosen;
    other.shape.targets *= fewest / chosen.shape.rows;
    other.shape.rows = fewest;
    try_out("train.micro_batch_size: 1", other);
  }
  if (!s.run.peft.method.empty() && chosen.storage_dtype != "nf4") {
    auto other = chosen;
    other.storage_dtype = "nf4";
    try_out("train.storage_dtype: nf4", other);
  }
  if (chosen.ranks_on_node > 1) {
    auto other = chosen;
    other.ranks_on_node = (chosen.ranks_on_node + 1) / 2;
    try_out("half as many ranks a node", other);
  }
  std::sort(found.begin(), found.end(), [](Change const& a, Change const& b) { return a.node < b.node; });
  return found;
}

void print_plan(MemoryPlan const& plan, Choice const& chosen) {
  auto const& shape = chosen.shape;
  fmt::print("largest pass: {:.0f} rows of {:.0f} tokens, {:.0f} of them scored\n\n{:34}{:>12}\n", shape.rows,
             shape.length, shape.targets, "MiB of a rank", "");
  for (auto const& item : plan.items)
    fmt::print("{:34}{:12.1f}{}\n", item.what, item.bytes / kMiB,
               item.of_node ? "  shared by a node's ranks" : "");
  fmt::print("{:34}{:12.1f}\n{:34}{:12.1f}\n", "resident set of a rank", plan.rank / kMiB,
             fmt::format("a node with {} ranks", chosen.ranks_on_node), plan.node / kMiB);
  fmt::print("\na round sends {:.1f} MiB from and {:.1f} MiB to each rank\n", plan.up / kMiB,
             plan.down / kMiB);
}

}  // namespace

int plan_command(Setup const& s, Communicator const& comm) {
  int64_t const ranks_on_node = comm.max(comm.split_by_node().size());
  agree(comm, [&] {
    if (comm.rank() != 0) return;
    auto const sources =
        s.run.data.shards.empty() ? std::vector<ClientSource>{} : sources_in(s.run.data.shards);
    Choice const chosen{largest_pass(s, sources), s.run.checkpointing, s.load.storage_dtype, ranks_on_node,
                        clients_a_round(s, sources) <= comm.size()};
    auto const plan = plan_memory(input_of(s, chosen));
    print_plan(plan, chosen);
    auto const available = static_cast<double>(available_memory());
    if (available == 0) return;
    bool const fits = plan.node <= available;
    fmt::print("this node has {:.1f} MiB to spare: the run {}\n", available / kMiB,
               fits ? "fits" : "does not fit");
    if (fits) return;
    for (auto const& [what, node] : changes(s, chosen, plan.node))
      fmt::print("  {}: {:.1f} MiB less{}\n", what, (plan.node - node) / kMiB,
                 node <= available ? ", which fits" : "");
  });
  return 0;
}

}  // namespace fsllm
