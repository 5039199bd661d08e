// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "fsllm/core/tensor_map.hpp"
#include "fsllm/model/linear.hpp"

/// Values that the backward pass needs, computed again there instead of kept (Chen et al. 2016, section 4).
/// The graph is the one that would be without it, so gradients are added in the same order and have the same
/// bits. What is given to these functions must compute the same bits each time; without gradients they call
/// it and do nothing else.
namespace fsllm::detail {

/// What is computed from tensors that are kept.
using Body = std::function<at::Tensor(std::vector<at::Tensor> const& inputs)>;

/// body(inputs), of whose operations nothing is kept: the backward pass runs body again, up to the last value
/// that is wanted. `last`: a linear of body on whose output no value in it depends, and whose product is left
/// out then (product_is_wanted).
at::Tensor recomputed(std::vector<at::Tensor> inputs, Body body, Linear const* last = nullptr);

/// False while body runs again, for its `last` linear with an adapter that does not look at the product.
bool product_is_wanted(Linear const& linear);

struct CheapSaver;

/// While one lives on a thread, and gradients are on, values that are cheap are not kept there.
class CheapValues {
 public:
  CheapValues();
  ~CheapValues();
  CheapValues(CheapValues const&) = delete;
  CheapValues& operator=(CheapValues const&) = delete;

 private:
  std::unique_ptr<CheapSaver> saver_;
};

/// `value`; where the backward pass needs it, it calls again() under CheapValues. again() must not own value.
at::Tensor cheap(at::Tensor value, std::function<at::Tensor()> again);
/// body(inputs), recomputed under CheapValues.
at::Tensor cheap(std::vector<at::Tensor> inputs, Body body);

/// Bytes that body's operations save for their backward pass, each storage once, beside those of `beside`;
/// what they save is not there for a backward pass.
int64_t saved_bytes(std::function<void()> const& body, TensorMap const& beside);

}  // namespace fsllm::detail
