// SPDX-License-Identifier: Apache-2.0
#include "federation.hpp"

#include <fmt/core.h>

namespace fsllm::test {

std::filesystem::path reference_dir(std::string const& name) {
  return source_file("tests/reference/" + name);
}

std::string SmallRun::yaml(std::filesystem::path const& outdir) const {
  auto const args = init_from.empty() ? "args: [" + adapter + "]" : "init_from: " + init_from;
  return fmt::format(
      "outdir: {}\nexpname: run\nseed: 1\nmodel: {{type: {}}}\n"
      "data: {{root: {}, type: rows.jsonl, splitter: natural, splitter_args: [{{field: client}}], splits: "
      "{}}}\n"
      "dataloader: {{batch_size: {}, shuffle: {}, packing: {}}}\n"
      "federate: {{client_num: 3, total_round_num: {}, method: fedavg}}\n"
      "train: {{local_update_steps: {}, batch_or_epoch: batch, optimizer: {}}}\n"
      "llm: {{tok_len: 64, adapter: {{use: True, {}}}}}\n"
      "{}",
      outdir.string(), reference_dir(model).string(), reference_dir("federated").string(), splits, batch,
      shuffle, packing, rounds, steps, optimizer, args, more);
}

}  // namespace fsllm::test
