// SPDX-License-Identifier: Apache-2.0
// fsllm_chat, with and without a terminal's talk.
#include <cstdlib>
#include <fstream>

#include "federation.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

class Chat : public testing::Test {
 protected:
  void SetUp() override {
    FSLLM_NEED_TEST_DATA("models/stories260K");
    model_ = test_data("models/stories260K").string();
  }

  /// Standard output of fsllm_chat with `input` on its standard input.
  std::string talk(std::string const& options, std::string const& input) {
    std::ofstream(dir_ / "input.txt") << input;
    auto const program = (fs::path(std::getenv("FSLLM_BIN_DIR")) / "fsllm_chat").string();
    auto const command = "cd " + dir_.path().string() + " && " + program + " --model " + model_ + " " +
                         options + " <input.txt >output.txt 2>errors.txt";
    EXPECT_EQ(std::system(command.c_str()), 0) << read_text(dir_ / "errors.txt");
    return read_text(dir_ / "output.txt");
  }
  /// What generate_until says to the same text, and a line's end.
  std::string continued(std::string const& context) { return answered({{"context", context}}); }
  /// The same without BOS before the text.
  std::string continued_alone(std::string const& context) {
    std::ofstream(dir_ / "texts.jsonl")
        << nlohmann::json{{"text", context}, {"add_special_tokens", false}} << "\n";
    auto const tokens = run(dir_.path(), 0, {"fsllm_inspect", model_, "--tokenize", dir_ / "texts.jsonl"});
    return answered({{"context_ids", nlohmann::json::parse(tokens.out).at("ids")}});
  }
  std::string answered(nlohmann::json request) {
    request.update(
        {{"id", 1}, {"type", "generate_until"}, {"until", nlohmann::json::array()}, {"max_tokens", 20}});
    std::ofstream(dir_ / "in.jsonl") << request << "\n";
    auto const outcome = run(dir_.path(), 0,
                             {"fsllm_eval", "--model", model_, "--requests", dir_ / "in.jsonl", "--responses",
                              dir_ / "out.jsonl"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return nlohmann::json::parse(read_text(dir_ / "out.jsonl")).at("text").get<std::string>() + "\n";
  }

  TempDir dir_;
  std::string model_;
  std::string const plain_ = "--prompt_template plain --max_tokens 20 ";
};

TEST_F(Chat, OnePromptHasOneAnswer) {
  auto const answer = talk(plain_ + "--prompt 'Once upon a time, there was a'", "");
  EXPECT_GT(answer.size(), 10U);
  EXPECT_EQ(answer, continued("Once upon a time, there was a\n"));
}

TEST_F(Chat, TheModelSeesWhatWasSaid) {
  auto const first = continued("Tim had a dog.\n"), alone = continued("The dog was big.\n");
  auto const second = continued("Tim had a dog.\n" + first + "\nThe dog was big.\n");
  ASSERT_NE(second, alone);
  std::string const questions = "Tim had a dog.\nThe dog was big.\n";
  EXPECT_EQ(talk(plain_, questions), first + second);
  EXPECT_EQ(talk(plain_ + "--history 0", questions), first + alone);
  EXPECT_EQ(talk(plain_, "Tim had a dog.\n/reset\n\nThe dog was big.\n/quit\nNever asked.\n"), first + alone);
}

TEST_F(Chat, TemplatesOfChatsHaveRoomForASystem) {
  std::string const chat = "--prompt_template chatml --max_tokens 20 --prompt 'Tell me of a cat.' ";
  auto const without = talk(chat, "");
  EXPECT_EQ(without,
            continued_alone("<|im_start|>user\nTell me of a cat.<|im_end|>\n<|im_start|>assistant\n"));
  EXPECT_NE(talk(chat + "--system 'You are sad.'", ""), without);
}

TEST_F(Chat, DrawsByItsSeed) {
  auto const drawn = [&](std::string const& seed) {
    return talk(plain_ + "--temperature 1.5 --top_k 50 --top_p 0.95 --prompt Once --seed " + seed, "");
  };
  EXPECT_EQ(drawn("1"), drawn("1"));
  EXPECT_NE(drawn("1"), drawn("2"));
}

}  // namespace
}  // namespace fsllm::test
