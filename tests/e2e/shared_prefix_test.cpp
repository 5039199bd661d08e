// SPDX-License-Identifier: Apache-2.0
// dataloader.packing: shared_prefix through the program, on real rows behind a real template.
#include <fmt/core.h>

#include <fstream>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

class SharedPrefix : public testing::Test {
 protected:
  Outcome train(std::string const& name, std::vector<std::string> const& more, int np = 2) {
    auto const config = write_config(
        dir_.path(), stories_on_gsm8k(dir_.path(), 400, 4,
                                      "seed: 1\nfederate: {client_num: 3, total_round_num: 2}\n"
                                      "train: {local_update_steps: 3, optimizer: {type: SGD, lr: 0.1}}\n"));
    std::vector<std::string> words{"fsllm_hpc", "--cfg", config.string(), "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  void expect_trained(std::string const& name, std::vector<std::string> const& more, int np = 2) {
    auto const outcome = train(name, more, np);
    ASSERT_EQ(outcome.exit_code, 0) << name << outcome.err << outcome.out;
  }
  TensorMap adapter(std::string const& name) {
    return SafetensorsReader(dir_ / name / "adapter", "adapter_model").tensors();
  }
  std::string bytes(std::string const& name) {
    return read_text(dir_ / name / "adapter/adapter_model.safetensors");
  }
  TempDir dir_;
};

/// The adapter of a run that computes the template of all rows again for each, in exact sums on any number of
/// ranks, recomputing or not.
TEST_F(SharedPrefix, TrainsTheSameAdapter) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  std::vector<std::string> const sharing{"dataloader.packing", "shared_prefix"};
  expect_trained("pack", {});
  expect_trained("shared", sharing);
  auto const expected = adapter("pack"), got = adapter("shared");
  ASSERT_EQ(got.size(), expected.size());
  double way = 0, off = 0;
  for (auto const& [name, tensor] : expected) {
    if (name.find("lora_B") == std::string::npos) continue;  // which begins with zeros
    way = std::max(way, tensor.to(at::kDouble).norm().item<double>());
    off = std::max(off, tensor.to(at::kDouble).sub(got.at(name).to(at::kDouble)).norm().item<double>());
  }
  EXPECT_GT(way, 0);
  EXPECT_LE(off, 1e-4 * way);
  auto const events = read_events(dir_ / "pack/metrics.jsonl"),
             same = read_events(dir_ / "shared/metrics.jsonl");
  for (size_t i = 0; i < events.size(); ++i) {
    auto const loss = [&](auto const& event) {
      return event.at("val").at("loss_per_token").template get<double>();
    };
    EXPECT_NEAR(loss(same[i]), loss(events[i]), 1e-5 * loss(events[i])) << i;
    if (!events[i].contains("train")) continue;
    EXPECT_EQ(same[i].at("train").at("tokens"), events[i].at("train").at("tokens"))
        << "the tokens of rows, however they are computed";
  }
  for (int const np : {0, 3}) {
    expect_trained(fmt::format("np{}", np), sharing, np);
    EXPECT_TRUE(bytes(fmt::format("np{}", np)) == bytes("shared")) << np;
  }
  for (auto const* checkpointing : {"block", "selective"}) {
    auto more = sharing;
    more.insert(more.end(), {"train.activation_checkpointing", checkpointing});
    expect_trained(checkpointing, more);
    EXPECT_TRUE(bytes(checkpointing) == bytes("shared")) << checkpointing;
  }
}

TEST_F(SharedPrefix, IsRefusedWhereRowsDifferInIt) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  auto const expect_message = [&](std::vector<std::string> more, std::string const& message) {
    more.insert(more.end(), {"dataloader.packing", "shared_prefix", "--check"});
    auto const outcome = train("bad", more);
    EXPECT_EQ(outcome.exit_code, 2) << message;
    EXPECT_THAT(outcome.err, testing::HasSubstr("dataloader.packing = shared_prefix with " + message));
  };
  expect_message({"llm.adapter.args[0].lora_dropout", "0.05"},
                 "dropout (each row would drop values of its own");
  expect_message({"llm.adapter.args", "[{adapter_method: prompt, num_virtual_tokens: 5}]"},
                 "5 virtual tokens");
  expect_message({"hpc.clients_per_pass", "2"}, "hpc.clients_per_pass");
}

}  // namespace
}  // namespace fsllm::test
