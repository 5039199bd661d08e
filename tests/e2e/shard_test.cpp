// SPDX-License-Identifier: Apache-2.0
// fsllm_shard on real Dolly rows: the same bytes on any number of ranks, going on after a failure, the
// preview.
#include <fstream>

#include "fsllm/io/files.hpp"
#include "process.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

class ShardDolly : public testing::Test {
 protected:
  void SetUp() override {
    FSLLM_NEED_TEST_DATA("datasets/dolly15k-fed10/local_training_0.json.gz");
    fs::copy_file(test_data("datasets/dolly15k-fed10/local_training_0.json.gz"),
                  dir_ / "databricks-dolly-15k.jsonl.gz");
    config_ = write_config(dir_.path(), "outdir: " + dir_.path().string() +
                                            "\nmodel: {type: " + test_data("models/stories260K").string() +
                                            "}\ndata: {root: " + dir_.path().string() +
                                            ", type: dolly-15k@llm, splitter: lda, splits: [0.8, 0.1, 0.1]}\n"
                                            "federate: {client_num: 5}\nllm: {tok_len: 400}\n")
                  .string();
  }
  Outcome shard(int ranks, std::string const& out, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"fsllm_shard", "--cfg", config_, "--out", (dir_ / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(dir_.path(), ranks, arguments);
  }
  /// Name and SHA-256 of each file.
  std::map<std::string, std::string> files(std::string const& out) { return file_checksums(dir_ / out); }
  TempDir dir_;
  std::string config_;
};

TEST_F(ShardDolly, GivesTheSameBytesOnAnyNumberOfRanks) {
  for (int const ranks : {0, 1, 2, 3, 4}) {
    auto const outcome = shard(ranks, "out" + std::to_string(ranks));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    EXPECT_THAT(outcome.out, testing::HasSubstr("categories of a client against all: total variation 0."));
  }
  auto const expected = files("out0");
  for (auto const* name :
       {"client_00001.h5", "client_00005.h5", "server.h5", "index.json", "report.txt", "report.svg"})
    EXPECT_TRUE(expected.contains(name)) << name;
  EXPECT_EQ(expected.size(), 9U);
  for (int const ranks : {1, 2, 3, 4}) EXPECT_EQ(files("out" + std::to_string(ranks)), expected) << ranks;
}

TEST_F(ShardDolly, GoesOnWhereItFailed) {
  ASSERT_EQ(shard(1, "whole").exit_code, 0);
  fs::create_directories(dir_ / "out/client_00003.h5/in the way");
  auto const failed = shard(1, "out");
  EXPECT_EQ(failed.exit_code, 2);
  EXPECT_THAT(failed.err + failed.out, testing::HasSubstr("client_00003.h5"));
  EXPECT_FALSE(fs::exists(dir_ / "out/index.json"));
  fs::remove_all(dir_ / "out/client_00003.h5");
  auto const again = shard(2, "out");
  ASSERT_EQ(again.exit_code, 0) << again.err << again.out;
  EXPECT_THAT(again.out, testing::HasSubstr("shards of an earlier call are kept"));
  EXPECT_EQ(files("out"), files("whole"));
}

TEST_F(ShardDolly, AnotherJobDoesNotGoOnWithTheShardsOfThis) {
  ASSERT_EQ(shard(1, "whole", {"--set", "seed=7"}).exit_code, 0);
  fs::create_directories(dir_ / "out/client_00003.h5/in the way");
  EXPECT_EQ(shard(1, "out").exit_code, 2);
  fs::remove_all(dir_ / "out/client_00003.h5");
  auto const other = shard(1, "out", {"--set", "seed=7"});
  ASSERT_EQ(other.exit_code, 0) << other.err << other.out;
  EXPECT_THAT(other.out, testing::Not(testing::HasSubstr("are kept")));
  EXPECT_EQ(files("out"), files("whole"));
}

TEST_F(ShardDolly, PreviewMarksWhatIsScored) {
  auto const outcome = run(dir_.path(), 2, {"fsllm_shard", "--cfg", config_, "--preview", "2"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  auto const& text = outcome.out;
  EXPECT_THAT(text, testing::HasSubstr("databricks-dolly-15k.jsonl.gz:"));
  EXPECT_THAT(text, testing::ContainsRegex("[0-9]+ tokens, [0-9]+ scored"));
  auto const begin = text.find("### Response:"), open = text.find("«"), close = text.find("»");
  EXPECT_LT(begin, open);
  EXPECT_LT(open, close);
  EXPECT_EQ(text.find("== ", text.find("== ", text.find("== ") + 1) + 1), std::string::npos) << "two rows";
  ASSERT_EQ(shard(2, "out").exit_code, 0);
  auto const cut = shard(1, "out", {"--preview", "1", "--set", "llm.tok_len=20"});
  EXPECT_EQ(cut.exit_code, 0) << "nothing is written, so shards may lie there: " << cut.err;
  EXPECT_THAT(cut.out, testing::HasSubstr(": 20 tokens, 19 scored, cut to llm.tok_len\n"));
  auto const wrong = run(dir_.path(), 0, {"fsllm_shard", "--cfg", config_, "--preview", "two"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err,
              testing::HasSubstr("--preview two (a number of rows is needed). Write --preview 3."));
}

}  // namespace
}  // namespace fsllm::test
