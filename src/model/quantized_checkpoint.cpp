// SPDX-License-Identifier: Apache-2.0
#include "quantized_checkpoint.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm::detail {
namespace {

/// What the tensors of a quantiser are called, and who writes them.
struct Trace {
  char const* part;
  char const* quantizer;
};
constexpr Trace kTraces[] = {{".weight_scale_inv", "fp8"},
                             {".weight_packed", "compressed-tensors"},
                             {".weight_zero_point", "compressed-tensors"},
                             {".weight_scale", "fp8 or compressed-tensors"},
                             {".input_scale", "fp8 or compressed-tensors"},
                             {".qweight", "gptq or awq"},
                             {".qzeros", "gptq or awq"},
                             {".g_idx", "gptq"},
                             {".quant_state.", "bitsandbytes, 4 bit"},
                             {".absmax", "bitsandbytes, 4 bit"},
                             {".quant_map", "bitsandbytes, 4 bit"},
                             {".SCB", "bitsandbytes, 8 bit"},
                             {".W_q", "hqq"},
                             {".codebooks", "aqlm"},
                             {".weight._data", "quanto"},
                             {"_proj_blocks", "mxfp4"}};

/// A packed type: no format keeps plain weights in it.
bool is_packed(std::string const& dtype) {
  return dtype != "F32" && dtype != "BF16" && dtype != "F16" && dtype != "F64";
}

/// "gptq" of config.json's quantization_config; "" where there is none.
std::string declared(std::filesystem::path const& model) {
  auto const json = read_json(model / "config.json");
  for (auto const* key : {"quantization_config", "compression_config"}) {
    auto const found = json.is_object() ? json.find(key) : json.end();
    if (found == json.end() || !found->is_object()) continue;
    auto const method = found->find("quant_method");
    return method != found->end() && method->is_string() ? method->get<std::string>() : "unknown";
  }
  return "";
}

}  // namespace

void refuse_quantized(WeightSource const& source, std::filesystem::path const& model) {
  if (!std::filesystem::is_directory(model)) return;
  for (auto const& name : source.names()) {
    auto const* trace = std::find_if(std::begin(kTraces), std::end(kTraces), [&](Trace const& one) {
      return name.find(one.part) != std::string::npos;
    });
    bool const packed = is_packed(source.dtype(name));
    if (trace == std::end(kTraces) && !packed) continue;
    auto const method = declared(model);
    if (trace == std::end(kTraces) && method.empty()) continue;
    fail(fmt::format(
        "{}: a quantised checkpoint ({}: it holds {}, {}; packed weights are not read). Use the model that "
        "it "
        "was made from, or save it dequantised (transformers: model.dequantize()); train.storage_dtype: int8 "
        "or nf4 quantises plain weights while they are loaded.",
        model.string(), method.empty() ? trace->quantizer : method, name, source.dtype(name)));
  }
}

}  // namespace fsllm::detail
