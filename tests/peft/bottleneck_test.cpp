// SPDX-License-Identifier: Apache-2.0
// Bottlenecks beyond what the goldens of method_test.cpp show: defaults, sizes, starts, going on from files.
#include "bottleneck.hpp"

#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "peft_fixture.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

class Bottleneck : public testing::Test {
 protected:
  std::unique_ptr<Peft> make(std::string const& args, std::string const& more = "") const {
    return make_peft(peft_of("adapter_method: " + args, more), *model_, 1);
  }
  nlohmann::ordered_json config(std::string const& args) const {
    auto const peft = make(args);
    peft->detach(*model_);
    return peft->adapter_config("base");
  }
  /// Its shape after one without the adapter's prefix.
  std::vector<int64_t> shape(Peft const& peft, std::string const& name) const {
    return peft.state().at("base_model.model." + name).sizes().vec();
  }
  /// An adapter saved and detached; how the YAML says to start from it.
  std::string saved(std::string const& args) {
    auto const peft = make(args);
    save_adapter(dir_.path(), *peft, peft->state(), "base");
    peft->detach(*model_);
    return "    init_from: " + dir_.path().string() + "\n";
  }

  Reference reference_ = load_reference("llama");
  std::unique_ptr<CausalLM> model_ = load_model(reference_.dir);
  TempDir dir_;
};

TEST_F(Bottleneck, DefaultsFollowTheArchitecture) {
  auto const defaults = [&](std::string const& args) {
    auto const json = config(args);
    return fmt::format("{} {} {}", json.at("reduction_factor").dump(), json.at("scaling").dump(),
                       json.at("non_linearity").get<std::string>());
  };
  EXPECT_EQ(defaults("bottleneck"), "16 1.0 swish");
  EXPECT_EQ(defaults("bottleneck, architecture: pfeiffer"), "16 1.0 relu");
  EXPECT_EQ(defaults("bottleneck, architecture: parallel"), "2 4.0 relu");
  EXPECT_EQ(defaults("mam"), "2 4.0 relu");
  EXPECT_EQ(defaults("compacter"), "32 1.0 gelu");
  EXPECT_EQ(defaults("compacter, reduction_factor: 4, non_linearity: auto"), "4 1.0 swish");
}

TEST_F(Bottleneck, BadArgumentsAreNamed) {
  EXPECT_ERROR(make("bottleneck, architecture: serial"),
               "architecture = 'serial' (must be one of houlsby, pfeiffer, parallel)");
  EXPECT_ERROR(make("bottleneck, reduction_factor: 0"), "reduction_factor = 0 (must be at least 1)");
  EXPECT_ERROR(make("bottleneck, adapter_dropout: 1"), "adapter_dropout = 1");
  EXPECT_ERROR(make("bottleneck, scaling: 0"), "scaling = 0 (must be more than 0)");
  EXPECT_ERROR(make("bottleneck, inv_adapter: glow"), "inv_adapter = 'glow' (must be one of none, nice)");
  EXPECT_ERROR(make("bottleneck, inv_adapter_reduction_factor: 0"), "inv_adapter_reduction_factor = 0");
  EXPECT_ERROR(make("bottleneck, architecture: pfeiffer, mlp_reduction_factor: 2"),
               "mlp_reduction_factor = 2 (architecture: pfeiffer has one bottleneck a block)");
  EXPECT_ERROR(
      make("compacter, phm_dim: 0"),
      "phm_dim = 0 (compacter's matrices are Kronecker products). Set 4, or adapter_method: bottleneck");
  EXPECT_ERROR(make("compacter, phm_dim: 3"), "phm_dim = 3 (no divisor of the model's hidden size 32)");
}

