// SPDX-License-Identifier: Apache-2.0
// FS-LLM's configurations: configs/fs_llm has one for each of its baselines, and each is checked by the
// program.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <future>
#include <map>
#include <sstream>

#include "federation.hpp"
#include "fsllm/model/blocks.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

/// Path below configs/fs_llm → a word of the message that refuses it.
std::map<std::string, std::string> read_not_yet() {
  std::map<std::string, std::string> rows;
  std::ifstream file(source_file("tests/e2e/fs_llm/not_yet.txt"));
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("#")) continue;
    std::istringstream words(line);
    std::string path, word;
    words >> path >> word;
    rows.emplace(path, word);
  }
  return rows;
}

std::vector<std::string> configurations() {
  auto const root = source_file("configs/fs_llm");
  std::vector<std::string> paths;
  for (auto const& entry : fs::recursive_directory_iterator(root))
    if (entry.path().extension() == ".yaml") paths.push_back(fs::relative(entry.path(), root).string());
  std::sort(paths.begin(), paths.end());
  return paths;
}

class Baselines : public testing::Test {
 protected:
  Baselines() {
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);  // no helper process of Open MPI for each of 62 starts
    write_text_model(dir_ / "two_blocks");
    copy_blocks(dir_ / "two_blocks", {0, 1, 0, 1, 0, 1}, {}, dir_ / "model");  // offsite tuning trains four
    write_data_sets(dir_ / "data");
  }

  Outcome check(std::string const& path) const {
    auto name = path;
    std::replace(name.begin(), name.end(), '/', '_');
    auto const own = dir_ / name;
    fs::create_directory(own);
    return run(own, 0,
               {"fsllm_hpc", "--cfg", source_file("configs/fs_llm/" + path).string(), "--check", "model.type",
                (dir_ / "model").string(), "data.root", (dir_ / "data").string(), "use_gpu", "False",
                "llm.tok_len", "60"});
  }

  TempDir dir_;
};

void expect_verdict(Outcome const& outcome, std::string const& path,
                    std::map<std::string, std::string> const& not_yet) {
  auto const later = not_yet.find(path);
  if (path.ends_with("client.yaml")) {
    auto server = path;
    server.replace(server.rfind("client"), 6, "server");
    EXPECT_EQ(outcome.exit_code, 2) << outcome.out;
    EXPECT_THAT(outcome.err, testing::HasSubstr("configs/fs_llm/" + server + ", and give")) << outcome.out;
  } else if (later != not_yet.end()) {
    EXPECT_EQ(outcome.exit_code, 2) << "works now: take it out of tests/e2e/fs_llm/not_yet.txt";
    EXPECT_THAT(outcome.err, testing::HasSubstr("not available in this version"));
    EXPECT_THAT(outcome.err, testing::HasSubstr(later->second));
  } else {
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, testing::HasSubstr("are good"));
  }
}

TEST_F(Baselines, AreCheckedOrNotAvailableYet) {
  auto const paths = configurations();
  ASSERT_EQ(paths.size(), 62U);
  auto const not_yet = read_not_yet();
  for (auto const& [path, word] : not_yet)
    EXPECT_EQ(std::count(paths.begin(), paths.end(), path), 1) << path << " of not_yet.txt";
  std::vector<Outcome> outcomes(paths.size());
  auto const work = [&](size_t first) {
    for (size_t i = first; i < paths.size(); i += 2) outcomes[i] = check(paths[i]);
  };
  auto const half = std::async(std::launch::async, work, 1);
  work(0);
  half.wait();
  for (size_t i = 0; i < paths.size(); ++i) {
    SCOPED_TRACE(paths[i]);
    expect_verdict(outcomes[i], paths[i], not_yet);
  }
}

