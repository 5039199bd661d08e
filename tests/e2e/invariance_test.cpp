// SPDX-License-Identifier: Apache-2.0
// Bits do not depend on ranks, placement or interruption.
#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>

#include "preference.hpp"

namespace fsllm::test {
namespace {

/// Five clients of unequal size, dropout, sampling of three a round, validation rows.
SmallRun many_clients() {
  SmallRun small;
  small.splits = "[0.8, 0.2, 0.0]";
  small.adapter = "{r: 4, lora_alpha: 8, lora_dropout: 0.2, target_modules: [q_proj, v_proj, o_proj]}";
  small.optimizer = "{type: AdamW, lr: 0.01}";
  small.shuffle = true;
  small.more = "early_stop: {patience: 0}\n";
  return small;
}

struct Result {
  std::string adapter, record;
  bool operator==(Result const&) const = default;
};

/// All files of the adapter folder (one a client under method local), one behind the other.
std::string adapter_files(std::filesystem::path const& dir) {
  std::vector<std::filesystem::path> files;
  for (auto const& entry : std::filesystem::recursive_directory_iterator(dir))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::string bytes;
  for (auto const& file : files) bytes += read_text(file);
  return bytes;
}

Result result_of(std::filesystem::path const& dir) {
  return {adapter_files(dir / "run/adapter"), training_record(dir / "run/metrics.jsonl")};
}

Result train(TempDir const& dir, int np, SmallRun const& small,
             std::vector<std::string> const& overrides = {}) {
  std::vector<std::string> words{"fsllm_hpc", "--cfg",
                                 write_config(dir.path(), small.yaml(dir.path())).string()};
  words.insert(words.end(), overrides.begin(), overrides.end());
  auto const outcome = run(dir.path(), np, words);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  return result_of(dir.path());
}

class RankCounts : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(RankCounts, GiveTheSameBits) {
  TempDir alone;
  auto const expected = train(alone, 0, many_clients(), GetParam());
  ASSERT_FALSE(expected.adapter.empty());
  for (int const np : {2, 3, 4}) {
    TempDir dir;
    auto const actual = train(dir, np, many_clients(), GetParam());
    EXPECT_EQ(actual.adapter == expected.adapter, true) << np << " ranks";
    EXPECT_EQ(actual.record, expected.record) << np << " ranks";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Invariance, RankCounts,
    testing::Values(
        // three clients: uneven on 2 ranks, fewer than 4 ranks
        std::vector<std::string>{},
        // five clients, three of them sampled each round, a server that only serves
        std::vector<std::string>{"federate.client_num", "5", "data.splitter", "iid", "data.splitter_args",
                                 "[]", "data.splits", "[0.6,0.4,0]", "federate.sample_client_num", "3",
                                 "hpc.server_trains", "False"},
        // FedOpt with momentum, accumulation
        std::vector<std::string>{"fedopt.use", "True", "fedopt.optimizer", "{type: Adam, lr: 0.01}",
                                 "grad.grad_accum_count", "2"},
        // rows of similar length, padded in attention, batches made in the background
        std::vector<std::string>{"dataloader.packing", "none", "dataloader.group_by_length", "True",
                                 "dataloader.num_workers", "1"},
        // every client alone
        std::vector<std::string>{"federate.method", "local"},
        // states of clients, two of three sampled
        std::vector<std::string>{"federate.method", "scaffold", "federate.sample_client_num", "2"},
        std::vector<std::string>{"fedprox.use", "True", "fedprox.mu", "0.1"},
        // optimisers that go on, two of three sampled
        std::vector<std::string>{"federate.keep_optimizer", "True", "train.optimizer",
                                 "{type: AdamW, lr: 0.01}", "federate.sample_client_num", "2"},
        // half of each client's parameters its own, a server with Adam's moments
        // fp16 under a loss scale that begins too large, all parameters
        std::vector<std::string>{"train.compute_dtype", "fp16", "train.initial_scale_power", "28",
                                 "federate.keep_optimizer", "True", "train.optimizer",
                                 "{type: AdamW, lr: 0.01}"},
        std::vector<std::string>{"personalization.local_param", "[lora_B]", "fedopt.use", "True",
                                 "fedopt.optimizer", "{type: FedYogi, lr: 0.01}",
                                 "federate.sample_client_num", "2"},
        std::vector<std::string>{"federate.method", "ditto", "federate.sample_client_num", "2"},
        std::vector<std::string>{"federate.method", "fedem", "model.model_num_per_trainer", "2"},
        std::vector<std::string>{"federate.method", "pfedme", "personalization.regular_weight", "5",
                                 "personalization.K", "2", "federate.sample_client_num", "2"},
        // judged after fine-tuning, by a mean of rounds too
        std::vector<std::string>{"fedswa.use", "True", "fedswa.start_rnd", "1", "fedswa.freq", "2",
                                 "finetune.before_eval", "True", "finetune.optimizer.lr", "0.01"},
        // own parameters first, with an optimiser that goes on
        std::vector<std::string>{"federate.method", "fedrep", "personalization.local_param", "[lora_B]",
                                 "personalization.lr_linear", "0.02", "personalization.lr_feature", "0",
                                 "federate.keep_optimizer", "True", "federate.sample_client_num", "2"}));

INSTANTIATE_TEST_SUITE_P(
    Rules, RankCounts,
    testing::Values(
        std::vector<std::string>{"federate.lora_aggregation", "rolora", "fedopt.use", "True",
                                 "fedopt.optimizer", "{type: Adam, lr: 0.01}"},
        std::vector<std::string>{"federate.lora_aggregation", "fedsvd"},
        // settings that the run learns, with states of clients
        std::vector<std::string>{"hpo.fedex.use", "True", "hpo.fedex.ss",
                                 "{train.optimizer.lr: [0.001, 0.01], train.local_update_steps: [1, 3]}",
                                 "federate.method", "scaffold", "train.optimizer.type", "SGD",
                                 "federate.sample_client_num", "2"},
        std::vector<std::string>{"aggregator.robust_rule", "normbounding",
                                 "aggregator.BFT_args.normbounding_norm_bound", "0.01"},
        // messages of all clients on the owners of tensors
        std::vector<std::string>{"aggregator.robust_rule", "krum"},
        // samplers that remember, or look at losses
        std::vector<std::string>{"federate.sampler", "group", "federate.sample_client_num", "2"},
        std::vector<std::string>{"federate.sampler", "responsiveness", "asyn.response_times", "[1, 2, 9]",
                                 "federate.sample_client_num", "2"},
        std::vector<std::string>{"federate.sampler", "power_of_choice", "federate.sample_client_num", "1"},
        // turns that begin with earlier versions, a server with momentum
        std::vector<std::string>{"asyn.use", "True", "asyn.response_times", "[1, 2, 5]",
                                 "asyn.min_received_num", "1", "asyn.staleness_toleration", "-1",
                                 "fedprox.use", "True", "fedprox.mu", "0.1", "fedopt.use", "True",
                                 "fedopt.optimizer", "{type: SGD, lr: 1.0, momentum: 0.5}",
                                 "federate.total_round_num", "6"},
        std::vector<std::string>{"asyn.use", "True", "asyn.response_times", "[1, 2.5, 4]",
                                 "asyn.broadcast_manner", "after_receiving", "asyn.staleness_toleration", "1",
                                 "federate.total_round_num", "6"},
        std::vector<std::string>{"asyn.use", "True", "asyn.response_times", "[1, 2, 2]",
                                 "asyn.staleness_toleration", "-1", "aggregator.robust_rule", "median"},
        std::vector<std::string>{"aggregator.robust_rule", "median"},
        // scalars, from which the server makes the updates anew
        std::vector<std::string>{"train.optimizer", "{type: MeZO, lr: 0.01}", "federate.sample_client_num",
                                 "2", "fedopt.use", "True", "fedopt.optimizer",
                                 "{type: FedAdam, lr: 0.01}"}));

INSTANTIATE_TEST_SUITE_P(
    Factors, RankCounts,
    testing::Values(std::vector<std::string>{"federate.lora_aggregation", "flora"},
                    std::vector<std::string>{"federate.lora_aggregation", "fedex",
                                             "federate.sample_client_num", "2"},
                    std::vector<std::string>{"federate.lora_aggregation", "flexlora", "fedprox.use", "True"},
                    std::vector<std::string>{"federate.lora_aggregation", "hetlora"},
                    std::vector<std::string>{"federate.lora_aggregation", "fedask"},
                    std::vector<std::string>{"federate.lora_aggregation", "frlora"},
                    std::vector<std::string>{"federate.lora_aggregation", "fedsb",
                                             "federate.sample_client_num", "2", "fedopt.use", "True"},
                    std::vector<std::string>{"federate.lora_aggregation", "fedsb", "asyn.use", "True",
                                             "asyn.response_times", "[1, 2, 5]", "asyn.min_received_num", "1",
                                             "asyn.staleness_toleration", "-1"}));

INSTANTIATE_TEST_SUITE_P(
    Pairs, RankCounts,
    testing::Values(on_pairs({"train.loss", "dpo", "federate.sample_client_num", "2"}),
                    // controls, batches of two accumulated and cut into passes of one pair
                    on_pairs({"train.loss", "dpo", "federate.method", "scaffold", "grad.grad_accum_count",
                              "2", "train.micro_batch_size", "1", "grad.grad_clip", "0.1"}),
                    // judged after fine-tuning, padded rows of similar length
                    on_pairs({"train.loss", "reward", "finetune.before_eval", "True", "finetune.optimizer.lr",
                              "0.01", "dataloader.packing", "none", "dataloader.group_by_length", "True"}),
                    // frozen matrices that change
                    on_pairs({"train.loss", "reward", "federate.lora_aggregation", "flora"}),
                    on_pairs({"train.loss", "dpo", "federate.method", "ditto", "federate.sampler",
                              "power_of_choice", "federate.sample_client_num", "2"})));

class AdapterMethods : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(
    Invariance, AdapterMethods,
    testing::Values(
        "adapter_method: prompt, num_virtual_tokens: 4", "adapter_method: prefix, num_virtual_tokens: 4",
        "adapter_method: prefix, num_virtual_tokens: 4, prefix_projection: True",
        "adapter_method: p-tuning, num_virtual_tokens: 4",
        "adapter_method: p-tuning, num_virtual_tokens: 4, encoder_reparameterization_type: LSTM, "
        "encoder_dropout: 0.2",
        "adapter_method: ia3", "adapter_method: bitfit",
        "adapter_method: bottleneck, reduction_factor: 4, adapter_dropout: 0.2",
        "adapter_method: bottleneck, architecture: pfeiffer, reduction_factor: 4",
        "adapter_method: bottleneck, architecture: parallel, adapter_dropout: 0.2",
        "adapter_package: adapterhub, adapter_method: lang",
        "adapter_package: adapterhub, adapter_method: union",
        "adapter_package: adapterhub, adapter_method: compacter",
        "adapter_package: adapterhub, adapter_method: mam, num_virtual_tokens: 4",
        "adapter_method: lora, r: 4, use_dora: True, lora_dropout: 0.2, target_modules: all-linear"));

class Families : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Invariance, Families,
                         testing::Values("qwen3", "opt", "opt_350m", "gpt_neox", "bloom", "gpt_neo", "gptj",
                                         "phi3", "gemma", "gemma2", "falcon"),
                         [](auto const& test) { return test.param; });

TEST_P(Families, SameBitsOnTwoRanks) {
  auto small = many_clients();
  small.model = GetParam();
  small.rounds = 2;
  small.adapter = "{r: 4, lora_alpha: 8, target_modules: all-linear}";
  TempDir one, two;
  auto const expected = train(one, 0, small);
  ASSERT_FALSE(expected.adapter.empty());
  EXPECT_TRUE(train(two, 2, small) == expected);
}

/// GPT-2 as published drops a tenth of its embeddings, residuals and attention weights in training.
TEST(ModelDropout, SameBitsOnTwoRanksOthersThanWithout) {
  TempDir plain, one, two, model;
  auto small = many_clients();
  small.model = "gpt2";
  small.rounds = 2;
  small.adapter = "{r: 4, lora_alpha: 8}";
  auto const without = train(plain, 0, small);
  std::filesystem::copy(reference_dir("gpt2"), model.path());
  auto config = nlohmann::json::parse(read_text(model / "config.json"));
  config.update({{"attn_pdrop", 0.1}, {"embd_pdrop", 0.1}, {"resid_pdrop", 0.1}});
  std::filesystem::permissions(model / "config.json", std::filesystem::perms::owner_write,
                               std::filesystem::perm_options::add);
  std::ofstream(model / "config.json") << config;
  std::vector<std::string> const dropping{"model.type", model.path().string()};
  auto const expected = train(one, 0, small, dropping);
  ASSERT_FALSE(expected.adapter.empty());
  EXPECT_TRUE(train(two, 2, small, dropping) == expected);
  EXPECT_FALSE(without == expected);
}

class StorageTypes : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Invariance, StorageTypes, testing::Values("nf4", "int8", "bf16"),
                         [](auto const& test) { return test.param; });

/// Base weights that are kept in fewer bits: other values, the same bits on two ranks.
TEST_P(StorageTypes, SameBitsOnTwoRanks) {
  TempDir plain, one, two;
  auto const key = std::vector<std::string>{"train.storage_dtype", GetParam()};
  auto const expected = train(one, 0, many_clients(), key);
  ASSERT_FALSE(expected.adapter.empty());
  EXPECT_TRUE(train(two, 2, many_clients(), key) == expected);
  EXPECT_FALSE(train(plain, 0, many_clients()) == expected);
}

/// The merged weights of a quantised run are the quantised ones with the adapter, if the export is told so.
TEST(QuantizedExport, IsTheModelThatWasTrained) {
  TempDir dir;
  train(dir, 0, many_clients(), {"train.storage_dtype", "nf4"});
  auto const model = reference_dir("llama").string(), adapter = (dir / "run/adapter").string();
  for (std::string const storage : {"nf4", "auto"}) {
    auto const outcome = run(dir.path(), 0,
                             {"fsllm_export", "--model", model, "--adapter", adapter, "--to", "merged",
                              "--out", (dir / storage).string(), "--storage_dtype", storage});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  std::ofstream(dir / "requests.jsonl")
      << R"({"id": 1, "type": "loglikelihood", "context_ids": [3, 4, 9], "continuation_ids": [5, 6, 7, 8]})"
      << "\n";
  auto const score = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"fsllm_eval", "--requests", (dir / "requests.jsonl").string(), "--responses",
                                 (dir / "out.jsonl").string(), "--model"});
    auto const outcome = run(dir.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return read_events(dir / "out.jsonl").at(0).at("loglikelihood").get<double>();
  };
  double const trained = score({model, "--adapter", adapter, "--storage_dtype", "nf4"});
  EXPECT_NEAR(score({(dir / "nf4").string()}), trained, 1e-4);
  EXPECT_GT(std::abs(score({(dir / "auto").string()}) - trained), 1e-3);
  EXPECT_NEAR(score({(dir / "auto").string()}), score({model, "--adapter", adapter}), 1e-4);
}

