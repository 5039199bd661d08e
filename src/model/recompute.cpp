// SPDX-License-Identifier: Apache-2.0
#include "recompute.hpp"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>

#include <set>
#include <utility>
#include <vector>

#include "fsllm/core/error.hpp"

namespace fsllm::detail {
namespace {

using torch::autograd::SavedVariableHooks;
using Hooks = std::unique_ptr<SavedVariableHooks>;

/// How operations of this thread save tensors for their backward pass.
struct HookSource {
  virtual ~HookSource() = default;
  virtual Hooks hooks() = 0;
};

thread_local HookSource* current_source = nullptr;
thread_local Linear const* left_out = nullptr;
/// What saved_bytes() has met, or null.
thread_local std::vector<at::Tensor>* counted = nullptr;

void count(at::Tensor const& tensor) {
  if (counted != nullptr) counted->push_back(tensor.detach());
}

/// Puts a value into a variable of the thread for as long as it lives.
template <class T>
class Scoped {
 public:
  Scoped(T& variable, T value) : variable_(variable), before_(std::exchange(variable, value)) {}
  ~Scoped() { variable_ = before_; }
  Scoped(Scoped const&) = delete;
  Scoped& operator=(Scoped const&) = delete;

 private:
  T& variable_;
  T before_;
};

/// LibTorch asks its engine for hooks, as its Python engine has them.
struct HookingEngine final : torch::autograd::Engine {
  Hooks get_default_saved_variable_hooks() override {
    return current_source != nullptr ? current_source->hooks() : nullptr;
  }
};

void use_hooking_engine() {
  static bool const once = [] {
    torch::autograd::set_default_engine_stub([]() -> torch::autograd::Engine& {
      static HookingEngine engine;
      return engine;
    });
    return true;
  }();
  static_cast<void>(once);
}

/// One body: what its operations saved, by their order.
struct Region {
  std::vector<at::Tensor> inputs;
  Body body;
  Linear const* last;
  size_t saved = 0;
  std::vector<at::Tensor> values;  ///< of the second time

  void run_again();
};

/// Thrown when all values are there.
struct Complete {};

struct Collected final : SavedVariableHooks {
  explicit Collected(Region& region_) : region(region_) {}
  void call_pack_hook(at::Tensor const& tensor) override {
    region.values.push_back(tensor.detach());
    if (region.values.size() == region.saved) throw Complete{};
  }
  at::Tensor call_unpack_hook() override {
    fail_internal(__FILE__, __LINE__, "a backward pass of what was recomputed");
  }
  Region& region;
};

struct Collecting final : HookSource {
  explicit Collecting(Region& region_) : region(region_) {}
  Hooks hooks() override { return std::make_unique<Collected>(region); }
  Region& region;
};

void Region::run_again() {
  at::AutoGradMode const with_gradients(true);
  Collecting source(*this);
  Scoped<HookSource*> const in_place(current_source, &source);
  Scoped<Linear const*> const without(left_out, last);
  values.reserve(saved);
  try {
    body(inputs);
    fail_internal(__FILE__, __LINE__, "a block that saved less when it was recomputed");
  } catch (Complete const&) {
    inputs.clear();
  }
}

/// Stands for a tensor, by its number; when the last one of a region has gone, so has the region.
struct Dropped final : SavedVariableHooks {
  explicit Dropped(std::shared_ptr<Region> region_) : region(std::move(region_)) {}
  ~Dropped() override {
    if (index < region->values.size()) region->values[index].reset();
  }
  Dropped(Dropped const&) = delete;
  Dropped& operator=(Dropped const&) = delete;
  void call_pack_hook(at::Tensor const&) override { index = region->saved++; }
  at::Tensor call_unpack_hook() override {
    if (region->values.empty()) region->run_again();
    return region->values[index];
  }
  std::shared_ptr<Region> region;
  size_t index = SIZE_MAX;
};

struct Dropping final : HookSource {
  Hooks hooks() override { return std::make_unique<Dropped>(region); }
  std::shared_ptr<Region> region;
};

/// A cheap value, shared by all that saved it; kept from its first use to its last.
struct Recipe {
  std::function<at::Tensor()> again;
  at::Tensor value;