/// FS-LLM's offsite tuning with its alignment, two rounds of it.
TEST_F(Baselines, OffsiteTuningRuns) {
  for (std::string const path :
       {"llama_offsite.yaml", "llama_offsite_align.yaml", "llama_offsite_dolly.yaml"}) {
    SCOPED_TRACE(path);
    auto const outcome = run(dir_.path(), 2,
                             {"fsllm_hpc",
                              "--cfg",
                              source_file("configs/fs_llm/" + path).string(),
                              "model.type",
                              (dir_ / "model").string(),
                              "data.root",
                              (dir_ / "data").string(),
                              "use_gpu",
                              "False",
                              "llm.tok_len",
                              "60",
                              "federate.total_round_num",
                              "2",
                              "outdir",
                              dir_.path().string(),
                              "expname",
                              path,
                              "data.splits",
                              "[0.8, 0.1, 0.1]",
                              "llm.offsite_tuning.emu_align.save_to",
                              (dir_ / (path + ".blocks")).string(),
                              "llm.offsite_tuning.emu_align.restore_from",
                              ""});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    EXPECT_TRUE(fs::exists(dir_ / path / "model/model.safetensors"));
    EXPECT_EQ(fs::exists(dir_ / (path + ".blocks")), path == "llama_offsite_align.yaml");
  }
}

TEST_F(Baselines, BeginWithTheirCommand) {
  for (auto const& path : configurations()) {
    std::ifstream file(source_file("configs/fs_llm/" + path));
    std::string line;
    std::getline(file, line);
    EXPECT_THAT(line, testing::StartsWith("# "));
    EXPECT_THAT(line, testing::EndsWith("fsllm_hpc --cfg configs/fs_llm/" + path));
  }
}

TEST_F(Baselines, EveryKeyOfFsLlmIsKnown) {
  auto const outcome =
      run(dir_.path(), 0,
          {"fsllm_hpc", "--cfg", source_file("tests/e2e/fs_llm/all_keys.yaml").string(), "--check",
           "model.type", (dir_ / "model").string(), "data.root", (dir_ / "data").string(), "data.type",
           "alpaca@llm", "data.splitter", "iid", "federate.client_num", "3", "llm.tok_len", "60"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
}

TEST_F(Baselines, CustomFilesCarryTheSuffixOfFsLlm) {
  fs::rename(dir_ / "data/alpaca_data.json", dir_ / "data/mine.json");
  auto const outcome = run(dir_.path(), 0,
                           {"fsllm_hpc", "--cfg", source_file("configs/fs_llm/llama.yaml").string(),
                            "--check", "model.type", (dir_ / "model").string(), "data.root",
                            (dir_ / "data").string(), "data.type", "mine.json@llm", "llm.tok_len", "60"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
}

TEST(KeyTables, AreThoseOfTheProgram) {
  TempDir dir;
  auto const outcome = run(dir.path(), 0, {"fsllm_hpc", "--print-markdown"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out == read_text(source_file("docs/config.md")), true)
      << "docs/config.md is not current. Write fsllm_hpc --print-markdown > docs/config.md.";
}

/// Each row of a table of methods is told with its sentence.
TEST(KeyTables, DescribeMethods) {
  TempDir dir;
  std::map<std::string, std::vector<std::string>> const rows = {
      {"adapter_method",
       {"lora: low-rank updates", "prefix: learned keys", "prompt: learned embeddings", "p-tuning: learned",
        "ia3: learned scales", "bitfit: the model's biases", "bottleneck: small networks",
        "compacter: bottlenecks of Kronecker", "mam: a prefix and"}},
      {"data.splitter", {"iid: shuffled", "lda: a Dirichlet share"}},
      {"data.prompt_template", {"alpaca: Stanford Alpaca's prompt"}},
      {"data.type", {"gsm8k@llm: Grade-school mathematics"}},
  };
  for (auto const& [key, sentences] : rows) {
    auto const outcome = run(dir.path(), 0, {"fsllm_hpc", "--describe", key});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    std::istringstream words(outcome.out);  // lines are wrapped
    std::string text, word;
    while (words >> word) text += word + " ";
    for (auto const& sentence : sentences)
      EXPECT_NE(text.find(sentence), std::string::npos) << sentence << text;
  }
}

}  // namespace
}  // namespace fsllm::test
