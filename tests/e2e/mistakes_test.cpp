// SPDX-License-Identifier: Apache-2.0
// The tables of docs/TROUBLESHOOTING.md, line by line: each command, alone and on two ranks, ends with exit
// code 2 and the message that stands there, and changes no file.
#include <fmt/ranges.h>

#include <sstream>

#include "damage.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm::test {
namespace {

struct Mistake {
  std::vector<std::string> words;
  std::string message;
};

/// Cells of a line of a Markdown table, without the blanks around them.
std::vector<std::string> cells_of(std::string const& line) {
  std::vector<std::string> cells;
  std::istringstream parts(line.substr(1));
  for (std::string cell; std::getline(parts, cell, '|');) {
    auto const begin = cell.find_first_not_of(' ');
    cells.push_back(begin == cell.npos ? "" : cell.substr(begin, cell.find_last_not_of(' ') + 1 - begin));
  }
  return cells;
}

/// As a shell parts them: by blanks, outside of '...'.
std::vector<std::string> words_of(std::string const& command) {
  std::vector<std::string> words(1);
  bool quoted = false;
  for (char const c : command) {
    if (c == '\'')
      quoted = !quoted;
    else if (c == ' ' && !quoted)
      words.emplace_back();
    else
      words.back() += c;
  }
  return words;
}

std::vector<Mistake> mistakes() {
  std::vector<Mistake> found;
  std::istringstream lines(read_text(source_file("docs/TROUBLESHOOTING.md")));
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("|")) continue;
    auto const cells = cells_of(line);
    if (cells.size() != 3 || !cells[1].starts_with("`")) continue;
    found.push_back({words_of(cells[1].substr(1, cells[1].size() - 2)), cells[2]});
  }
  return found;
}

std::string program_of(Mistake const& mistake) {
  return mistake.words[0] == "mpirun" ? mistake.words[3] : mistake.words[0];
}

/// What stands behind "error: ", one message an element.
std::vector<std::string> messages_in(std::string const& err) {
  std::vector<std::string> messages;
  std::istringstream lines(err);
  for (std::string line; std::getline(lines, line);)
    if (auto const at = line.find("error: "); at != line.npos) messages.push_back(line.substr(at + 7));
  return messages;
}

/// … in `pattern` stands for any text.
bool is_like(std::string const& text, std::string const& pattern) {
  std::string const any = "…";
  size_t at = 0, begin = 0;
  for (size_t end = pattern.find(any); end != pattern.npos; end = pattern.find(any, begin)) {
    auto const part = pattern.substr(begin, end - begin);
    auto const found = begin == 0 ? (text.starts_with(part) ? 0 : text.npos) : text.find(part, at);
    if (found == text.npos) return false;
    at = found + part.size();
    begin = end + any.size();
  }
  auto const last = pattern.substr(begin);
  return begin == 0 ? text == last : text.size() >= at + last.size() && text.ends_with(last);
}

void write_files(fs::path const& dir) {
  prepare(dir);
  std::string rows;
  for (int i = 0; i < 60; ++i)
    rows += fmt::format(R"({{"instruction": "What is {0}?", "input": "", "output": "It is {0}."}})"
                        "\n",
                        i);
  write(dir / "data/rows.jsonl", rows);
  write(dir / "data/broken.jsonl", rows.substr(0, rows.find('\n') + 1) + "{\"instruction\": \"What\", \n");
  write(dir / "data/columns.jsonl", "{\"question\": \"What is 1?\", \"answer\": \"It is 1.\"}\n");
  write(dir / "data/empty.jsonl", "");
  write(dir / "data/choices.jsonl", "{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 7}\n");
  write(dir / "data/rows.csv", "instruction,output\na,b\n");
  write(dir / "data/garbage.jsonl", std::string("\x7f"
                                                "ELF\0\1\2\xff",
                                                8));
  write(dir / "in.jsonl", "{\"id\":1,\"type\":\"loglikelihood_rolling\",\"ids\":[1,2,3,4]}\n");
  write(dir / "half.jsonl", "{\"id\":1,\"type\":\"loglikelihood\",\"context\":\"a\"}\n");
  write(dir / "kind.jsonl", "{\"id\":1,\"type\":\"perplexity\",\"text\":\"a\"}\n");
  write(dir / "notes.txt", "mine\n");
}

void write_configurations(fs::path const& dir) {
  std::string const run =
      "outdir: exp\nexpname: run\nmodel: {type: model}\n"
      "data: {root: data, type: rows.jsonl, splitter: iid, splits: [0.8, 0.2, 0.0]}\n"
      "federate: {client_num: 3, total_round_num: 1}\ntrain: {local_update_steps: 1}\n";
  std::string const adapter = "llm: {tok_len: 48, adapter: {use: True, args: [{r: 4}]}}\n";
  write(dir / "run.yaml", run + adapter);
  write(dir / "empty.yaml", "");
  write(dir / "bracket.yaml", std::string(run).replace(run.find("0.0]}"), 5, "0.0}"));
  write(dir / "tab.yaml", run + adapter + "eval:\n\tfreq: 2\n");
  write(dir / "client.yaml", run + adapter + "distribute: {use: True, role: client}\n");
  write(dir / "rate.json", "{\"optimizer\": {\"type\": \"Adam\", \"params\": {\n\"lr\": 0.001}}}\n");
  write(dir / "nvme.json",
        "{\"zero_optimization\": {\"stage\": 3, \"offload_param\": {\"device\": \"nvme\"}}}\n");
  write(dir / "client_9.yaml", "client_9: {train: {optimizer: {lr: 0.1}}}\n");
  write(dir / "other_adapter.yaml",
        run + "llm: {tok_len: 48, adapter: {use: True, init_from: other_adapter}}\n");
}

