// SPDX-License-Identifier: Apache-2.0
// Damaged shards and checkpoints: named, refused, nothing lost.
#include "damage.hpp"

namespace fsllm::test {
namespace {

class BadShard : public testing::TestWithParam<Damage> {
 protected:
  static void SetUpTestSuite() {
    made_ = std::make_unique<TempDir>();
    prepare(made_->path());
    auto const config = write_config(made_->path(), yaml(made_->path())).string();
    auto const outcome =
        run(made_->path(), 0, {"fsllm_shard", "--cfg", config, "--out", (*made_ / "shards").string()});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  static void TearDownTestSuite() { made_.reset(); }
  static inline std::unique_ptr<TempDir> made_;
};

TEST_P(BadShard, IsNamed) {
  TempDir dir;
  fs::copy(made_->path(), dir.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  ASSERT_NO_FATAL_FAILURE(GetParam().work(dir.path()));
  auto damage = GetParam();
  damage.overrides = {"data.shards", "DIR/shards"};
  expect_refused(damage, dir.path());
}

/// Puts a shard with other fields in the place of client 2's, and its checksum into the index.
std::function<void(fs::path const&)> other_shard(std::function<void(ClientShard&)> const& change) {
  return [=](fs::path const& dir) {
    auto shard = read_shard(shard_path(dir / "shards", 2));
    change(shard);
    auto const sha256 = write_shard(shard_path(dir / "shards", 2), shard);
    auto index = read_shard_index(dir / "shards");
    for (auto& client : index.clients)
      if (client.client_id == 2) {
        client = summarize(shard, sha256);
        client.client_id = 2;
      }
    write_shard_index(dir / "shards", index);
  };
}

std::vector<Damage> shard_damages() {
  auto const index = std::string("shards/index.json"), second = std::string("shards/client_00002.h5");
  return {
      {"truncated",
       [=](fs::path const& d) { fs::resize_file(d / second, 900); },
       "client_00002.h5 (truncated file",
       {},
       2},
      {"absent", [=](fs::path const& d) { fs::remove(d / second); },
       "client_00002.h5 (No such file or directory)"},
      {"no_hdf5", content(second, "no shard"), "client_00002.h5 (file signature not found)"},
      {"bytes_changed",
       text_edit(second, "client_shard", "clientXshard"),
       "client_00002.h5 is not a client shard (its attribute fsllm_format is not 'client_shard')",
       {},
       2},
      {"other_version",
       [=](fs::path const& d) {
         h5::File file(d / second, h5::Mode::create);
         file.set_attribute("/", "fsllm_format", "client_shard");
         file.set_attribute("/", "version", int64_t{99});
         file.close();
       },
       "client_00002.h5 has shard version 99 (this program reads versions 1 and 2). Make the shards again"},
      {"other_tokenizer",
       text_edit("model/tokenizer.json", "\"version\":\"1.0\"", "\"version\":\"2.0\""),
       "was made with another tokenizer (SHA-256 ",
       {},
       2},
      {"token_beyond_vocabulary", other_shard([](ClientShard& s) {
         s.vocab_size = 500;
         s.train.tokens[0] = 400;
       }),
       "token id 400 (the model has 96 tokens)"},
      {"other_client", other_shard([](ClientShard& s) { s.client_id = 7; }),
       "client_00002.h5 is not the shard that index.json lists (it holds client 7;"},
      {"index_missing",
       [=](fs::path const& d) { fs::remove(d / index); },
       "DIR/shards holds no index.json (no folder of shards). Give the folder that fsllm_shard wrote.",
       {},
       2},
      {"index_cut", content(index, "{\"fsllm_format\": \"shard_ind"), "index.json:1"},
      {"index_of_other_version", json_edit(index, [](json& j) { j["version"] = 2; }),
       "is not a shard index of version 1"},
      {"index_without_clients", json_edit(index, [](json& j) { j["clients"] = json::array(); }),
       "lists no client"},
      {"index_checksum", json_edit(index, [](json& j) { j["clients"][1]["sha256"] = std::string(64, '0'); }),
       "client_00002.h5 is not the shard that index.json lists (it holds client 2; its checksum differs). "
       "Make the shards again"},
      {"fewer_clients", json_edit(index, [](json& j) { j["clients"].erase(2); }),
       "federate.client_num = 3 (only 2 client shards"},
  };
}

INSTANTIATE_TEST_SUITE_P(Damaged, BadShard, testing::ValuesIn(shard_damages()),
                         [](auto const& instance) { return instance.param.name; });

/// A run of two rounds made once; each case damages a copy and continues it for two more.
class BadCheckpoint : public testing::TestWithParam<Damage> {
 protected:
  static void SetUpTestSuite() {
    made_ = std::make_unique<TempDir>();
    prepare(made_->path());
    auto const config = write_config(made_->path(), yaml(made_->path())).string();
    auto const outcome =
        run(made_->path(), 0, {"fsllm_hpc", "--cfg", config, "federate.total_round_num", "2"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  static void TearDownTestSuite() { made_.reset(); }
  static inline std::unique_ptr<TempDir> made_;
};

TEST_P(BadCheckpoint, IsNamed) {
  TempDir dir;
  fs::copy(made_->path(), dir.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  ASSERT_NO_FATAL_FAILURE(GetParam().work(dir.path()));
  // The copy's own paths stand for the original's, as on a machine where the run was moved.
  auto const config = write_config(dir.path(), yaml(made_->path())).string();
  std::vector<std::string> words{"fsllm_hpc", "--cfg", config, "outdir", dir.path().string()};
  words.insert(words.end(), GetParam().overrides.begin(), GetParam().overrides.end());
  words.insert(words.end(), {"federate.total_round_num", "4", "--resume"});
  expect_message(run(dir.path(), GetParam().np, words), GetParam().message);
}

std::vector<Damage> checkpoint_damages() {
  auto const each = [](auto const& work) {
    return [=](fs::path const& d) {
      for (auto const& round : fs::directory_iterator(d / "run/checkpoints")) work(round.path());
    };
  };
  return {
      {"all_truncated",
       each([](fs::path const& p) { fs::resize_file(p / "state.h5", 600); }),
       "run/checkpoints can be read (the warnings above name the damage)",
       {},
       2},
      {"manifests_missing", each([](fs::path const& p) { fs::remove(p / "manifest.json"); }),
       "run/checkpoints can be read (the warnings above name the damage)"},
      {"manifests_broken", each([](fs::path const& p) { write(p / "manifest.json", "{"); }),
       "run/checkpoints can be read (the warnings above name the damage)"},
      {"folders_empty", each([](fs::path const& p) {
         fs::remove_all(p);
         fs::create_directory(p);
       }),
       "run/checkpoints can be read (the warnings above name the damage)"},

      {"no_run", [](fs::path const& d) { fs::remove_all(d / "run"); }, "holds no run to continue"},
      {"other_layout",
       keep,
       "--resume with another configuration: llm.adapter.args[0].r (4 before, 8 now)",
       {"llm.adapter.args", "[{r: 8, lora_alpha: 8}]"},
       2},
      {"other_seed", keep, "seed (0 before, 5 now)", {"seed", "5"}},
      {"config_damaged", content("run/config.yaml", "seed: [1\n"),
       "config.yaml of the run directory:2 is not valid YAML"},
  };
}

INSTANTIATE_TEST_SUITE_P(Damaged, BadCheckpoint, testing::ValuesIn(checkpoint_damages()),
                         [](auto const& instance) { return instance.param.name; });

}  // namespace
}  // namespace fsllm::test
