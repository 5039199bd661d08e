// SPDX-License-Identifier: Apache-2.0
#include "plan_input.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "fsllm/model/activation_bytes.hpp"
#include "fsllm/model/dtype.hpp"
#include "fsllm/train/loss.hpp"
#include "ready_shards.hpp"
#include "trainable.hpp"

namespace fsllm {
namespace {

/// Resident set of a run that trains next to nothing: LibTorch, MPI and their buffers.
constexpr double kProcess = 180 * kMiB;
/// Of a GPU before the first tensor: CUDA's context, cuBLAS and NCCL. Assumed, not measured.
constexpr double kContext = 1024 * kMiB;
/// Frozen weights of another type are converted into these (frozen_matmul).
constexpr double kPanel = 4 * (4 << 20);
/// Rows of logits that are there at once (train/loss.cpp).
constexpr double kLossRows = 128;

int64_t rows_a_sample(Setup const& s) {
  return s.run.fed.clients_per_pass * (s.run.data.pairs ? 2 : 1);
}

/// Samples of a batch that a rank of a group has at most.
int64_t samples_of_rank(Setup const& s, Choice const& choice) {
  int64_t const ranks = choice.group.ranks;
  return (s.run.train.batch.batch_size + ranks - 1) / ranks;
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

at::ScalarType compute_type(Setup const& s) {
  return parse_dtype(s.load.compute_dtype, "train.compute_dtype");
}

/// Is a frozen weight stored in another type than that of activations?
bool converts(CausalLM& model, Setup const& s) {
  auto const compute = compute_type(s);
  auto const linears = model.linears();
  return std::any_of(linears.begin(), linears.end(), [&](Linear const* linear) {
    return linear->quantized || (!linear->weight.requires_grad() && linear->weight.scalar_type() != compute);
  });
}

bool weights_in(std::filesystem::path const& model) {
  return !std::filesystem::is_directory(model) || std::filesystem::exists(model / "model.safetensors") ||
         std::filesystem::exists(model / "model.safetensors.index.json");
}

/// The parameters of a whole model, as training has them.
void make_trainable(CausalLM& model, at::ScalarType type) {
  for (auto const& [name, tensor] : model.parameters())
    model.set_parameter(name,
                        at::empty(tensor.sizes(), tensor.options().dtype(type)).set_requires_grad(true));
}

/// What blocks save is linear in their number: counted of one and two of them, which need little memory.
ActivationBytes activations_of_model(Setup const& s, Choice const& choice, at::ScalarType type) {
  auto const of = [&](int64_t layers) {
    auto config = s.model;
    config.num_layers = layers;
    auto const model = model_of_shapes(config, s.load);
    make_trainable(*model, type);
    return count_activations(*model, model->parameters(), choice.checkpointing);
  };
  auto const one = of(1), two = of(2);
  auto const more = static_cast<double>(s.model.num_layers - 1);
  return {one.fixed + more * (two.fixed - one.fixed), one.linear + more * (two.linear - one.linear),
          one.square + more * (two.square - one.square)};
}

/// Numbers of a model's blocks, and of the largest one; bytes too.
struct BlockSizes {
  double numbers = 0, largest = 0, bytes = 0, largest_bytes = 0;
};

BlockSizes sizes_of_blocks(CausalLM& model) {
  BlockSizes sizes;
  auto const parameters = model.parameters();
  for (auto const& names : model.block_parameters()) {
    double numbers = 0, bytes = 0;
    for (auto const& name : names)
      if (auto const found = parameters.find(name); found != parameters.end()) {
        numbers += static_cast<double>(found->second.numel());
        bytes += static_cast<double>(found->second.nbytes());
      }
    sizes.numbers += numbers;
    sizes.bytes += bytes;
    sizes.largest = std::max(sizes.largest, numbers);
    sizes.largest_bytes = std::max(sizes.largest_bytes, bytes);
  }
  return sizes;
}

}  // namespace

struct PlanSource::Counted {
  PlanInput input;
  ActivationBytes kept, all;  ///< all: without checkpointing
  bool trains_head = false;
};

Choice chosen_by(Setup const& s, int64_t ranks, int64_t ranks_on_node, bool gpu) {
  return {s.run.train.micro_batch_size,
          s.run.checkpointing,
          s.load.storage_dtype,
          s.run.group,
          ranks,
          ranks_on_node,
          gpu};
}

PlanSource::PlanSource(Setup const& s, std::vector<ClientSource> sources, int64_t longest)
    : s_(s),
      has_weights_(weights_in(s.model_dir)),
      sources_(std::move(sources)),
      longest_(static_cast<double>(longest)) {}

void PlanSource::measure_rows() {
  if (longest_ > 0) return;
  longest_ = static_cast<double>(s_.run.data.tok_len);
  double longest = 0, tokens = 0, targets = 0;
  constexpr size_t kMost = 64;
  for (size_t i = 0; i < std::min(kMost, sources_.size()); ++i) {
    if (sources_[i].path.empty()) continue;
    auto const lengths = row_lengths(read_shard(sources_[i].path).train);
    for (auto const length : lengths) longest = std::max(longest, static_cast<double>(length));
    tokens += static_cast<double>(sources_[i].summary.train.tokens);
    targets += static_cast<double>(sources_[i].summary.train.targets);
  }
  if (longest == 0) return;
  longest_ = longest;
  scored_ = targets / tokens;
}

PassShape PlanSource::largest_pass(Choice const& choice) {
  measure_rows();
  auto samples = samples_of_rank(s_, choice);
  if (choice.micro_batch > 0) samples = std::min(samples, choice.micro_batch);
  PassShape shape{static_cast<double>(samples * rows_a_sample(s_)), longest_, 0};
  shape.targets = shape.tokens() * scored_;
  return shape;
}

int64_t PlanSource::clients_a_round() const {
  auto const& fed = s_.run.fed;
  if (fed.algorithm.merges) return 1;
  if (fed.sample_client_num > 0) return fed.sample_client_num;
  return std::max<int64_t>({1, fed.client_num, std::ssize(sources_)});
}

PlanSource::Counted const& PlanSource::counted(Choice const& choice, bool passes) {
  bool const full = s_.run.peft.method.empty();
  bool const partitioned = full && choice.group.ranks > 1 && choice.group.stage > 0;
  auto& found = counted_[fmt::format("{} {} {} {}", choice.storage_dtype,
                                     static_cast<int>(choice.checkpointing), partitioned, passes)];
  if (found) return *found;
  auto count = std::make_shared<Counted>();
  auto& in = count->input;
  auto options = s_.load;
  options.values = false;
  options.device = "cpu";
  options.storage_dtype = choice.storage_dtype;
  Trainable t;
  if (full) options.device = "meta";  // it may be larger than this machine
  t.model = has_weights_ ? load_grown(s_, s_.model_dir, options) : model_of_shapes(s_.model, options);
  in.mapped = static_cast<double>(weight_bytes(*t.model));
  in.full_model = full;
  auto const type = partitioned ? compute_type(s_) : at::kFloat;
  TensorMap weights;
  auto const frozen = sizes_of_blocks(*t.model);
  if (full) {
    make_trainable(*t.model, type);
    weights = t.model->parameters();
  } else {
    t.peft = make_peft(s_.run.peft, *t.model, s_.run.fed.seed);
    if (s_.run.fed.algorithm.trains_cores) t.peft->train_cores();
    weights = t.peft->state();
    in.frozen = frozen.bytes;
    in.frozen_block = frozen.largest_bytes;
  }
  in.parameters = static_cast<double>(num_parameters(weights) * s_.run.fed.clients_per_pass);
  in.compute = static_cast<double>(at::elementSize(type));
  in.outside = full ? in.parameters - frozen.numbers : 0;
  in.head = full ? static_cast<double>(s_.model.vocab_size * s_.model.hidden_size) : 0;
  in.block = frozen.largest;
  in.each.optimizer = 4 * moments_of(s_.run.train.optimizer);
  if (converts(*t.model, s_)) in.buffers = kPanel;
  auto const& algorithm = s_.run.fed.algorithm;
  if (algorithm.changes_base)
    for (auto const& target : t.peft->low_rank_targets()) {
      auto const& linear = module_of(*t.model, target.module);
      in.overlays += 4 * static_cast<double>(linear.in_features() * linear.out_features());
    }
  in.exact = s_.run.fed.reduce == "exact" || (s_.run.fed.reduce == "auto" && !full);
  in.messages = numbers_in(algorithm.averaged, weights) + numbers_in(algorithm.summed, weights);
  in.server_numbers = in.parameters + numbers_in(algorithm.server_extra, weights);
  in.client_state = 4 * numbers_in(algorithm.client_state, weights);
  if (s_.run.fed.keep_optimizer) in.client_state += in.each.optimizer * in.parameters;
  count->trains_head = t.model->head_requires_grad();
  if (s_.run.train.zeroth_order()) {
    in.each.gradients = 0;
  } else if (passes) {
    auto const kept = [&](Checkpointing how) {
      auto other = choice;
      other.checkpointing = how;
      return full ? activations_of_model(s_, other, type) : count_activations(*t.model, weights, how);
    };
    count->kept = kept(choice.checkpointing);
    if (choice.checkpointing == Checkpointing::block) count->all = kept(Checkpointing::none);
  }
  found = count;
  return *found;
}

PlanInput PlanSource::input(Choice const& choice, bool passes) {
  auto const& count = counted(choice, passes);
  auto in = count.input;
  in.process = kProcess;
  in.gpu = choice.gpu;
  in.context = choice.gpu ? kContext : 0;
  in.group_ranks = choice.group.ranks;
  in.zero_stage = static_cast<int>(choice.group.stage);
  in.offload = choice.group.offload != "none";
  in.ranks_on_node = choice.ranks_on_node;
  in.one_client = clients_a_round() <= choice.ranks / choice.group.ranks;
  if (in.group_ranks == 1 || in.zero_stage < 3) in.frozen = in.frozen_block = 0;
  auto const batches = s_.run.train.accumulation;
  int64_t const samples = samples_of_rank(s_, choice);
  int64_t const at_once = choice.micro_batch > 0 ? std::min(choice.micro_batch, samples) : samples;
  in.passes = batches * ((samples + at_once - 1) / at_once);
  if (!passes) return in;
  auto const shape = largest_pass(choice);
  auto const& config = s_.model;
  double const number = compute_type(s_) == at::kFloat ? 4 : 2;
  auto const width = static_cast<double>(config.hidden_size), vocab = static_cast<double>(config.vocab_size);
  in.working = number * shape.tokens() * (3 * static_cast<double>(config.intermediate_size) + 4 * width);
  in.loss = 2 * 4 * std::min(kLossRows, shape.targets) * vocab + 2 * number * shape.targets * width;
  if (count.trains_head && in.full_model && number < 4)
    in.loss += 4 * in.head;  // its gradient's sum (head_loss)
  in.activations = count.kept.of(shape.rows, shape.length);
  in.frozen_rows = static_cast<double>(s_.run.frozen_rows_bytes);
  in.one_block = count.all.of(shape.rows, shape.length) / static_cast<double>(config.num_layers);
  return in;
}

}  // namespace fsllm
