// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/model/quantized.hpp"
#include "fsllm/train/optimizer.hpp"

namespace fsllm {

/// Keys `llm.offsite_tuning.emu_align.*`: distillation of the emulator's middle blocks at the server.
struct AlignConfig {
  bool use = false;
  std::string restore_from, save_to;  ///< files of middle blocks
  bool exit_after = false;
  std::string data_root, data_type;
  std::vector<double> splits{0.8, 0.1, 0.1};
  int64_t steps = 10;
  bool epochs = false;       ///< steps count epochs
  bool every_round = false;  ///< the same steps again after every round
  int64_t initial = 1;       ///< how many times the steps are taken before the first round
  double lm_weight = 0.1, kd_weight = 0.9, kl_weight = 0;
  OptimizerConfig optimizer;
};

/// Keys `llm.offsite_tuning.*` (Xiao et al. 2023, "Offsite-Tuning: Transfer Learning without Full Model").
struct OffsiteConfig {
  bool use = false;
  double drop_ratio = 0.5;  ///< 0 where the strategy is another way to make less of the blocks
  double sparsity = 0;      ///< strategy pruning: share of the weights of middle blocks that becomes 0
  Quantization quantization = Quantization::none;  ///< strategy quantization: of the middle blocks
  int64_t emu_l = 1, emu_r = 10;                   ///< blocks from emu_l on and before emu_r are emulated
  bool judges_full = false;                        ///< eval_type full: losses are those of the full model
  AlignConfig align;
};
OffsiteConfig load_offsite_config(Config& config);

}  // namespace fsllm
