// SPDX-License-Identifier: Apache-2.0
// Offsite tuning: clients train the outer blocks of an emulator, the model stays at rank 0.
#include <ATen/ATen.h>

#include "bad_input.hpp"
#include "fsllm/io/safetensors.hpp"
#include "offsite_fixture.hpp"

namespace fsllm::test {
namespace {

TEST_F(Offsite, TrainsTheOuterBlocksOfTheModelAlone) {
  train("one");
  SafetensorsReader const before(model()), after(dir_ / "one/model"), emulator(dir_ / "one/emulator");
  ASSERT_EQ(after.names(), before.names());
  int64_t trained = 0;
  for (auto const& name : before.names()) {
    auto const block = block_of(name);
    bool const same = at::equal(after.tensor(name), before.tensor(name));
    EXPECT_EQ(same, !(block == 0 || block == 4 || block == 5)) << name;
    EXPECT_EQ(after.dtype(name), same ? before.dtype(name) : "F32");
    if (!same) trained += before.tensor(name).numel();
  }
  for (auto const& name : emulator.names()) {
    auto const block = block_of(name);
    auto const source = block < 2 ? name : with_block(name, block + 1);
    EXPECT_TRUE(at::equal(emulator.tensor(name), before.tensor(source))) << name;
  }
  auto const round = event("one", 1);
  EXPECT_EQ(round.at("judged"), "emulator");
  EXPECT_LT(round.at("val").at("loss_per_token"), event("one", 0).at("val").at("loss_per_token"));
  // Of each rank the 64-bit sums of the trained values, a few bytes beside, and nothing of the rest.
  train("two", {}, 2);
  auto const bytes = event("two", 1).at("bytes_up").get<int64_t>();
  EXPECT_GE(bytes, 2 * 8 * trained);
  EXPECT_LT(bytes, 2 * 8 * trained + 4096);
}

TEST_F(Offsite, HasTheSameBitsForAnyNumberOfRanksAndAfterResume) {
  expect_same_bits("full_", {}, "/model/model.safetensors");
  expect_same_bits("lora_", lora(), "/adapter/adapter_model.safetensors");
}

TEST_F(Offsite, MakesAnAdapterOfTheFullModel) {
  train("adapter", lora(), 2);
  auto const said = json::parse(result("adapter/adapter/adapter_config.json"));
  EXPECT_EQ(said.at("layers_to_transform"), (json{0, 4, 5}));
  EXPECT_EQ(said.at("base_model_name_or_path"), fs::canonical(model()).filename().string());
  std::set<int64_t> blocks;
  SafetensorsReader const tensors(dir_ / "adapter/adapter", "adapter_model");
  for (auto const& name : tensors.names()) blocks.insert(block_of(name));
  EXPECT_EQ(blocks, (std::set<int64_t>{0, 4, 5}));
  // It goes on as an adapter of the full model in a run of another kind, and judges the same.
  train(
      "full",
      [&] {
        auto words = lora();
        words.insert(words.end(), {"llm.offsite_tuning.eval_type", "full"});
        return words;
      }(),
      2);
  EXPECT_EQ(
      result("full/adapter/adapter_model.safetensors") == result("adapter/adapter/adapter_model.safetensors"),
      true);
  EXPECT_EQ(event("full", 3).at("judged"), "full model");
  train("plain",
        {"llm.offsite_tuning.use", "False", "llm.adapter.use", "True", "llm.adapter.args", "[]",
         "llm.adapter.init_from", (dir_ / "full/adapter").string(), "federate.total_round_num", "1"});
  EXPECT_DOUBLE_EQ(event("plain", 0).at("val").at("loss_per_token").get<double>(),
                   event("full", 3).at("val").at("loss_per_token").get<double>());
}

TEST_F(Offsite, JudgesWhatItSays) {
  train("emulator", {}, 2);
  train("full", {"llm.offsite_tuning.eval_type", "full"}, 2);
  EXPECT_EQ(result("full/model/model.safetensors") == result("emulator/model/model.safetensors"), true);
  auto const loss = [&](std::string const& name, size_t number) {
    return event(name, number).at("val").at("loss_per_token").get<double>();
  };
  EXPECT_NE(loss("full", 0), loss("emulator", 0));
  EXPECT_DOUBLE_EQ(loss("emulator", 0), val_loss_of(dir_ / "emulator/emulator", "of_emulator"));
  EXPECT_DOUBLE_EQ(loss("full", 0), val_loss_of(model(), "of_model"));
  EXPECT_DOUBLE_EQ(loss("full", 3), val_loss_of(dir_ / "full/model", "of_plugged"));
}

/// The rank of the client runs in a folder whose model has no weights.
TEST_F(Offsite, TheWeightsOfTheModelStayAtRankZero) {
  for (auto const* rank : {"server", "client/model"}) fs::create_directories(dir_ / rank);
  fs::copy(model(), dir_ / "server/model");
  fs::copy_file(model() / "config.json", dir_ / "client/model/config.json");
  auto const outcome = run_apart(dir_.path(), {dir_ / "server", dir_ / "client"},
                                 {"fsllm_hpc", "--cfg", config(), "model.type", "model", "expname", "apart",
                                  "llm.offsite_tuning.eval_type", "full", "hpc.server_trains", "False"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  train("together", {}, 2);
  EXPECT_EQ(result("apart/model/model.safetensors") == result("together/model/model.safetensors"), true);
}

TEST_F(Offsite, TrainsEmbeddingsAndHeadAsFsLlmDoes) {
  train("compat", {"compat.fsllm", "True"});
  SafetensorsReader const before(model()), after(dir_ / "compat/model");
  for (auto const& name : before.names()) {
    auto const block = block_of(name);
    EXPECT_EQ(at::equal(after.tensor(name), before.tensor(name)), block >= 1 && block < 4) << name;
  }
}

/// Families whose blocks, windows or names are not LLaMA's; all of them stand in tests/offsite.
class OffsiteFamilies : public Offsite, public testing::WithParamInterface<std::string> {};

TEST_P(OffsiteFamilies, PlugWhatTheyTrainedIntoTheirModel) {
  make_model(GetParam());
  train("run", {"federate.total_round_num", "1", "llm.offsite_tuning.eval_type", "full"}, 2);
  EXPECT_NE(event("run", 1).at("val").at("loss_per_token"), event("run", 0).at("val").at("loss_per_token"));
  EXPECT_DOUBLE_EQ(event("run", 1).at("val").at("loss_per_token").get<double>(),
                   val_loss_of(dir_ / "run/model", "plugged"));
}

INSTANTIATE_TEST_SUITE_P(Fixtures, OffsiteFamilies,
                         testing::Values("gpt2", "gpt_neo", "gemma2", "phi3", "bloom", "falcon"));

using OffsiteAlignment = Offsite;

TEST_F(OffsiteAlignment, BringsTheMiddleBlocksNearToTheModel) {
  train("plain");
  auto words = align(own_rows());
  auto const outcome = start("aligned", words, 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  auto const log = outcome.out.substr(outcome.out.find("distance of hidden states"));
  auto const before = std::stod(log.substr(log.find("states ") + 7));
  auto const after = std::stod(log.substr(log.find("before, ") + 8));
  EXPECT_GT(before, 0);
  EXPECT_LT(after, 0.9 * before) << log.substr(0, 100);
  SafetensorsReader const plain(dir_ / "plain/emulator"), aligned(dir_ / "aligned/emulator"), full(model()),
      plugged(dir_ / "aligned/model");
  for (auto const& name : plain.names()) {
    auto const place = block_of(name);
    EXPECT_EQ(at::equal(plain.tensor(name), aligned.tensor(name)), !(place == 1 || place == 2)) << name;
  }
  for (auto const& name : full.names()) {  // the model does not get the emulator's blocks
    bool const outer = block_of(name) == 0 || block_of(name) >= 4;
    EXPECT_EQ(at::equal(full.tensor(name), plugged.tensor(name)), !outer) << name;
  }
  train("again", words, 3);
  for (auto const* file : {"/emulator/model.safetensors", "/model/model.safetensors"})
    EXPECT_EQ(result(std::string("aligned") + file) == result(std::string("again") + file), true) << file;
}

TEST_F(OffsiteAlignment, KeepsItsBlocksForOtherRuns) {
  auto const file = (dir_ / "aligned.safetensors").string();
  auto words = align(own_rows());
  auto const keep = align({"save_to", file, "restore_from", file, "exit_after_align", "True"});
  words.insert(words.end(), keep.end() - 6, keep.end());
  train("first", words);
  EXPECT_FALSE(fs::exists(dir_ / "first/metrics.jsonl"));
  auto const made = read_text(file);
  auto const outcome = start("second", words);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, testing::HasSubstr("middle blocks are those of " + file));
  EXPECT_EQ(result("first/emulator/model.safetensors") == result("second/emulator/model.safetensors"), true);
  EXPECT_EQ(read_text(file) == made, true);
  // The first run goes on to its rounds, as the second would.
  for (auto const* name : {"first", "second"}) {
    auto const resumed = run(dir_.path(), 2,
                             {"fsllm_hpc", "--resume", (dir_ / name).string(),
                              "llm.offsite_tuning.emu_align.exit_after_align", "False"});
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err << resumed.out;
  }
  EXPECT_EQ(result("first/model/model.safetensors") == result("second/model/model.safetensors"), true);
  auto const other = align({"restore_from", file});
  auto wrong = other;
  wrong.insert(wrong.end(), {"llm.offsite_tuning.kwargs", "[{drop_ratio: 0.0}]"});
  expect_message(start("wrong", wrong), file + " holds no model.layers.2.");
  expect_message(start("there", align({"save_to", file})), "is there already, and is not replaced");
}

TEST_F(OffsiteAlignment, TakesTheRowsThatTheSplitHoldsBack) {
  auto const outcome = start("held", align(), 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  EXPECT_THAT(outcome.out, testing::HasSubstr("rows of the run's validation data"));
  auto words = align();
  words.insert(words.end(), {"data.splits", "[1.0, 0.0, 0.0]"});
  expect_message(start("none", words, 2), "Name a data set of the server's own");
  expect_message(start("diverges", align({"train.optimizer", "{type: SGD, lr: 1e30}"})), "Lower");
}

/// FedBiOT: the emulator is distilled again after every round, for the blocks as they are then.
TEST_F(OffsiteAlignment, EveryRoundHasTheSameBits) {
  for (bool const adapter : {false, true}) {
    SCOPED_TRACE(adapter);
    auto more = own_rows();
    more.insert(more.end(),
                {"initial_only", "False", "train.local_update_steps", "5", "train.kl_loss_weight", "0.5"});
    auto words = align(more);
    auto const how = adapter ? lora() : std::vector<std::string>{};
    words.insert(words.end(), how.begin(), how.end());
    std::string const tag = adapter ? "lora" : "full",
                      file = adapter ? "/adapter/adapter_model.safetensors" : "/model/model.safetensors";
    train(tag, words);
    EXPECT_LT(event(tag, 3).at("emulator_distance"), event(tag, 1).at("emulator_distance"));
    train(tag + "3", words, 3);
    auto short_run = words;
    short_run.insert(short_run.end(), {"federate.total_round_num", "2"});
    train(tag + "2", short_run, 2);
    auto const resumed =
        run(dir_.path(), 0,
            {"fsllm_hpc", "--resume", (dir_ / (tag + "2")).string(), "federate.total_round_num", "3"});
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err << resumed.out;
    for (auto const* other : {"3", "2"}) {
      EXPECT_EQ(result(tag + other + file) == result(tag + file), true) << other;
      EXPECT_EQ(training_record(dir_ / (tag + other) / "metrics.jsonl"),
                training_record(dir_ / tag / "metrics.jsonl"));
    }
    auto once = words;
    once.insert(once.end(), {"llm.offsite_tuning.emu_align.initial_only", "True"});
    train(tag + "once", once);
    EXPECT_EQ(result(tag + "once" + file) == result(tag + file), false);
  }
}

/// What clients hold may be quantised; updates may come when they come.
TEST_F(Offsite, GoesWithQuantisedEmulatorsAndAsynchronousRounds) {
  auto words = lora();
  words.insert(words.end(), {"train.storage_dtype", "nf4", "llm.offsite_tuning.eval_type", "full", "asyn.use",
                             "True", "asyn.min_received_num", "2"});
  train("one", words);
  train("two", words, 2);
  EXPECT_EQ(
      result("one/adapter/adapter_model.safetensors") == result("two/adapter/adapter_model.safetensors"),
      true);
  EXPECT_LT(event("one", 3).at("val").at("loss_per_token"), event("one", 0).at("val").at("loss_per_token"));
}

TEST_F(Offsite, RefusesWhatItCannotDo) {
  struct Mistake {
    std::vector<std::string> words;
    std::string said;
    int np = 0;
  };
  std::string const offsite = "llm.offsite_tuning.";
  for (auto const& mistake : std::vector<Mistake>{
           {{offsite + "emu_l", "4"}, "emu_l = 4, emu_r = 4", 2},
           {{offsite + "kwargs", "[{drop_ratio: 1.0}]"}, "drop_ratio"},
           {{offsite + "kwargs", "[{drop_ratio: 0.9}]"}, "none is left"},
           {{offsite + "kwargs", "[{}, {}]"}, "kwargs"},
           {{offsite + "strategy", "prune"}, "strategy"},
           {{offsite + "strategy", "pruning", offsite + "kwargs", "[{sparsity: 1.0}]"}, "must be in [0, 1)"},
           {{offsite + "strategy", "pruning", offsite + "kwargs", "[{sparsity: -0.5}]"}, "must be in [0, 1)"},
           {{offsite + "kwargs", "[{sparsity: 0.5}]"}, "strategy is drop_layer, which prunes nothing"},
           {{offsite + "strategy", "quantization", offsite + "kwargs", "[{bits: 2}]"}, "in 8 or 4 bits"},
           {{offsite + "kwargs", "[{bits: 4}]"}, "strategy is drop_layer, which quantises nothing"},
           {{offsite + "strategy", "quantization", offsite + "emu_align.use", "True",
             offsite + "emu_align.initial_only", "False"},
            "strategy = quantization and emu_align.initial_only = False"},
           {{offsite + "strategy", "distillation"}, "emu_align.use is False: nothing would be distilled"},
           {{offsite + "eval_type", "both"}, "eval_type"},
           {{"hpc.ranks_per_client", "2"}, "hpc.ranks_per_client = 2", 2},
           {{"llm.adapter.use", "True", "llm.adapter.args", "[{adapter_method: prefix}]"},
            "adapter_method = prefix"},
           {{"llm.adapter.use", "True", "llm.adapter.args", "[{layers_to_transform: [1]}]"}, "names block 1"},
           {{"llm.adapter.use", "True", "federate.lora_aggregation", "flora"}, "federate.lora_aggregation"},
           {{"federate.method", "local", offsite + "eval_type", "full"},
            "judges clients by models of their own"},
           {{offsite + "use", "False", offsite + "emu_align.use", "True"}, "emu_align.use"},
       })
    expect_message(start("refused", mistake.words, mistake.np), mistake.said);
}

}  // namespace
}  // namespace fsllm::test
