// SPDX-License-Identifier: Apache-2.0
// Emulators that are made in other ways than by leaving blocks out.
#include <ATen/ATen.h>

#include "fsllm/io/gguf.hpp"
#include "fsllm/io/safetensors.hpp"
#include "gguf_builder.hpp"
#include "offsite_fixture.hpp"

namespace fsllm::test {
namespace {

class OffsiteStrategies : public Offsite {
 protected:
  /// The emulator has all six blocks.
  static std::vector<std::string> pruning(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"llm.offsite_tuning.strategy", "pruning", "llm.offsite_tuning.kwargs",
                               "[{sparsity: 0.75}]"});
    return more;
  }
  /// Share of the values that are 0, in the matrices of the blocks 1, 2 and 3.
  double zeros_in_the_middle(std::string const& folder) const {
    SafetensorsReader const reader(dir_ / folder);
    double zeros = 0, all = 0;
    for (auto const& name : reader.names()) {
      auto const tensor = reader.tensor(name);
      if (tensor.dim() != 2 || block_of(name) < 1 || block_of(name) > 3) continue;
      zeros += tensor.eq(0).sum().item<double>();
      all += static_cast<double>(tensor.numel());
    }
    return zeros / all;
  }
};

TEST_F(OffsiteStrategies, PruningHasTheSameBitsForAnyNumberOfRanksAndAfterResume) {
  expect_same_bits("full_", pruning(), "/model/model.safetensors");
  expect_same_bits("lora_", pruning(lora()), "/adapter/adapter_model.safetensors");
  EXPECT_DOUBLE_EQ(zeros_in_the_middle("full_2/emulator"), 0.75);
  EXPECT_EQ(load_model_config(dir_ / "full_2/emulator").num_layers, 6);
  EXPECT_EQ(event("full_1", 0).at("val").at("loss_per_token").get<double>(),
            val_loss_of(dir_ / "full_1/emulator", "of_emulator"));
  EXPECT_NE(event("full_1", 0).at("val").at("loss_per_token").get<double>(),
            val_loss_of(model(), "of_model"));
  EXPECT_LT(event("full_1", 3).at("val").at("loss_per_token"),
            event("full_1", 0).at("val").at("loss_per_token"));
  // The middle of the model itself stays as it was.
  SafetensorsReader const before(model()), after(dir_ / "full_1/model");
  for (auto const& name : before.names())
    EXPECT_EQ(at::equal(after.tensor(name), before.tensor(name)),
              !(block_of(name) == 0 || block_of(name) >= 4))
        << name;
}

