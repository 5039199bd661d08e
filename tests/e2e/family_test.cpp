// SPDX-License-Identifier: Apache-2.0
// Every row of the family table through the programs: what they say of its model, what they write, and what
// they refuse.
#include "bad_input.hpp"
#include "damage.hpp"
#include "fsllm/model/config.hpp"

namespace fsllm::test {
namespace {

/// A copy of a family's first fixture, whose folder has its name; for tests to spoil.
class Family {
 public:
  explicit Family(std::string const& name) : source_(reference_dir(name)) {
    fs::create_directories(model());
    for (auto const* file : {"config.json", "model.safetensors"}) {
      fs::copy_file(source_ / file, model() / file);
      fs::permissions(model() / file, fs::perms::owner_write, fs::perm_options::add);
    }
  }
  fs::path dir() const { return dir_.path(); }
  fs::path model() const { return dir_ / "model"; }
  json inspect(fs::path const& path) const {
    return json::parse(run(dir(), 0, {"fsllm_inspect", path.string(), "--json"}).out);
  }
  /// fsllm_hpc --check of a run on the token rows of `federated`.
  Outcome check(fs::path const& path) const {
    SmallRun small;
    small.adapter = "{r: 4, target_modules: all-linear}";
    auto const config = write_config(dir(), small.yaml(dir())).string();
    return run(dir(), 0, {"fsllm_hpc", "--check", "--cfg", config, "model.type", path.string()});
  }
  fs::path merged() const {
    auto const out = dir_ / "merged";
    auto const outcome = run(dir(), 0,
                             {"fsllm_export", "--model", model().string(), "--adapter",
                              (source_ / "adapter").string(), "--to", "merged", "--out", out.string()});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return out;
  }

 private:
  TempDir dir_;
  fs::path source_;
};

TEST(FamilyTable, EveryRowIsNamedMergedAndTakenBack) {
  for (auto const& name : known_model_families()) {
    SCOPED_TRACE(name);
    Family const family(name);
    auto const golden = json::parse(read_text(reference_dir(name) / "golden.json"));
    auto const facts = family.inspect(family.model());
    EXPECT_EQ(facts.at("family"), name);
    EXPECT_EQ(facts.at("parameters"), golden.at("parameters"));
    auto const merged = family.merged();
    EXPECT_EQ(family.inspect(merged), facts) << "a merged model has the shapes of its base";
    auto const outcome = family.check(merged);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_THAT(outcome.out + outcome.err, testing::HasSubstr(name + " model " + merged.string()));
  }
}

TEST(FamilyTable, EveryRowIsRefusedWhereItIsDamaged) {
  for (auto const& name : known_model_families()) {
    SCOPED_TRACE(name);
    Family const family(name);
    json_edit("model/config.json", [](json& j) { j["vocab_size"] = 95; })(family.dir());
    expect_message(family.check(family.model()), "(config.json asks for [95, ");
    json_edit("model/config.json", [](json& j) { j.erase("vocab_size"); })(family.dir());
    expect_message(family.check(family.model()),
                   (family.model() / "config.json").string() + ": 'vocab_size' is missing");
  }
}

/// Generation beyond the original length of a LongRoPE model (make_rope_goldens.py).
TEST(FamilyTable, LongRopeGeneratesBeyondItsOriginalLength) {
  auto const facts = json::parse(read_text(reference_dir("rope") / "rope.json"));
  auto const& longrope = facts.at("cases").at("longrope");
  Family const family(longrope.at("fixture"));
  json_edit("model/config.json", [&](json& j) {
    j.update(longrope.at("changes"));
    j["eos_token_id"] = nullptr;
  })(family.dir());
  std::string requests;
  for (auto const& row : facts.at("rows"))
    requests +=
        json{{"id", 1}, {"type", "generate_until"}, {"context_ids", row}, {"max_tokens", 40}}.dump() + "\n";
  write(family.dir() / "in.jsonl", requests);
  auto const outcome =
      run(family.dir(), 0,
          {"fsllm_eval", "--model", family.model().string(), "--requests",
           (family.dir() / "in.jsonl").string(), "--responses", (family.dir() / "out.jsonl").string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  size_t row = 0;
  for (auto const& answer : read_events(family.dir() / "out.jsonl"))
    EXPECT_EQ(answer.at("ids"), longrope.at("greedy").at(row++));
  EXPECT_EQ(row, facts.at("rows").size());
}

}  // namespace
}  // namespace fsllm::test
