// SPDX-License-Identifier: Apache-2.0
// How far an adapter is from the mean of the clients' products, exactly.
#include <ATen/ops/cat.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fsllm/app/inspect.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/peft/low_rank.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;
using Adapter = std::map<std::string, Factors>;

std::vector<fs::path> client_folders(fs::path const& dir) {
  std::vector<fs::path> folders;
  if (fs::is_directory(dir))
    for (auto const& entry : fs::directory_iterator(dir))
      if (fs::exists(entry.path() / "adapter_config.json")) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  FSLLM_CHECK(!folders.empty(),
              "--clients {}: no folder with an adapter in it. Give the folder that holds client_00001, "
              "client_00002, ….",
              dir.string());
  return folders;
}

std::vector<double> shares(std::vector<double> weights, size_t clients) {
  if (weights.empty()) weights.assign(clients, 1);
  FSLLM_CHECK(weights.size() == clients, "--weights: {} numbers for {} clients. Give one for each.",
              weights.size(), clients);
  double sum = 0;
  for (double const weight : weights) sum += weight;
  FSLLM_CHECK(sum > 0, "--weights: all are 0 (there is no mean). Give the clients' training rows.");
  for (double& weight : weights) weight /= sum;
  return weights;
}

std::vector<std::string> modules_of(Adapter const& adapter) {
  std::vector<std::string> modules;
  for (auto const& [module, factors] : adapter) modules.push_back(module);
  return modules;
}

/// ‖Σ left_i right_i‖_F by QR of both stacks: small sums keep their digits.
double norm_of_sum(std::vector<at::Tensor> const& left, std::vector<at::Tensor> const& right) {
  return svd_of_product(at::cat(left, 1), at::cat(right, 0)).s.norm().item<double>();
}

}  // namespace

Json aggregation_error(fs::path const& global, fs::path const& clients, std::vector<double> const& weights) {
  auto const folders = client_folders(clients);
  auto const p = shares(weights, folders.size());
  auto const made = read_lora_factors(global);
  std::vector<Adapter> adapters;
  Json facts{{"kind", "aggregation"}, {"clients", Json::object()}, {"aggregation_error", 0}};
  for (size_t k = 0; k < folders.size(); ++k) {
    adapters.push_back(read_lora_factors(folders[k]));
    FSLLM_CHECK(
        modules_of(adapters.back()) == modules_of(made),
        "{} and {} adapt other modules (their products cannot be compared). Give adapters of one run.",
        folders[k].string(), global.string());
    facts["clients"][folders[k].filename().string()] = p[k];
  }
  double errors = 0, sizes = 0;
  for (auto const& [module, own] : made) {
    std::vector<at::Tensor> left, right;
    for (size_t k = 0; k < adapters.size(); ++k) {
      auto const& [b, a] = adapters[k].at(module);
      FSLLM_CHECK(b.size(0) == own.b.size(0) && a.size(1) == own.a.size(1),
                  "{}: {} has another size than in {}. Give adapters of one model.", folders[k].string(),
                  module, global.string());
      left.push_back(b.mul(p[k]));
      right.push_back(a);
    }
    double const size = norm_of_sum(left, right);
    left.push_back(own.b.neg());
    right.push_back(own.a);
    double const error = norm_of_sum(left, right);
    facts["modules"][module] = size > 0 ? error / size : 0;
    errors += error * error;
    sizes += size * size;
  }
  facts["aggregation_error"] = sizes > 0 ? std::sqrt(errors / sizes) : 0;
  return facts;
}

}  // namespace fsllm