TEST_F(OffsiteStrategies, PruningGoesWithDroppedBlocksAndAlignment) {
  auto words = align(own_rows());
  words.insert(words.end(), {"llm.offsite_tuning.strategy", "pruning", "llm.offsite_tuning.kwargs",
                             "[{sparsity: 0.5, drop_ratio: 0.4}]"});
  auto const outcome = start("aligned", words, 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  EXPECT_EQ(load_model_config(dir_ / "aligned/emulator").num_layers, 5);
  auto const log = outcome.out.substr(outcome.out.find("distance of hidden states"));
  auto const before = std::stod(log.substr(log.find("states ") + 7));
  EXPECT_LT(std::stod(log.substr(log.find("before, ") + 8)), 0.9 * before) << log.substr(0, 100);
  SafetensorsReader const emulator(dir_ / "aligned/emulator");
  for (auto const& name : emulator.names()) {
    auto const tensor = emulator.tensor(name);
    if (tensor.dim() != 2 || block_of(name) < 1 || block_of(name) > 2) continue;
    auto const zeros = tensor.eq(0).sum(1);
    EXPECT_TRUE(zeros.eq(tensor.size(1) / 2).all().item<bool>()) << name;
  }
  // Every round anew, the blocks that travel are sparse too, and a resumed run goes on with them.
  words = align([&] {
    auto more = own_rows();
    more.insert(more.end(), {"initial_only", "False", "train.local_update_steps", "5"});
    return more;
  }());
  auto const sparse = pruning(words);
  expect_same_bits("every_", sparse, "/model/model.safetensors");
}

/// FS-LLM's name for dropped blocks that are distilled.
TEST_F(OffsiteStrategies, DistillationIsDroppedBlocksWithAlignment) {
  auto words = align(own_rows());
  train("dropped", words);
  words.insert(words.end(), {"llm.offsite_tuning.strategy", "distillation"});
  train("distilled", words, 2);
  EXPECT_EQ(result("dropped/model/model.safetensors") == result("distilled/model/model.safetensors"), true);
}

std::vector<std::string> quantization(std::string const& bits, std::vector<std::string> more = {}) {
  more.insert(more.begin(), {"llm.offsite_tuning.strategy", "quantization", "llm.offsite_tuning.kwargs",
                             "[{bits: " + bits + "}]"});
  return more;
}

TEST_F(OffsiteStrategies, QuantizationHasTheSameBitsForAnyNumberOfRanksAndAfterResume) {
  expect_same_bits("full_", quantization("8"), "/model/model.safetensors");
  expect_same_bits("lora_", quantization("4", lora()), "/adapter/adapter_model.safetensors");
  train("drop", {"llm.offsite_tuning.kwargs", "[{drop_ratio: 0.0}]"});
  auto const size = [&](std::string const& name) {
    return fs::file_size(dir_ / name / "emulator/model.safetensors");
  };
  EXPECT_LT(size("full_1"), size("drop"));
  EXPECT_LT(size("lora_1"), size("drop"));  // each code book is larger than one of these matrices
  for (std::string const name : {"full_1", "lora_1"}) {
    SafetensorsReader const before(model()), emulator(dir_ / name / "emulator");
    for (auto const& tensor : before.names()) {
      bool const packed = block_of(tensor) >= 1 && block_of(tensor) <= 3 && before.shape(tensor).size() == 2;
      EXPECT_EQ(emulator.dtype(tensor), packed ? name == "full_1" ? "I8" : "U8" : before.dtype(tensor));
      EXPECT_TRUE(packed || at::equal(emulator.tensor(tensor), before.tensor(tensor))) << tensor;
    }
    EXPECT_LT(event(name, 3).at("val").at("loss_per_token"), event(name, 0).at("val").at("loss_per_token"));
  }
  // The folder is a model that fsllm_eval scores as the run did.
  std::ofstream(dir_ / "in.jsonl")
      << R"({"id": 1, "type": "loglikelihood_rolling", "ids": [3, 4, 5, 6, 7, 8]})"
      << "\n";
  std::map<std::string, double> scores;
  for (std::string const name : {"full_1", "lora_1", "drop"}) {
    auto const scored = run(dir_.path(), 0,
                            {"fsllm_eval", "--model", (dir_ / name / "emulator").string(), "--requests",
                             (dir_ / "in.jsonl").string(), "--responses", (dir_ / "out.jsonl").string()});
    ASSERT_EQ(scored.exit_code, 0) << scored.err << scored.out;
    scores[name] = json::parse(read_text(dir_ / "out.jsonl")).at("loglikelihood");
  }
  for (auto const* name : {"full_1", "lora_1"}) {
    EXPECT_NE(scores.at(name), scores.at("drop"));
    EXPECT_NEAR(scores.at(name), scores.at("drop"), 0.2 * std::abs(scores.at("drop")));
  }
}

/// A folder with packed matrices is a model for adapters, in any number of ranks.
TEST_F(OffsiteStrategies, PackedModelsTakeAdapters) {
  train("made", quantization("4", {"federate.total_round_num", "1"}));
  auto const packed = (dir_ / "made/emulator").string();
  auto const on_it = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"model.type", packed, "llm.offsite_tuning.use", "False"});
    return more;
  };
  expect_same_bits("lora_", on_it(lora()), "/adapter/adapter_model.safetensors");
  EXPECT_LT(event("lora_1", 3).at("val").at("loss_per_token"),
            event("lora_1", 0).at("val").at("loss_per_token"));
  expect_message(start("full", on_it({}), 2), "its files are quantised");
  train("dequantised", on_it({"train.storage_dtype", "fp32", "federate.total_round_num", "1"}));
  expect_message(start("again", {"model.type", packed}, 2), "could not be put back into them");
}