void write_sweeps(fs::path const& dir) {
  std::string const head = "base: run.yaml\noutdir: runs\n";
  write(dir / "sweep.yaml", head + "grid: {train.optimizer.lr: [0.1, 1.0]}\nseeds: [1, 2]\n");
  write(dir / "sweep_gird.yaml", head + "gird: {train.optimizer.lr: [0.1, 1.0]}\n");
  write(dir / "sweep_seed.yaml", head + "grid: {seed: [1, 2]}\n");
  write(dir / "sweep_base.yaml", "base: rnu.yaml\noutdir: runs\nseeds: [1, 2]\n");
  write(
      dir / "sweep_steps.yaml",
      head + "grid: {train.optimizer.lr: [0.1]}\nhalving: {budget_key: train.local_update_steps, max: 9}\n");
}

void write_models(fs::path const& dir) {
  for (auto const* name : {"cut_model", "pointer_model", "other_tokenizer"})
    fs::copy(dir / "model", dir / name);
  fs::resize_file(dir / "cut_model/model.safetensors", 5000);
  write(dir / "pointer_model/model.safetensors",
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n");
  text_edit("other_tokenizer/tokenizer.json", "\"version\":\"1.0\"", "\"version\":\"2.0\"")(dir);
  fs::copy(dir / "model", dir / "no_tokenizer");
  fs::remove(dir / "no_tokenizer/tokenizer.json");
  fs::copy(reference_dir("gpt2") / "adapter", dir / "other_adapter");
}

/// Paths and bytes of all files, but for those of the run that was refused.
std::map<std::string, std::string> files_of(fs::path const& dir) {
  std::map<std::string, std::string> files;
  for (auto const& entry : fs::recursive_directory_iterator(dir)) {
    auto const name = entry.path().lexically_relative(dir).string();
    bool const output = name == "stdout.txt" || name == "stderr.txt" || name.starts_with("exp/run/");
    if (entry.is_regular_file() && !output) files[name] = sha256_file(entry.path());
  }
  return files;
}

class Mistakes : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    before_ = fs::current_path();
    dir_ = std::make_unique<TempDir>();
    auto const& dir = dir_->path();
    write_files(dir);
    write_configurations(dir);
    write_sweeps(dir);
    write_models(dir);
    fs::current_path(dir);
    ASSERT_EQ(run(dir, 0, {"fsllm_hpc", "--cfg", "run.yaml", "expname", "done"}).exit_code, 0);
    ASSERT_EQ(run(dir, 0, {"fsllm_shard", "--cfg", "run.yaml", "--out", "shards"}).exit_code, 0);
  }
  static void TearDownTestSuite() {
    fs::current_path(before_);
    dir_.reset();
  }

  static void expect_refused(Mistake const& mistake, int np, std::string const& message) {
    auto const outcome = run(dir_->path(), np, mistake.words);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err << outcome.out;
    auto const messages = messages_in(outcome.err);
    ASSERT_EQ(messages.size(), 1U) << outcome.err;
    EXPECT_TRUE(is_like(messages[0], message)) << messages[0] << "\ninstead of\n" << message;
    EXPECT_FALSE(fs::exists("exp/run/config.yaml")) << "what failed before training holds no run";
    fs::remove_all("exp/run");
  }

  static void expect_all(std::string const& program) {
    auto const files = files_of(dir_->path());
    int count = 0;
    for (auto mistake : mistakes()) {
      if (program_of(mistake) != program) continue;
      ++count;
      SCOPED_TRACE(fmt::format("{}", fmt::join(mistake.words, " ")));
      if (mistake.words[0] == "mpirun") {
        int const np = std::stoi(mistake.words[2]);
        mistake.words.erase(mistake.words.begin(), mistake.words.begin() + 3);
        expect_refused(mistake, np, mistake.message);
        continue;
      }
      expect_refused(mistake, 0, mistake.message);
      bool const is_for_one = program == "fsllm_export" || program == "fsllm_serve" ||
                              program == "fsllm_chat" || program == "fsllm_sweep";
      bool const refused_as_such = is_for_one && !mistake.message.starts_with("'");
      expect_refused(
          mistake, 2,
          refused_as_such
              ? fmt::format("{} on 2 ranks (it is a program for one). Start it without mpirun.", program)
              : mistake.message);
    }
    EXPECT_GE(count, 5);
    EXPECT_EQ(files_of(dir_->path()), files);
  }
  static inline std::unique_ptr<TempDir> dir_;
  static inline fs::path before_;
};

TEST_F(Mistakes, Hpc) {
  expect_all("fsllm_hpc");
}
TEST_F(Mistakes, Shard) {
  expect_all("fsllm_shard");
}
TEST_F(Mistakes, Eval) {
  expect_all("fsllm_eval");
}
TEST_F(Mistakes, Export) {
  expect_all("fsllm_export");
}
TEST_F(Mistakes, Inspect) {
  expect_all("fsllm_inspect");
}
TEST_F(Mistakes, Serve) {
  expect_all("fsllm_serve");
}
TEST_F(Mistakes, Chat) {
  expect_all("fsllm_chat");
}

TEST_F(Mistakes, Sweep) {
  expect_all("fsllm_sweep");
}

TEST_F(Mistakes, AreAllRead) {
  EXPECT_GE(mistakes().size(), 90U);
}

}  // namespace
}  // namespace fsllm::test
