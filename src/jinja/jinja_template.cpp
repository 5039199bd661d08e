// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "fsllm/jinja/jinja.hpp"
#include "interpreter.hpp"

namespace fsllm {

struct JinjaTemplate::Impl {
  std::string name;
  jinja::Block block;
};

JinjaTemplate::JinjaTemplate(std::string_view source, std::string name) : impl_(std::make_unique<Impl>()) {
  impl_->name = std::move(name);
  impl_->block = jinja::parse(source, impl_->name);
}

JinjaTemplate::~JinjaTemplate() = default;
JinjaTemplate::JinjaTemplate(JinjaTemplate&&) noexcept = default;

JinjaTemplate::Output JinjaTemplate::render(nlohmann::ordered_json const& variables) const {
  auto const values = jinja::from_json(variables);
  jinja::Interpreter interpreter(impl_->name, *values.dict());
  interpreter.run(impl_->block);
  return {std::move(interpreter.output()), interpreter.generated()};
}

}  // namespace fsllm
