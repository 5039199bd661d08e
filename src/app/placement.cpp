// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "fsllm/app/program.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/comm/cores.hpp"
#include "fsllm/comm/nccl.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm {

namespace {

/// Does this CPU multiply bf16 matrices faster than fp32 ones? (CPUs with AMX have AVX512_BF16 too.)
bool cpu_has_bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

bool file_is_bf16(std::filesystem::path const& model_dir) {
  if (is_gguf(model_dir)) return GgufReader(model_dir).info("token_embd.weight").type == "BF16";
  SafetensorsReader const reader(model_dir);
  auto const names = reader.names();
  return !names.empty() && reader.dtype(names.front()) == "BF16";
}

}  // namespace

int threads_per_rank(RunConfig const& run) {
  if (run.threads != "auto") return std::stoi(run.threads);
  bool const exact = run.fed.reduce == "exact" || (run.fed.reduce == "auto" && !run.peft.method.empty());
  return exact ? 1 : cores_of_rank();
}

namespace {

DevicePlan device_for(std::string const& use_gpu, Communicator const& world) {
  DevicePlan plan;
  plan.fast_bf16 = cpu_has_bf16();
  if (use_gpu == "False") return plan;
  int const gpus = cuda_device_count();
  bool const some = world.any(gpus > 0);
  bool const everywhere = !world.any(gpus == 0);
  agree(world, [&] {
    FSLLM_CHECK(
        use_gpu != "True" || is_cuda_build(),
        "use_gpu: True (this build has no CUDA). Build the preset cuda, or set use_gpu: auto or False to use "
        "the CPU.");
    FSLLM_CHECK(use_gpu != "True" || gpus > 0,
                "use_gpu: True (rank {} finds no GPU that it can use). Start the run where every rank has "
                "one, or set "
                "use_gpu: auto or False to use the CPU.",
                world.rank());
  });
  if (!everywhere) {
    if (some && world.rank() == 0) log_warning("some ranks have no GPU: the run uses the CPU on all of them");
    return plan;
  }
  plan.gpu = world.split_by_node().rank() % gpus;
  plan.device = fmt::format("cuda:{}", plan.gpu);
  plan.fast_bf16 = cuda_device_has_bf16(plan.gpu);
  auto uuids = world.all_gather(cuda_device_uuid(plan.gpu));
  std::sort(uuids.begin(), uuids.end());
  plan.nccl = std::adjacent_find(uuids.begin(), uuids.end()) == uuids.end();
  if (!plan.nccl && world.rank() == 0)
    log_warning("two ranks share a GPU: updates travel through host memory. Start one rank a GPU for NCCL.");
  return plan;
}

}  // namespace

DevicePlan choose_device(std::string const& use_gpu, Communicator const& world) {
  auto plan = device_for(use_gpu, world);
  take_cores(world, plan.gpu < 0 ? "" : cuda_device_cores(plan.gpu));
  return plan;
}

std::string choose_compute_dtype(RunConfig const& run, std::filesystem::path const& model_dir,
                                 DevicePlan const& device, Communicator const& world) {
  if (run.compute_dtype != "auto") return run.compute_dtype;
  if (run.half && run.storage_dtype == "fp16") return world.any(device.gpu < 0) ? "fp32" : "fp16";
  bool half = false;
  agree(world, [&] {
    if (world.rank() == 0)
      half = run.storage_dtype == "bf16" || (run.storage_dtype == "auto" && file_is_bf16(model_dir));
  });
  bool const fast = !world.any(!device.fast_bf16);
  return world.any(half) && fast ? "bf16" : "fp32";
}

}  // namespace fsllm
