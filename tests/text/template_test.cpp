// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/template.hpp"

#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/data/data_config.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/text/encode.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

PromptTemplate named(std::string const& name) {
  TemplateConfig config;
  config.name = name;
  return make_prompt_template(config);
}

Sample instruction(std::string const& task, std::string const& input = "", std::string const& answer = "") {
  Sample sample;
  sample.instruction = task;
  sample.input = input;
  sample.output = answer;
  sample.place = "x.jsonl:1";
  return sample;
}

Sample chat(std::vector<ChatMessage> messages) {
  Sample sample;
  sample.kind = SampleKind::chat;
  sample.messages = std::move(messages);
  sample.place = "x.jsonl:1";
  return sample;
}

std::unique_ptr<Tokenizer> tokenizer() {
  return load_tokenizer(test::source_file("tests/text/golden/llama2"));
}

/// The pieces of a chat, scored ones between « and ».
std::string marked(PromptTemplate const& prompt, Sample const& sample) {
  std::string text;
  for (auto const& piece : chat_segments(prompt, sample, *tokenizer()))
    text += piece.scored ? "«" + piece.text + "»" : piece.text;
  return text;
}

Sample const kChat =
    chat({{"system", "S"}, {"user", "A"}, {"assistant", "B"}, {"user", "C"}, {"assistant", "D"}});

TEST(Template, AlpacaLeavesOutTheInputThatIsNotThere) {
  auto const alpaca = named("alpaca");
  EXPECT_EQ(
      prompt_text(alpaca, instruction("Add {}.")),
      "Below is an instruction that describes a task. Write a response that appropriately completes the "
      "request.\n\n### Instruction:\nAdd {}.\n\n### Response:");
  EXPECT_EQ(prompt_text(alpaca, instruction("Add {}.", "1, 2")),
            "Below is an instruction that describes a task, paired with an input that provides further "
            "context. Write a "
            "response that appropriately completes the request.\n\n### Instruction:\nAdd {}.\n\n### "
            "Input:\n1, 2\n\n"
            "### Response:");
  EXPECT_ERROR(named("alpca"), "data.prompt_template = 'alpca'");
}

TEST(Template, PlainIsALineForInstructionAndInput) {
  EXPECT_EQ(prompt_text(named("plain"), instruction("Add {}.")), "Add {}.\n");
  EXPECT_EQ(prompt_text(named("plain"), instruction("Add {}.", "1, 2")), "Add {}.\n1, 2\n");
}

TEST(Template, NamedChatsScoreEachAnswerWithItsEnd) {
  EXPECT_EQ(
      marked(named("chatml"), kChat),
      "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n«B<|im_end|>»\n"
      "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n«D<|im_end|>»\n");
  EXPECT_EQ(marked(named("vicuna"), kChat), "<s>S USER: A ASSISTANT:« B</s>» USER: C ASSISTANT:« D</s>»");
  EXPECT_EQ(marked(named("llama-2-chat"), kChat),
            "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST]« B </s>»<s>[INST] C [/INST]« D </s>»");
  EXPECT_EQ(
      marked(named("llama-3"), kChat),
      "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>"
      "\n\nA<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«B<|eot_id|>»<|start_header_id|>user"
      "<|end_header_id|>\n\nC<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«D<|eot_id|>»");
  EXPECT_EQ(marked(named("mistral-instruct"), kChat),
            "<s>[INST] S\n\nA[/INST]« B</s>»[INST] C[/INST]« D</s>»");
}

TEST(Template, InstructionsAreChatsOfTwoTurns) {
  EXPECT_EQ(marked(named("mistral-instruct"), instruction("Add.", "1, 2", "3")),
            "<s>[INST] Add.\n\n1, 2[/INST]« 3</s>»");
  EXPECT_EQ(marked(named("chatml"), chat({{"user", "A"}})), "<|im_start|>user\nA<|im_end|>\n");
}

