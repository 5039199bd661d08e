// SPDX-License-Identifier: Apache-2.0
// A GGUF file: an Error, or tensors of which every byte can be read, a model and a tokenizer.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstdlib>
#include <functional>

#include "fsllm/core/error.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/text/tokenizer.hpp"
#include "memory_file.hpp"

namespace {

void attempt(std::function<void()> const& action) {
  try {
    action();
  } catch (fsllm::Error const&) {
  }
}

void read_all(fsllm::GgufReader const& reader, std::string const& name) {
  auto const tensor = reader.tensor(name);
  auto const* const bytes = static_cast<uint8_t const*>(tensor.const_data_ptr());
  unsigned sum = 0;
  for (size_t i = 0; i < tensor.nbytes(); ++i) sum += bytes[i];
  [[maybe_unused]] unsigned volatile const read = sum;
}

void use(fsllm::Tokenizer const& tokenizer) {
  auto const ids = tokenizer.encode("aab 12 <s> caf\xc3\xa9 \xff\n\n  end</s>");
  for (int32_t const id : ids)
    if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
  tokenizer.decode(ids);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  fsllm::test::MemoryFile const file(data, size);
  attempt([&] {
    fsllm::GgufReader const reader(file.path());
    for (auto const& [name, _] : reader.tensors()) attempt([&] { read_all(reader, name); });
    attempt([&] { fsllm::load_model(file.path()); });
    attempt([&] { use(*fsllm::load_tokenizer(file.path())); });
  });
  return 0;
}
