// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

TEST(Save, ConfigNamesTheTypeAndTokenizerFilesComeAlong) {
  auto const reference = load_reference("llama3");
  TempDir dir;
  copy_model(reference.dir, dir / "in");
  std::ofstream(dir / "in/tokenizer.json") << "{}";
  save_model(dir / "out", *load_model(dir / "in"), dir / "in", "bf16");
  auto const config = read_json(dir / "out/config.json");
  EXPECT_EQ(config.at("dtype"), "bfloat16");
  EXPECT_FALSE(config.contains("torch_dtype"));
  EXPECT_TRUE(std::filesystem::exists(dir / "out/tokenizer.json"));
  EXPECT_EQ(SafetensorsReader(dir / "out").dtype("model.norm.weight"), "BF16");
}

TEST(Save, AFileInTheWayIsAnError) {
  auto const reference = load_reference("llama");
  TempDir dir;
  std::ofstream(dir / "file") << "x";
  auto const model = load_model(reference.dir);
  EXPECT_ERROR(save_model(dir / "file/out", *model, reference.dir, "fp32"), "cannot make the folder");
}

}  // namespace
}  // namespace fsllm::test