TEST_F(Bottleneck, SizesFollowTheFactors) {
  auto const smallest = make("bottleneck, architecture: pfeiffer, reduction_factor: 1000");
  EXPECT_EQ(shape(*smallest, "model.layers.0.adapter_down.weight"), (std::vector<int64_t>{1, 32}));
  auto const two = make("bottleneck, reduction_factor: 8, mlp_reduction_factor: 2");
  EXPECT_EQ(shape(*two, "model.layers.1.self_attn.o_proj.adapter_down.weight"),
            (std::vector<int64_t>{4, 32}));
  EXPECT_EQ(shape(*two, "model.layers.1.mlp.down_proj.adapter_down.weight"), (std::vector<int64_t>{16, 32}));
  auto const inverse = make("bottleneck, inv_adapter: nice, inv_adapter_reduction_factor: 4");
  EXPECT_EQ(shape(*inverse, "inv_adapter.F.adapter_down.weight"), (std::vector<int64_t>{4, 16}));
}

/// 32 / 5 = 6 is no multiple of 4, and 32 / 32 = 1 less than one: 4 both times.
TEST_F(Bottleneck, KroneckerSizesAreMultiplesOfTheirNumber) {
  for (auto const* factor : {"5", "32"}) {
    auto const peft = make(std::string("compacter, reduction_factor: ") + factor);
    EXPECT_EQ(shape(*peft, "phm_rule"), (std::vector<int64_t>{4, 4, 4}));
    EXPECT_EQ(shape(*peft, "model.layers.0.mlp.down_proj.adapter_down.W_right"),
              (std::vector<int64_t>{4, 1, 1}));
    EXPECT_EQ(shape(*peft, "model.layers.0.mlp.down_proj.adapter_up.W_left"),
              (std::vector<int64_t>{4, 1, 1}));
    peft->detach(*model_);
  }
}

/// Networks beside MLPs start as nothing, W_up being zero; Compacter's rule starts near it.
TEST_F(Bottleneck, Starts) {
  auto const plain = all_logits(*model_, reference_.rows);
  auto const parallel = make("bottleneck, architecture: parallel");
  EXPECT_TRUE(at::equal(all_logits(*model_, reference_.rows), plain));
  auto const down = parallel->state().at("base_model.model.model.layers.0.adapter_down.weight");
  EXPECT_NEAR(down.abs().max().item<double>(), 1 / std::sqrt(32.0), 0.01);
  parallel->detach(*model_);
  auto const compacter = make("compacter");
  EXPECT_FALSE(at::equal(all_logits(*model_, reference_.rows), plain));
  EXPECT_TRUE(tensors_near(all_logits(*model_, reference_.rows), plain, 1e-2));
  auto const rule = compacter->state().at("base_model.model.phm_rule");
  EXPECT_NEAR(rule.std().item<double>(), 1e-4, 3e-5);
}

TEST_F(Bottleneck, DropoutIsReproducible) {
  auto const peft = make("bottleneck, adapter_dropout: 0.5");
  auto const loss = [&](bool drops, uint64_t seed) {
    auto const rows = static_cast<int64_t>(reference_.rows.size());
    return mean_loss(*model_, reference_, drops ? training(seed, rows) : PassOptions()).item<double>();
  };
  EXPECT_EQ(loss(true, 1), loss(true, 1));
  EXPECT_NE(loss(true, 1), loss(true, 2));
}

TEST_F(Bottleneck, SavedOnesGoOnAsWhatTheyAre) {
  auto const compacter = saved("compacter, reduction_factor: 4");
  EXPECT_EQ(peft_of("adapter_method: compacter", compacter).method, "compacter");
  auto const on = load_peft("llm:\n  adapter:\n    use: True\n" + compacter);
  EXPECT_EQ(make_peft(on, *model_, 1)->state().count("base_model.model.phm_rule"), 1U);
  EXPECT_ERROR(make("compacter, reduction_factor: 8", compacter),
               "reduction_factor = 8 (the adapter of llm.");
  EXPECT_ERROR(make("mam", compacter), "is of type BOTTLENECK and goes on as 'bottleneck'");
  auto const plain = saved("bottleneck, reduction_factor: 4");
  EXPECT_ERROR(make("compacter", plain), "phm_dim = 0 (compacter's matrices are Kronecker products)");
}