TEST_F(OffsiteStrategies, QuantizationComesAfterAlignment) {
  auto words = quantization("8", align(own_rows()));
  words.insert(words.begin() + 3, "[{bits: 8, drop_ratio: 0.4}]");
  words.erase(words.begin() + 4);
  auto const outcome = start("aligned", words, 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  auto dropped = align(own_rows());
  train("dropped", dropped);
  SafetensorsReader const packed(dir_ / "aligned/emulator"), plain(dir_ / "dropped/emulator");
  for (auto const& name : plain.names()) {
    if (packed.dtype(name) != "I8") continue;
    auto const module = name.substr(0, name.rfind(".weight"));
    auto const values =
        packed.tensor(name).to(at::kFloat).mul(packed.tensor(module + ".SCB").div(127).unsqueeze(1));
    auto const error = values.sub(plain.tensor(name)).abs().amax(1);
    EXPECT_TRUE(error.le(packed.tensor(module + ".SCB").mul(0.51 / 127)).all().item<bool>()) << name;
  }
}

/// The llama fixture's GGUF file with the blocks 0, 1, 0, 1, 0, 1; where its tensors begin.
size_t make_deep_gguf(fs::path const& out) {
  auto const source = source_file("tests/reference/gguf/llama.gguf");
  GgufReader const reader(source);
  auto const raw = read_text(source);
  std::vector<std::tuple<std::string, GgufTensor, std::string>> tensors;
  size_t infos = raw.size();
  for (auto const& [name, tensor] : reader.tensors()) {
    infos = std::min(infos, raw.find(GgufBuilder().text(name).bytes()));
    auto const block = block_of(name);
    auto const bytes = raw.substr(static_cast<size_t>(tensor.begin), static_cast<size_t>(tensor.bytes));
    for (int64_t place = std::max<int64_t>(block, 0); place < 6; place += block < 0 ? 6 : 2)
      tensors.emplace_back(with_block(name, place), tensor, bytes);
  }
  auto head = raw.substr(24, infos - 24);
  auto const count = head.find("llama.block_count") + std::string("llama.block_count").size() + 4;
  head[count] = 6;
  uint64_t keys = 0;
  std::memcpy(&keys, raw.data() + 16, sizeof keys);
  GgufBuilder file;
  file.header(tensors.size(), keys);
  auto bytes = file.bytes() + head;
  GgufBuilder table;
  uint64_t offset = 0;
  std::string data;
  for (auto const& [name, tensor, values] : tensors) {
    std::vector<uint64_t> const shape(tensor.shape.rbegin(), tensor.shape.rend());
    table.tensor(name, shape, /*F32*/ 0, offset);
    data += values;
    data.resize((data.size() + 31) / 32 * 32);
    offset = data.size();
  }
  bytes += table.bytes();
  bytes.resize((bytes.size() + 31) / 32 * 32);
  write(out, bytes + data);
  return bytes.size();
}

/// The rank of the clients has a file whose tensors are all NaN: it reads its head, and no tensor.
TEST_F(OffsiteStrategies, OfAGgufModelTheTensorsStayAtRankZero) {
  for (auto const* rank : {"server", "client"}) fs::create_directories(dir_ / rank);
  auto const begin = make_deep_gguf(dir_ / "server/deep.gguf");
  auto damaged = read_text(dir_ / "server/deep.gguf");
  std::fill(damaged.begin() + static_cast<std::ptrdiff_t>(begin), damaged.end(), '\xff');
  write(dir_ / "client/deep.gguf", damaged);
  for (bool const adapter : {false, true}) {
    SCOPED_TRACE(adapter);
    std::string const tag = adapter ? "lora" : "full",
                      file = adapter ? "/adapter/adapter_model.safetensors" : "/model/model.safetensors";
    auto const how = adapter ? lora() : std::vector<std::string>{};
    std::vector<std::string> words{"fsllm_hpc", "--cfg",
                                   config(),    "model.type",
                                   "deep.gguf", "expname",
                                   tag,         "llm.offsite_tuning.eval_type",
                                   "full",      "hpc.server_trains",
                                   "False"};
    words.insert(words.end(), how.begin(), how.end());
    auto const outcome = run_apart(dir_.path(), {dir_ / "server", dir_ / "client"}, words);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    train(tag + "_folder", how);  // the same weights as a Hugging Face folder
    auto const made = SafetensorsReader(dir_ / (tag + file)).tensors(),
               expected = SafetensorsReader(dir_ / (tag + "_folder" + file)).tensors();
    ASSERT_EQ(made.size(), expected.size());
    for (auto const& [name, tensor] : expected) EXPECT_TRUE(at::equal(made.at(name), tensor)) << name;
  }
  // The whole file at the client's rank would have been noticed.
  EXPECT_EQ(run(dir_.path(), 0,
                {"fsllm_hpc", "--cfg", config(), "model.type", (dir_ / "client/deep.gguf").string(),
                 "expname", "nan"})
                .exit_code,
            2);
  EXPECT_DOUBLE_EQ(event("full", 3).at("val").at("loss_per_token").get<double>(),
                   val_loss_of(dir_ / "full/model", "of_plugged"));
  auto const merged =
      run(dir_.path(), 0,
          {"fsllm_export", "--model", (dir_ / "server/deep.gguf").string(), "--adapter",
           (dir_ / "lora/adapter").string(), "--to", "merged", "--out", (dir_ / "merged").string()});
  ASSERT_EQ(merged.exit_code, 0) << merged.err << merged.out;
  EXPECT_NEAR(event("lora", 3).at("val").at("loss_per_token").get<double>(),
              val_loss_of(dir_ / "merged", "of_merged"), 1e-4);
}

}  // namespace
}  // namespace fsllm::test
