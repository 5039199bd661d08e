// SPDX-License-Identifier: Apache-2.0
// train.frozen_activations_mb through the program, on real rows.
#include <fmt/core.h>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

class FrozenRows : public testing::Test {
 protected:
  Outcome train(std::string const& name, Words const& more, int np = 2) {
    auto const config = write_config(
        dir_.path(), stories_on_gsm8k(dir_.path(), 120, 4,
                                      "seed: 1\nfederate: {client_num: 3, total_round_num: 3}\n"
                                      "train: {local_update_steps: 4, optimizer: {type: SGD, lr: 0.1}}\n"));
    Words words{"fsllm_hpc", "--cfg", config.string(), "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  std::string bytes(std::string const& name) {
    return read_text(dir_ / name / "adapter/adapter_model.safetensors");
  }
  TempDir dir_;
  Words const upper_{"llm.adapter.args[0].layers_to_transform", "[3, 4]", "llm.adapter.args[0].lora_dropout",
                     "0.1"};
};

/// The losses of a run that computes all blocks each time, in the same bits on any number of ranks, within
/// any limit, and over a resume.
TEST_F(FrozenRows, TrainTheSameAdapter) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  auto const kept_with = [&](char const* mb) {
    auto words = upper_;
    words.insert(words.end(), {"train.frozen_activations_mb", mb});
    return words;
  };
  auto const plain = train("plain", upper_), kept = train("kept", kept_with("64"));
  ASSERT_EQ(plain.exit_code, 0) << plain.err << plain.out;
  ASSERT_EQ(kept.exit_code, 0) << kept.err << kept.out;
  auto const events = read_events(dir_ / "plain/metrics.jsonl"),
             same = read_events(dir_ / "kept/metrics.jsonl");
  ASSERT_EQ(events.size(), same.size());
  for (size_t i = 0; i < events.size(); ++i)
    for (auto const* part : {"val", "train"}) {
      if (!events[i].contains(part)) continue;
      double const loss = events[i].at(part).at("loss_per_token");
      EXPECT_NEAR(same[i].at(part).at("loss_per_token").get<double>(), loss, 1e-5 * loss) << i << part;
    }
  for (int const np : {0, 3}) {
    auto const name = fmt::format("np{}", np);
    ASSERT_EQ(train(name, kept_with("1"), np).exit_code, 0);
    EXPECT_TRUE(bytes(name) == bytes("kept")) << np << " ranks, and little room";
  }
  ASSERT_EQ(train("cut", kept_with("64")).exit_code, 0);
  fs::remove_all(dir_ / "cut/checkpoints/round_000003");
  fs::remove_all(dir_ / "cut/adapter");
  auto const resumed = run(dir_.path(), 3, {"fsllm_hpc", "--resume", (dir_ / "cut").string()});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err << resumed.out;
  EXPECT_TRUE(bytes("cut") == bytes("kept"));
}

TEST_F(FrozenRows, AreRefusedWhereNothingStaysTheSame) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  auto const expect_message = [&](Words more, std::string const& message) {
    more.insert(more.end(), {"train.frozen_activations_mb", "64"});
    auto const outcome = train("bad", more);
    EXPECT_EQ(outcome.exit_code, 2) << message;
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
    EXPECT_THAT(outcome.err, testing::HasSubstr("train.frozen_activations_mb"));
  };
  expect_message({}, "no block lies below what learns");
  auto shared = upper_;
  shared[3] = "0";
  shared.insert(shared.end(), {"dataloader.packing", "shared_prefix"});
  expect_message(shared, "dataloader.packing = shared_prefix");
}

}  // namespace
}  // namespace fsllm::test