TEST(Template, RolesOutOfOrderAreRefused) {
  auto const prompt = named("mistral-instruct");
  EXPECT_ERROR(encode_sample(chat({{"user", "A"}, {"user", "B"}}), prompt, tokenizer().get()),
               "x.jsonl:1: template mistral-instruct:");
  EXPECT_ERROR(encode_sample(kChat, named("alpaca"), tokenizer().get()),
               "x.jsonl:1: a chat (data.prompt_template = alpaca is for an instruction and its answer)");
}

/// The template of a model folder whose tokenizer_config.json is `config`.
PromptTemplate of_model(std::string const& config, std::string const& jinja = "") {
  test::TempDir model;
  write_file_atomic(model / "tokenizer_config.json", config);
  if (!jinja.empty()) write_file_atomic(model / "chat_template.jinja", jinja);
  TemplateConfig data;
  data.name = "model";
  data.model = model.path().string();
  return make_prompt_template(data);
}

std::string const kTurns = "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}";

TEST(Template, TheModelsOwn) {
  auto const one = of_model(nlohmann::json{{"chat_template", kTurns}}.dump());
  EXPECT_THAT(one.name, testing::MatchesRegex("model:[0-9a-f]{8}|model:........"));
  EXPECT_EQ(marked(one, chat({{"assistant", "B"}})), "«[assistant]B;»");
  auto const list = of_model(
      R"({"chat_template":[{"name":"rag","template":"x"},{"name":"default","template":"{{ messages[0].content }}"}]})");
  EXPECT_EQ(marked(list, chat({{"user", "A"}})), "A");
  EXPECT_EQ(marked(of_model(R"({"chat_template":"no"})", "yes"), chat({{"user", "A"}})), "yes");
  EXPECT_ERROR(of_model("{}"), "has no chat template). Give a Jinja file with data.chat_template");
  EXPECT_ERROR(of_model(R"({"chat_template":[{"name":"rag","template":"x"}]})"),
               "none named \"default\" (it has: \"rag\")");
  EXPECT_ERROR(of_model(R"({"chat_template":"{% import 'x' %}"})"),
               "(chat template):1: {% import %} is outside");
}

TEST(Template, GenerationBlocksDecideWhatIsScored) {
  auto const prompt = of_model(
      nlohmann::json{{"chat_template",
                      "{% for m in messages %}{% if m.role == 'assistant' %}<{% generation %}{{ m.content }}"
                      "{% endgeneration %}>{% else %}{{ m.content }}{% endif %}{% endfor %}"}}
          .dump());
  EXPECT_EQ(marked(prompt, kChat), "SA<«B»>C<«D»>");
}

TEST(Template, AnswersAreFoundWhereEarlierTurnsAreRewritten) {
  auto const of = [](std::string const& jinja) {
    return of_model(nlohmann::json{{"chat_template", jinja}}.dump());
  };
  EXPECT_EQ(
      marked(of("{% for m in messages %}{% if loop.last %}!{% endif %}{{ m.content }}{% endfor %}"), kChat),
      "SA«B»C!«D»");
  // As Qwen3 does: reasoning stands before the last answer alone.
  auto const reasons =
      of("{% for m in messages %}<{{ m.role }}>\n{% if m.role == 'assistant' %}{% if loop.last "
         "%}<think>\n\n</think>\n\n"
         "{% endif %}{{ m.content.split('</think>')[-1].strip() }}{% else %}{{ m.content }}{% endif "
         "%}<end>\n{% endfor %}"
         "{% if add_generation_prompt %}<assistant>\n{% endif %}");
  auto const before = "<system>\nS<end>\n<user>\nA<end>\n<assistant>\n";
  auto const last = "\n<user>\nC<end>\n<assistant>\n«<think>\n\n</think>\n\nD<end>»\n";
  EXPECT_EQ(marked(reasons, kChat), std::string(before) + "«B<end>»" + last);
  auto thought = kChat;
  thought.messages[2].content = "<think>B B</think>\n\nB <end>\n";
  EXPECT_EQ(marked(reasons, thought), std::string(before) + "«B <end><end>»" + last);
  auto const hidden =
      of("{% for m in messages %}{% if loop.last %}!{% endif %}{{ messages[-1].content }}{{ m.content }}{% "
         "endfor %}");
  EXPECT_ERROR(encode_sample(kChat, hidden, tokenizer().get()),
               "x.jsonl:1: the chat template hides where answer 1 of the chat is");
}