  at::Tensor get() {
    if (!value.defined()) {
      at::NoGradGuard const no_grad;
      Scoped<HookSource*> const none(current_source, nullptr);
      value = again();
      again = nullptr;
    }
    return value;
  }
};

}  // namespace

/// Holds on to what is known to be cheap, so that no other tensor is taken for it.
struct CheapSaver final : HookSource {
  Hooks hooks() override { return std::make_unique<Kept>(*this); }

  struct Kept final : SavedVariableHooks {
    explicit Kept(CheapSaver const& saver_) : saver(saver_) {}
    void call_pack_hook(at::Tensor const& tensor) override {
      for (auto const& [known, of_known] : saver.recipes)
        if (known.is_same(tensor)) recipe = of_known;
      if (recipe) return;
      value = tensor.detach();
      count(value);
    }
    at::Tensor call_unpack_hook() override { return recipe ? recipe->get() : value; }
    CheapSaver const& saver;  ///< is there when tensors are packed
    std::shared_ptr<Recipe> recipe;
    at::Tensor value;
  };

  Scoped<HookSource*> in_place{current_source, this};
  std::vector<std::pair<at::Tensor, std::shared_ptr<Recipe>>> recipes;
};

CheapValues::CheapValues() {
  if (!at::GradMode::is_enabled()) return;
  use_hooking_engine();
  saver_ = std::make_unique<CheapSaver>();
}

CheapValues::~CheapValues() = default;

at::Tensor cheap(at::Tensor value, std::function<at::Tensor()> again) {
  if (auto* const saver = dynamic_cast<CheapSaver*>(current_source))
    saver->recipes.emplace_back(value, std::make_shared<Recipe>(Recipe{std::move(again), {}}));
  return value;
}

at::Tensor cheap(std::vector<at::Tensor> inputs, Body body) {
  bool const is_kept = dynamic_cast<CheapSaver*>(current_source) == nullptr;
  return is_kept ? body(inputs) : recomputed(std::move(inputs), std::move(body));
}

at::Tensor recomputed(std::vector<at::Tensor> inputs, Body body, Linear const* last) {
  if (!at::GradMode::is_enabled()) return body(inputs);
  use_hooking_engine();
  for (auto const& input : inputs) count(input);
  Dropping source;
  source.region = std::make_shared<Region>(Region{std::move(inputs), std::move(body), last, 0, {}});
  Scoped<HookSource*> const in_place(current_source, &source);
  return source.region->body(source.region->inputs);
}

namespace {

struct Counted final : SavedVariableHooks {
  void call_pack_hook(at::Tensor const& tensor) override { count(tensor); }
  at::Tensor call_unpack_hook() override {
    fail_internal(__FILE__, __LINE__, "a backward pass of what was counted");
  }
};

struct CountingSource final : HookSource {
  Hooks hooks() override { return std::make_unique<Counted>(); }
};

}  // namespace

int64_t saved_bytes(std::function<void()> const& body, TensorMap const& beside) {
  use_hooking_engine();
  CountingSource source;
  std::vector<at::Tensor> tensors;
  {
    Scoped<HookSource*> const in_place(current_source, &source);
    Scoped<std::vector<at::Tensor>*> const counting(counted, &tensors);
    body();
  }
  std::set<void const*> storages;
  for (auto const& [name, tensor] : beside) storages.insert(tensor.storage().unsafeGetStorageImpl());
  int64_t bytes = 0;
  for (auto const& tensor : tensors)
    if (storages.insert(tensor.storage().unsafeGetStorageImpl()).second)
      bytes += static_cast<int64_t>(tensor.storage().nbytes());
  return bytes;
}

bool product_is_wanted(Linear const& linear) {
  return left_out != &linear;
}

}  // namespace fsllm::detail