/// A preset of AdapterHub's says nothing about an adapter that is there already.
TEST_F(Bottleneck, PresetsDoNotCountBesideASavedAdapter) {
  auto const plain = saved("bottleneck, reduction_factor: 4");
  auto const on = make("union, adapter_package: adapterhub", plain);
  EXPECT_EQ(on->adapter_config("base").at("mlp_reduction_factor"), 0);
  on->detach(*model_);
  auto const mam = saved("mam, num_virtual_tokens: 3, encoder_hidden_size: 6");
  auto const flat = make("mam, adapter_package: adapterhub", mam);
  EXPECT_EQ(shape(*flat, "model.layers.0.adapter_down.bias"), std::vector<int64_t>{16});
  EXPECT_EQ(flat->state().at("prompt_embeddings").sizes().vec(), (std::vector<int64_t>{3, 64}));
  EXPECT_ERROR(make("mam, prefix_projection: True", mam), "holds the keys and values that a projection made");
}

/// Blocks of other forms, embeddings of another width than the blocks.
TEST(Bottlenecks, EveryFamilyTakesThem) {
  for (auto const& name : reference_names())
    for (auto const* args : {"bottleneck, mlp_reduction_factor: 4, inv_adapter: nice", "compacter",
                             "mam, num_virtual_tokens: 3, encoder_hidden_size: 6"}) {
      SCOPED_TRACE(name + ": " + args);
      auto const reference = load_reference(name);
      auto const model = load_model(reference.dir);
      auto const plain = all_logits(*model, reference.rows);
      auto const peft = make_peft(peft_of(std::string("adapter_method: ") + args), *model, 1);
      auto const adapted = all_logits(*model, reference.rows);
      EXPECT_TRUE(adapted.isfinite().all().item<bool>());
      EXPECT_FALSE(at::equal(adapted, plain));
      mean_loss(*model, reference).backward();
      for (auto const& [path, tensor] : peft->state()) EXPECT_TRUE(tensor.grad().defined()) << path;
      peft->detach(*model);
      EXPECT_TRUE(at::equal(all_logits(*model, reference.rows), plain));
    }
}

/// H[(a, p), (b, q)] = Σᵢ ruleᵢ[a, b] leftᵢ[p] rightᵢ[q].
TEST(Hypercomplex, MatrixIsTheSumOfKroneckerProducts) {
  auto const rule = at::randn({2, 2, 2}, at::kDouble);
  auto const left = at::randn({2, 3, 1}, at::kDouble), right = at::randn({2, 1, 2}, at::kDouble);
  auto const matrix = detail::hypercomplex_matrix(rule, left, right);
  ASSERT_EQ(matrix.sizes().vec(), (std::vector<int64_t>{6, 4}));
  for (int64_t row = 0; row < 6; ++row)
    for (int64_t column = 0; column < 4; ++column) {
      double expected = 0;
      for (int64_t i = 0; i < 2; ++i)
        expected += rule[i][row / 3][column / 2].item<double>() * left[i][row % 3][0].item<double>() *
                    right[i][0][column % 2].item<double>();
      EXPECT_NEAR(matrix[row][column].item<double>(), expected, 1e-12);
    }
}

/// Of an odd width too, whose halves are unequal.
TEST(Coupling, AfterUndoesBefore) {
  for (int64_t const width : {8, 7}) {
    int64_t const first = width / 2, second = width - first;
    auto const network = [](int64_t in, int64_t out) {
      detail::SmallNetwork made{detail::Projection::make(in, 5, {}, at::kCPU),
                                detail::Projection::make(5, out, {}, at::kCPU),
                                [](at::Tensor const& x) { return x.relu(); }};
      for (auto const* part : {&made.down, &made.up}) {
        part->weight.set_data(at::randn(part->weight.sizes(), at::kDouble));
        part->bias.set_data(part->bias.to(at::kDouble));
      }
      return made;
    };
    detail::Coupling coupling;
    coupling.f = network(second, first);
    coupling.g = network(first, second);
    auto const x = at::randn({4, width}, at::kDouble);
    auto const y = coupling.before(x, Pass());
    EXPECT_FALSE(tensors_near(y, x, 0.1));
    EXPECT_TRUE(tensors_near(coupling.after(y, Pass()), x, 1e-12));
  }
}

}  // namespace
}  // namespace fsllm::test