TEST(Template, Custom) {
  TemplateConfig config;
  config.name = "custom";
  config.custom_prompt = "Q: {instruction} ({input}) {{x}}\nA:";
  config.custom_prompt_no_input = "Q: {instruction}\nA:";
  auto const prompt = make_prompt_template(config);
  EXPECT_EQ(prompt_text(prompt, instruction("a{b}", "c")), "Q: a{b} (c) {x}\nA:");
  EXPECT_EQ(prompt_text(prompt, instruction("a")), "Q: a\nA:");
  EXPECT_THAT(prompt.name, testing::StartsWith("custom:"));
  config.custom_prompt = "{question}";
  EXPECT_ERROR(make_prompt_template(config),
               "data.custom_template: {question} (known are {instruction}, {input}");
  config.custom_prompt = "no task";
  EXPECT_ERROR(make_prompt_template(config), "a template without {instruction}");
  config.custom_prompt = "";
  EXPECT_ERROR(make_prompt_template(config), "data.custom_template.prompt is not set");
}

TEST(Template, Keys) {
  auto const load = [](std::string const& yaml) {
    auto config = Config::parse(yaml, "run.yaml");
    auto data = load_data_config(config);
    config.finish();
    return data;
  };
  auto const data = load("data: {custom_template: {prompt: '{instruction}?'}}");
  EXPECT_EQ(data.prompt.name + data.prompt.custom_prompt, "custom{instruction}?");
  EXPECT_EQ(load("data: {chat_template: x.jinja}").prompt.name, "model");
  EXPECT_ERROR(load("data: {prompt_template: plain, custom_template: {prompt: '{instruction}?'}}"),
               "data.prompt_template = plain (data.custom_template is given too)");
  EXPECT_ERROR(load("data: {prompt_template: plain, chat_template: x.jinja}"),
               "data.chat_template is given too");
  EXPECT_ERROR(load("data: {custom_template: {prompt: 'x'}}"), "a template without {instruction}");
}

TEST(EncodeChat, TokensOfAnswersAreScored) {
  auto const tokens = tokenizer();
  auto const encoded = encode_sample(kChat, named("llama-2-chat"), tokens.get());
  EXPECT_EQ(
      encoded.ids,
      tokens->encode("<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST] B </s><s>[INST] C [/INST] D </s>", false));
  std::string scored;
  for (size_t i = 0; i < encoded.ids.size(); ++i)
    if (encoded.is_target[i] != 0) scored += tokens->decode({encoded.ids[i]}) + "|";
  EXPECT_THAT(scored, testing::MatchesRegex(".*B.*</s>.*D.*</s>\\|"));
  EXPECT_THAT(scored, testing::Not(testing::HasSubstr("INST")));
  EXPECT_EQ(encoded.is_target.back(), 1);
}

TEST(EncodeChat, TextIsScoredAsAWhole) {
  Sample sample;
  sample.kind = SampleKind::text;
  sample.output = "Once.";
  auto const tokens = tokenizer();
  auto const encoded = encode_sample(sample, named("alpaca"), tokens.get());
  EXPECT_EQ(encoded.ids, tokens->encode("Once.</s>"));
  EXPECT_EQ(std::count(encoded.is_target.begin(), encoded.is_target.end(), 1),
            static_cast<ptrdiff_t>(encoded.ids.size()));
}

}  // namespace
}  // namespace fsllm