/// Two ranks give the bits of one, and so does a run that goes on from the checkpoint before the last.
TEST_P(AdapterMethods, SameBitsOnTwoRanksAndAfterAResume) {
  auto small = many_clients();
  small.rounds = 2;
  small.adapter = "{" + GetParam() + "}";
  if (GetParam().ends_with("bitfit")) small.model = "gpt2";  // has biases
  TempDir one, two;
  auto const expected = train(one, 0, small);
  ASSERT_FALSE(expected.adapter.empty());
  EXPECT_TRUE(train(two, 2, small) == expected);
  std::filesystem::resize_file(two / "run/checkpoints/round_000002/state.h5", 1000);
  std::filesystem::remove_all(two / "run/adapter");
  auto const outcome = run(two.path(), 0, {"fsllm_hpc", "--resume", (two / "run").string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  EXPECT_TRUE(result_of(two.path()) == expected);
  std::ofstream(two / "requests.jsonl")
      << R"({"id": 1, "type": "loglikelihood", "context_ids": [5, 6, 7], "continuation_ids": [8, 9]})"
      << "\n";
  std::string scores;
  for (auto const* adapter : {"", "--adapter"}) {
    std::vector<std::string> words{"fsllm_eval",
                                   "--model",
                                   reference_dir(small.model).string(),
                                   "--requests",
                                   (two / "requests.jsonl").string(),
                                   "--responses",
                                   (two / "out.jsonl").string()};
    if (*adapter != '\0') words.insert(words.end(), {adapter, (two / "run/adapter").string()});
    auto const scored = run(two.path(), 0, words);
    ASSERT_EQ(scored.exit_code, 0) << scored.err << scored.out;
    EXPECT_NE(read_text(two / "out.jsonl"), scores);
    scores = read_text(two / "out.jsonl");
  }
}

/// Where the adapters of resting clients lie changes no bit, on ranks and after a resume.
TEST(RestingClients, InHostMemoryGiveTheSameBits) {
  auto small = many_clients();
  small.rounds = 2;
  std::vector<std::string> const local{"federate.method", "local"};
  TempDir plain, host;
  auto const expected = train(plain, 0, small, local);
  ASSERT_FALSE(expected.adapter.empty());
  auto moved = local;
  moved.insert(moved.end(), {"llm.adapter.mv_to_cpu", "True"});
  EXPECT_TRUE(train(host, 2, small, moved) == expected);
  std::filesystem::resize_file(host / "run/checkpoints/round_000002/state.h5", 1000);
  std::filesystem::remove_all(host / "run/adapter");
  auto const outcome = run(host.path(), 2, {"fsllm_hpc", "--resume", (host / "run").string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  EXPECT_TRUE(result_of(host.path()) == expected);
}

TEST(Resume, AfterSigkillInMidRoundIsBitwiseTheUninterruptedRun) {
  auto small = many_clients();
  small.rounds = 6;
  small.steps = 40;
  small.more += "fedopt: {use: True, optimizer: {type: SGD, lr: 1.0, momentum: 0.5}}\n";
  TempDir whole;
  auto const expected = train(whole, 2, small);
  for (int const np_after : {2, 3, 0}) {
    TempDir dir;
    auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
    {
      Background running(dir.path(), 2, {"fsllm_hpc", "--cfg", config});
      while (running.running() && !std::filesystem::exists(dir / "run/checkpoints/round_000002"))
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ASSERT_TRUE(running.running()) << "the run ended before it could be killed";
      running.kill_hard();
    }
    ASSERT_FALSE(std::filesystem::exists(dir / "run/adapter")) << "killed too late";
    auto const outcome = run(dir.path(), np_after, {"fsllm_hpc", "--cfg", config, "--resume"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    EXPECT_THAT(outcome.out, testing::HasSubstr("continuing after round"));
    auto const actual = result_of(dir.path());
    EXPECT_TRUE(actual.adapter == expected.adapter) << np_after << " ranks";
    EXPECT_EQ(actual.record, expected.record) << np_after << " ranks";
  }
}

TEST(Resume, SkipsADamagedCheckpoint) {
  auto small = many_clients();
  TempDir dir;
  auto const expected = train(dir, 0, small);
  std::filesystem::resize_file(dir / "run/checkpoints/round_000003/state.h5", 1000);
  std::filesystem::remove_all(dir / "run/adapter");
  auto const outcome = run(dir.path(), 0, {"fsllm_hpc", "--resume", (dir / "run").string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  EXPECT_THAT(outcome.out, testing::HasSubstr("round_000003"));
  EXPECT_EQ(result_of(dir.path()).adapter == expected.adapter, true);
  EXPECT_EQ(result_of(dir.path()).record, expected.record);
}

TEST(Resume, RefusesAnotherConfiguration) {
  TempDir dir;
  train(dir, 0, many_clients());
  auto const outcome =
      run(dir.path(), 0,
          {"fsllm_hpc", "--cfg", (dir / "run.yaml").string(), "--resume", "train.optimizer.lr", "0.5"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, testing::HasSubstr("train.optimizer.lr (0.01 before, 0.5 now)"));
}

}  // namespace
}  // namespace fsllm::test
