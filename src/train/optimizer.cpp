// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/optimizer.hpp"

#include <ATen/ops/scalar_tensor.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <functional>

#include "fsllm/core/error.hpp"
#include "fsllm/core/table.hpp"

namespace fsllm {
namespace {

using Parameters = std::vector<at::Tensor>;
using Made = std::unique_ptr<torch::optim::Optimizer>;

Made make_sgd(OptimizerConfig const& c, Parameters p) {
  auto options = torch::optim::SGDOptions(c.lr).momentum(c.momentum).dampening(c.dampening);
  return std::make_unique<torch::optim::SGD>(std::move(p),
                                             options.weight_decay(c.weight_decay).nesterov(c.nesterov));
}

template <class Class, class Options>
Made make_adam(OptimizerConfig const& c, Parameters p) {
  auto options =
      Options(c.lr).betas({c.beta1, c.beta2}).eps(c.eps).weight_decay(c.weight_decay).amsgrad(c.amsgrad);
  return std::make_unique<Class>(std::move(p), options);
}

Made make_adagrad(OptimizerConfig const& c, Parameters p) {
  auto options =
      torch::optim::AdagradOptions(c.lr).lr_decay(c.lr_decay).weight_decay(c.weight_decay).eps(c.eps);
  return std::make_unique<torch::optim::Adagrad>(std::move(p), options);
}

Made make_rmsprop(OptimizerConfig const& c, Parameters p) {
  auto options = torch::optim::RMSpropOptions(c.lr).alpha(c.alpha).eps(c.eps).weight_decay(c.weight_decay);
  return std::make_unique<torch::optim::RMSprop>(std::move(p),
                                                 options.momentum(c.momentum).centered(c.centered));
}

/// Visits what an optimiser keeps of one parameter: visit(name, tensor or count).
void each(torch::optim::SGDParamState& state, auto const& visit) {
  visit("momentum_buffer", state.momentum_buffer());
}
template <class Adam>
void each(Adam& state, auto const& visit) requires requires {
  state.exp_avg();
}
{
  visit("step", state.step());
  visit("exp_avg", state.exp_avg());
  visit("exp_avg_sq", state.exp_avg_sq());
  visit("max_exp_avg_sq", state.max_exp_avg_sq());
}
void each(torch::optim::AdagradParamState& state, auto const& visit) {
  visit("step", state.step());
  visit("sum", state.sum());
}
void each(torch::optim::RMSpropParamState& state, auto const& visit) {
  visit("step", state.step());
  visit("square_avg", state.square_avg());
  visit("momentum_buffer", state.momentum_buffer());
  visit("grad_avg", state.grad_avg());
}

/// Puts what is kept of the parameter `name` into a map of states.
struct Save {
  TensorMap& into;
  std::string const& name;
  void operator()(char const* part, at::Tensor const& tensor) const {
    if (tensor.defined()) into.emplace(fmt::format("{}.{}", part, name), tensor);
  }
  void operator()(char const* part, int64_t count) const {
    into.emplace(fmt::format("{}.{}", part, name), at::scalar_tensor(count, at::kLong));
  }
};

/// The other way.
struct Load {
  TensorMap const& from;
  std::string const& name;
  at::Tensor const& parameter;
  bool& any;
  at::Tensor const* find(char const* part) const {
    auto const found = from.find(fmt::format("{}.{}", part, name));
    if (found == from.end()) return nullptr;
    any = true;
    return &found->second;
  }
  void operator()(char const* part, at::Tensor& tensor) const {
    if (auto const* found = find(part))
      tensor = found->to(parameter.device(), parameter.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  }
  void operator()(char const* part, int64_t& count) const {
    if (auto const* found = find(part)) count = found->item<int64_t>();
  }
};

template <class State>
void save_state(torch::optim::OptimizerParamState& state, Save const& save) {
  each(static_cast<State&>(state), save);
}

template <class State>
std::unique_ptr<torch::optim::OptimizerParamState> load_state(Load const& load) {
  auto state = std::make_unique<State>();
  each(*state, load);
  return state;
}

/// How to build one optimiser, and what differs from the common arguments.
struct Kind {
  std::function<Made(OptimizerConfig const&, Parameters)> make;
  void (*save)(torch::optim::OptimizerParamState&, Save const&);
  std::unique_ptr<torch::optim::OptimizerParamState> (*load)(Load const&);
  std::vector<std::string> arguments;
  double weight_decay, eps;  ///< defaults of torch.optim
};

std::vector<Row<Kind>> const& optimizer_table() {
  using namespace torch::optim;
  static std::vector<Row<Kind>> const table{
      {"SGD",
       {make_sgd,
        save_state<SGDParamState>,
        load_state<SGDParamState>,
        {"momentum", "dampening", "weight_decay", "nesterov"},
        0,
        0},
       "stochastic gradient descent"},
      {"Adam",
       {make_adam<Adam, AdamOptions>,
        save_state<AdamParamState>,
        load_state<AdamParamState>,
        {"betas", "eps", "weight_decay", "amsgrad"},
        0,
        1e-8},
       "Kingma & Ba 2015"},
      {"AdamW",
       {make_adam<AdamW, AdamWOptions>,
        save_state<AdamWParamState>,
        load_state<AdamWParamState>,
        {"betas", "eps", "weight_decay", "amsgrad"},
        1e-2,
        1e-8},
       "Loshchilov & Hutter 2019"},
      {"Adagrad",
       {make_adagrad,
        save_state<AdagradParamState>,
        load_state<AdagradParamState>,
        {"lr_decay", "weight_decay", "eps"},
        0,
        1e-10},
       "Duchi et al. 2011"},
      {"RMSprop",
       {make_rmsprop,
        save_state<RMSpropParamState>,
        load_state<RMSpropParamState>,
        {"alpha", "eps", "weight_decay", "momentum", "centered"},
        0,
        1e-8},
       "Hinton, lecture 6e"},
  };
  return table;
}

/// "AdamW 0.01, others 0": what torch.optim's classes have by themselves.
std::string defaults_of(double Kind::*value) {
  std::string text;
  for (auto const& row : optimizer_table())
    if (double const own = row.build.*value; own != 0) text += fmt::format("{} {}, ", row.name, own);
  return text + "others 0";
}

/// Arguments that ask for something: those whose value is not the default of every optimiser.
std::vector<std::string> arguments_in_use(OptimizerConfig const& c) {
  OptimizerConfig const none;
  std::vector<std::string> used;
  auto const note = [&](char const* name, bool in_use) {
    if (in_use) used.emplace_back(name);
  };
  note("momentum", c.momentum != none.momentum);
  note("dampening", c.dampening != none.dampening);
  note("nesterov", c.nesterov);
  note("betas", c.beta1 != none.beta1 || c.beta2 != none.beta2);
  note("amsgrad", c.amsgrad);
  note("alpha", c.alpha != none.alpha);
  note("centered", c.centered);
  note("lr_decay", c.lr_decay != none.lr_decay);
  return used;
}

void check_arguments(Config const& config, std::string const& prefix, OptimizerConfig const& c,
                     std::vector<std::string> const& has) {
  for (auto const& argument : arguments_in_use(c))
    FSLLM_CHECK(std::find(has.begin(), has.end(), argument) != has.end(),
                "{} ({} has no such argument). Remove it, or choose another {}.type.",
                config.where(prefix + "." + argument), c.type, prefix);
}

}  // namespace

std::vector<std::string> known_optimizers() {
  return names_of(optimizer_table());
}

OptimizerConfig load_optimizer_config(Config& config, std::string const& prefix,
                                      OptimizerDefaults const& defaults) {
  auto const key = [&](char const* name) { return prefix + "." + name; };
  auto types = known_optimizers();
  types.insert(types.end(), defaults.more_types.begin(), defaults.more_types.end());
  OptimizerConfig c;
  c.type = config.get(key("type"), "SGD", "Optimiser, with torch.optim's name and arguments.", one_of(types));
  auto const& more = defaults.more_types;
  bool const is_callers = std::find(more.begin(), more.end(), c.type) != more.end();
  auto const own = is_callers ? Kind{{}, {}, {}, defaults.more_arguments, 0, 0}
                              : find_row(optimizer_table(), c.type, key("type")).build;
  auto const has = [&](char const* argument) {
    return std::find(own.arguments.begin(), own.arguments.end(), argument) != own.arguments.end();
  };
  c.lr = config.get(key("lr"), defaults.lr, "Learning rate.", at_least(0));
  c.momentum = config.get(key("momentum"), has("momentum") ? defaults.momentum : 0.0,
                          "Momentum of SGD and RMSprop.", at_least(0));
  c.dampening = config.get(key("dampening"), 0.0, "Dampening of SGD's momentum.");
  c.nesterov = config.get(key("nesterov"), has("nesterov") && c.momentum > 0 && defaults.nesterov,
                          "Nesterov momentum (SGD).");
  c.weight_decay =
      config.get(key("weight_decay"), own.weight_decay,
                 "Weight decay. Default: " + defaults_of(&Kind::weight_decay) + ".", at_least(0));
  auto const betas =
      config.get<std::vector<double>>(key("betas"), {0.9, is_callers && has("betas") ? 0.99 : 0.999},
                                      "Decay of Adam's two moments.", within_open(0, 1));
  FSLLM_CHECK(betas.size() == 2, "{} has {} numbers (two are needed). Write [0.9, 0.999].",
              config.where(key("betas")), betas.size());
  c.beta1 = betas[0];
  c.beta2 = betas[1];
  c.eps = config.get(key("eps"), own.eps,
                     "Added to the denominator for stability. Default: " + defaults_of(&Kind::eps) + ".",
                     at_least(0));
  c.amsgrad = config.get(key("amsgrad"), false, "AMSGrad variant of Adam and AdamW.");
  c.alpha = config.get(key("alpha"), 0.99, "Smoothing of RMSprop.", within_open(0, 1));
  c.centered = config.get(key("centered"), false, "Centred RMSprop.");
  c.lr_decay = config.get(key("lr_decay"), 0.0, "Learning-rate decay of Adagrad.", at_least(0));
  check_arguments(config, prefix, c, own.arguments);
  for (auto const* argument : {"momentum", "dampening", "nesterov", "weight_decay", "betas", "eps", "amsgrad",
                               "alpha", "centered", "lr_decay"})
    if (!has(argument)) config.leave_out(key(argument));
  FSLLM_CHECK(!c.nesterov || (c.momentum > 0 && c.dampening == 0),
              "{} (needs momentum above 0 and no dampening). Set {}.", config.where(key("nesterov")),
              key("momentum"));
  return c;
}

struct Optimizer::Impl {
  TensorMap parameters;
  Kind const& kind;
  Made optimizer;
};

Optimizer::Optimizer(OptimizerConfig const& config, TensorMap const& parameters)
    : impl_(new Impl{parameters, find_row(optimizer_table(), config.type, "optimizer.type").build, nullptr}) {
  Parameters list;
  for (auto const& [name, tensor] : parameters) list.push_back(tensor);
  impl_->optimizer = impl_->kind.make(config, std::move(list));
}

Optimizer::~Optimizer() = default;

void Optimizer::set_lr(double lr) {
  for (auto& group : impl_->optimizer->param_groups()) group.options().set_lr(lr);
}

void Optimizer::step() {
  impl_->optimizer->step();
}

void Optimizer::zero_grad() {
  impl_->optimizer->zero_grad();
}

TensorMap Optimizer::state() const {
  TensorMap state;
  auto const& kept = impl_->optimizer->state();
  for (auto const& [name, parameter] : impl_->parameters)
    if (auto const found = kept.find(parameter.unsafeGetTensorImpl()); found != kept.end())
      impl_->kind.save(*found->second, {state, name});
  return state;
}

void Optimizer::load_state(TensorMap const& state) {
  auto& kept = impl_->optimizer->state();
  kept.clear();
  for (auto const& [name, parameter] : impl_->parameters) {
    bool any = false;  // a parameter that never had a gradient has none
    auto loaded = impl_->kind.load({state, name, parameter, any});
    if (any) kept[parameter.unsafeGetTensorImpl()] = std::move(loaded);
  }
}

}  // namespace fsllm
